"""Selective search: Uijlings et al., "Selective Search for Object Recognition" (IJCV 2013).

An image is cut into small regions, and the two neighbours that are most alike become one, until
one region is left; the box around every region on the way is a proposal. Doing so in several
colour spaces, from finer and coarser regions and by several measures of likeness gives boxes of
many kinds. Cutting and grouping are OpenCV's (`cv2.ximgproc.segmentation`).

    R      proposals of an image
    H, W   height and width of the image
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

SIMILARITIES = ("colour", "texture", "size", "fill")
SIGMA = 0.8  # of the Gaussian that smooths an image before it is cut into regions
SMALLEST_REGION = 100  # pixels


class Mode(NamedTuple):
    """How a search is diversified: every colour space with every k and every combination.

    Attributes:
        colour_spaces: keys of `COLOUR_SPACES`.
        ks: the scale of the first regions (Felzenszwalb and Huttenlocher 2004), larger regions for
            larger k. OpenCV's values: the paper's are 50 and 100, and up to 300 for quality.
        combinations: the similarities that are added up.
    """

    colour_spaces: tuple[str, ...]
    ks: tuple[int, ...]
    combinations: tuple[tuple[str, ...], ...]


ALL_AND_COLOURLESS = (SIMILARITIES, ("texture", "size", "fill"))
MODES = {
    "fast": Mode(("HSV", "Lab"), (150, 300, 450), ALL_AND_COLOURLESS),
    "quality": Mode(
        ("HSV", "Lab", "gray", "hue", "rgI"),
        (150, 300, 450, 600, 750),
        (*ALL_AND_COLOURLESS, ("fill",), ("size",)),
    ),
}


def _rg_intensity(rgb: np.ndarray) -> np.ndarray:
    """Return red, green and intensity, as OpenCV reads the paper's rgI."""
    return np.dstack([rgb[..., :2], cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)])


def _hue(rgb: np.ndarray) -> np.ndarray:
    """Return the hue, as in the paper; OpenCV's own quality mode takes blue for it."""
    return np.ascontiguousarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)[..., 0])


COLOUR_SPACES = {
    "HSV": lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV),
    "Lab": lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2Lab),
    "gray": lambda rgb: cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY),
    "hue": _hue,
    "rgI": _rg_intensity,
}


def selective_search(
    image: np.ndarray,
    mode: str = "fast",
    similarities: Sequence[str] | None = None,
    *,
    min_size: float = 0,
    max_side: int = 500,
) -> np.ndarray:
    """Propose boxes that may hold an object, of any class.

    The order is the paper's ("Combining Locations"): in each grouping, that is for each colour
    space and k, the i-th largest box gets i times a random number, and boxes are sorted by the
    smallest value that they got. So large boxes tend to come first, and the first n come from all
    groupings. Two things differ: i counts by area, as OpenCV does not tell when a region was made,
    and the random numbers are the same in every call. The same image gives the same boxes in the
    same order.

    Args:
        image: `(H, W, 3)` uint8 RGB, as `read_image` gives it, or gray `(H, W)` uint8.
        mode: "fast" has 2 colour spaces, 3 values of k and 2 combinations of similarities;
            "quality" has 5, 5 and 4.
        similarities: a choice of "colour", "texture", "size" and "fill" in place of the mode's
            combinations: s = a1 colour + a2 texture + a3 size + a4 fill, with a = 1 for those
            chosen and 0 for the others.
        min_size: boxes whose shorter side has fewer pixels are left out, but never the whole image.
        max_side: a larger image is shrunk, for the search alone, until its longer side has so many
            pixels. R-CNN searched images of 500 pixels' width.

    Returns:
        `(R, 4)` float32 `xyxy` in continuous pixels of the image, each box once. The box of the
        whole image is among them.

    Raises:
        ValueError: for another type or shape of image, a mode or similarity that is unknown, no or
            a repeated similarity, and sizes out of range.
    """
    rgb = _check_image(image)
    combinations = _check_search(mode, similarities, min_size, max_side)
    height, width = rgb.shape[:2]
    scale = min(1.0, max_side / max(height, width))
    if scale < 1:
        small = max(1, round(width * scale)), max(1, round(height * scale))
        rgb = cv2.resize(rgb, small, interpolation=cv2.INTER_AREA)
    searched_height, searched_width = rgb.shape[:2]
    boxes = _ranked(_groupings(rgb, MODES[mode], combinations)).astype(np.float64)
    boxes *= [width / searched_width, height / searched_height] * 2
    boxes = np.clip(boxes, 0, [width, height] * 2)
    sides = boxes[:, 2:] - boxes[:, :2]
    keep = (sides.min(axis=1) >= min_size) | (sides == [width, height]).all(axis=1)
    return boxes[keep].astype(np.float32)


def _check_image(image: np.ndarray) -> np.ndarray:
    """Return the image as `(H, W, 3)`, or raise ValueError."""
    if not isinstance(image, np.ndarray):
        raise ValueError(f"image must be a numpy array, not {type(image).__name__}")
    if image.dtype != np.uint8:
        raise ValueError(f"image must be uint8 in 0..255, not {image.dtype}")
    is_rgb = image.ndim == 3 and image.shape[2] == 3
    if not (is_rgb or image.ndim == 2) or 0 in image.shape:
        raise ValueError(f"image must be (H, W, 3) RGB or (H, W) gray, not of shape {image.shape}")
    return np.ascontiguousarray(image if is_rgb else image[..., None].repeat(3, axis=2))


def _check_search(
    mode: str, similarities: Sequence[str] | None, min_size: float, max_side: int
) -> tuple[tuple[str, ...], ...]:
    """Return the combinations of similarities, or raise ValueError."""
    if mode not in MODES:
        raise ValueError(f"mode must be one of {list(MODES)}, not {mode!r}")
    if not min_size >= 0:
        raise ValueError(f"min_size must be at least 0 pixels, not {min_size!r}")
    if not max_side >= 1:
        raise ValueError(f"max_side must be at least 1 pixel, not {max_side!r}")
    if similarities is None:
        return MODES[mode].combinations
    chosen = [similarities] if isinstance(similarities, str) else list(similarities)
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(SIMILARITIES):
        raise ValueError(
            f"similarities must be some of {list(SIMILARITIES)}, each once, not {similarities!r}"
        )
    return (tuple(name for name in SIMILARITIES if name in chosen),)


def _groupings(
    rgb: np.ndarray, mode: Mode, combinations: tuple[tuple[str, ...], ...]
) -> list[np.ndarray]:
    """Return the boxes of each colour space and k: whole pixels, each box once, largest first."""
    height, width = rgb.shape[:2]
    groupings = []
    for name in mode.colour_spaces:
        pixels = COLOUR_SPACES[name](rgb)
        for k in mode.ks:
            search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
            search.addImage(pixels)
            search.addGraphSegmentation(
                cv2.ximgproc.segmentation.createGraphSegmentation(SIGMA, k, SMALLEST_REGION)
            )
            for strategy in _strategies(combinations):
                search.addStrategy(strategy)
            # OpenCV sees no neighbours in an image one pixel wide or high, and never joins it all.
            found = np.vstack([np.asarray(search.process()), [0, 0, width, height]])
            found = np.unique(found, axis=0)
            x, y, w, h = found[np.argsort(-found[:, 2:].prod(axis=1), kind="stable")].T
            groupings.append(np.stack([x, y, x + w, y + h], axis=1))
    return groupings


def _strategies(combinations: tuple[tuple[str, ...], ...]) -> list:
    """Return OpenCV's strategies; the parts are shared, as they keep what they know of an image."""
    segmentation = cv2.ximgproc.segmentation
    parts = {  # in the order in which OpenCV adds up: sums of other orders differ in the last bit
        "colour": segmentation.createSelectiveSearchSegmentationStrategyColor(),
        "fill": segmentation.createSelectiveSearchSegmentationStrategyFill(),
        "texture": segmentation.createSelectiveSearchSegmentationStrategyTexture(),
        "size": segmentation.createSelectiveSearchSegmentationStrategySize(),
    }
    return [
        segmentation.createSelectiveSearchSegmentationStrategyMultiple(
            *(part for name, part in parts.items() if name in combination)
        )
        for combination in combinations
    ]


def _ranked(groupings: list[np.ndarray]) -> np.ndarray:
    """Return the boxes of all groupings, each once, by the smallest value that it got."""
    values = [
        np.random.default_rng(number).random(len(boxes)) * np.arange(1, len(boxes) + 1)
        for number, boxes in enumerate(groupings)
    ]
    boxes = np.concatenate(groupings)
    boxes = boxes[np.argsort(np.concatenate(values), kind="stable")]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)]
