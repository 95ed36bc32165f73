"""Selective search: Uijlings et al., "Selective Search for Object Recognition" (IJCV 2013).

An image is segmented into small regions, and the two most similar neighbours are merged until one
region is left; the box around every region on the way is a proposal. Several colour spaces, finer
and coarser initial regions and several similarities give a diverse set of boxes. Segmentation and
grouping are OpenCV's (`cv2.ximgproc.segmentation`). The four similarities ("Complementary
Similarity Measures" of the paper) are written out here to read and to plot: the search itself
computes them inside OpenCV, whose texture comes from Scharr's filter.

    R      proposals of an image
    H, W   height and width of the image
    C      channels, 3 in most colour spaces
    mask   `(H, W)` bool, the region's pixels
    size   of a region, a box or an image: its area in pixels
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

COLOUR_BINS = 25

TEXTURE_BINS = 10

DIRECTIONS = 8

GRADIENT_SIGMA = 1.0

FLAT = 1e-3  # smaller slopes, in values per pixel, are rounding errors

RADIUS = 4  # of the filter, beyond which the Gaussian is below 0.1 % of its height


def colour_histogram(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the histogram of a region's pixels over 25 equal bins of 0..256, per channel.

    Args:
        image: `(H, W, C)` uint8 in any colour space.
        mask: the region, at least one pixel.

    Returns:
        `(25 * C,)` float64, channel after channel, of sum 1.

    Raises:
        ValueError: if image and mask differ in size, or the mask is empty.
    """
    _check_region(image, mask)
    bins = image[mask].astype(np.int64) * COLOUR_BINS // 256
    return _histogram(bins, COLOUR_BINS)


def gaussian_derivatives(image: np.ndarray) -> np.ndarray:
    """Return the derivatives of an image in eight directions, smoothed with sigma 1.

    Direction i points at 45 i degrees, clockwise from the right. Beyond its border the image is
    mirrored.

    Args:
        image: `(H, W, C)` uint8.

    Returns:
        `(8, H, W, C)` float32, in values of the image per pixel.
    """
    x = np.arange(-RADIUS, RADIUS + 1)
    smooth = np.exp(-(x**2) / (2 * GRADIENT_SIGMA**2))
    smooth /= smooth.sum()
    # Correlated with a ramp of slope 1 it gives 1, as a derivative should.
    slope = x * smooth / (x**2 * smooth).sum()
    pixels = image.astype(np.float32)
    along_x = cv2.sepFilter2D(pixels, -1, slope, smooth, borderType=cv2.BORDER_REFLECT)
    along_y = cv2.sepFilter2D(pixels, -1, smooth, slope, borderType=cv2.BORDER_REFLECT)
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    derivatives = [np.cos(a) * along_x + np.sin(a) * along_y for a in angles]
    return np.stack(derivatives).astype(np.float32).reshape(DIRECTIONS, *image.shape)


def texture_histogram(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the histogram of a region's gradients in eight directions, per channel.

    The positive part of each Gaussian derivative is counted in 10 equal bins from 0 to the largest
    derivative of the channel anywhere in the image; a negative derivative is positive in the
    opposite direction.

    Args:
        image: `(H, W, C)` uint8 in any colour space.
        mask: the region, at least one pixel.

    Returns:
        `(10 * 8 * C,)` float64, by channel and then by direction, of sum 1.

    Raises:
        ValueError: if image and mask differ in size, or the mask is empty.
    """
    _check_region(image, mask)
    derivatives = gaussian_derivatives(image)
    derivatives[derivatives < FLAT] = 0
    steepest = derivatives.max(axis=(0, 1, 2))
    share = derivatives[:, mask] / np.where(steepest > 0, steepest, 1)  # (8, size, C)
    bins = np.minimum((share * TEXTURE_BINS).astype(np.int64), TEXTURE_BINS - 1)
    size, channels = bins.shape[1:]
    return _histogram(bins.transpose(1, 2, 0).reshape(size, channels * DIRECTIONS), TEXTURE_BINS)


def histogram_intersection(a: np.ndarray, b: np.ndarray) -> float:
    """Return the similarity of two histograms of sum 1: the sum of the bin-wise minima, 0..1."""
    return float(np.minimum(a, b).sum())


def size_similarity(size_a: float, size_b: float, image_size: float) -> float:
    """Return 1 minus the share of the image that two regions fill: small ones merge first."""
    return 1 - (size_a + size_b) / image_size


def fill_similarity(
    size_a: float, size_b: float, box_a: np.ndarray, box_b: np.ndarray, image_size: float
) -> float:
    """Return 1 minus the share of the image that is in the common box but in neither region.

    Args:
        size_a: of the first region.
        size_b: of the second region, disjoint from the first.
        box_a: `(4,)` `xyxy`, the box around the first region.
        box_b: `(4,)` `xyxy`, the box around the second region.
        image_size: of the image.
    """
    low = np.minimum(box_a[:2], box_b[:2])
    high = np.maximum(box_a[2:], box_b[2:])
    return 1 - (float(np.prod(high - low)) - size_a - size_b) / image_size


def merge_histograms(a: np.ndarray, size_a: float, b: np.ndarray, size_b: float) -> np.ndarray:
    """Return the histogram of two merged regions: the mean, weighted by their sizes."""
    return (size_a * a + size_b * b) / (size_a + size_b)


def _histogram(bins: np.ndarray, count: int) -> np.ndarray:
    """Return the normalised histograms `(n * count,)` of the `(size, n)` bins, by column."""
    columns = np.arange(bins.shape[1]) * count
    counts = np.bincount((bins + columns).ravel(), minlength=bins.shape[1] * count)
    return counts / counts.sum()


def _check_region(image: np.ndarray, mask: np.ndarray) -> None:
    if image.ndim != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, C) uint8, not {image.dtype} {image.shape}")
    if mask.shape != image.shape[:2] or mask.dtype != bool:
        raise ValueError(f"mask must be bool {image.shape[:2]}, not {mask.dtype} {mask.shape}")
    if not mask.any():
        raise ValueError("mask must have at least one pixel")


SIMILARITIES = ("colour", "texture", "size", "fill")

SIGMA = 0.8  # of the Gaussian that smooths an image before it is segmented

SMALLEST_REGION = 100  # pixels


class Mode(NamedTuple):
    """Variants of a search: every colour space with every k and every combination.

    Attributes:
        colour_spaces: keys of `COLOUR_SPACES`.
        ks: the scale of the first regions (Felzenszwalb and Huttenlocher 2004), larger regions for
            larger k. OpenCV's values: the paper's are 50 and 100, and up to 300 for quality.
        combinations: the similarities that are summed.
    """

    colour_spaces: tuple[str, ...]
    ks: tuple[int, ...]
    combinations: tuple[tuple[str, ...], ...]


ALL_AND_WITHOUT_COLOUR = (SIMILARITIES, ("texture", "size", "fill"))

MODES = {
    "fast": Mode(("HSV", "Lab"), (150, 300, 450), ALL_AND_WITHOUT_COLOUR),
    "quality": Mode(
        ("HSV", "Lab", "gray", "hue", "rgI"),
        (150, 300, 450, 600, 750),
        (*ALL_AND_WITHOUT_COLOUR, ("fill",), ("size",)),
    ),
}


def _rg_intensity(rgb: np.ndarray) -> np.ndarray:
    """Return red, green and intensity, OpenCV's version of the paper's rgI."""
    return np.dstack([rgb[..., :2], cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)])


def _hue(rgb: np.ndarray) -> np.ndarray:
    """Return the hue, as in the paper; OpenCV's own quality mode uses blue instead, by mistake."""
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
    space and k, the i-th largest box is given i times a random number, and boxes are sorted by
    their smallest value. Large boxes tend to come first, and the first n come from all groupings.
    Two things differ: i is the rank by area, as OpenCV does not report when a region was merged,
    and the random numbers are the same in every call. The same image gives the same boxes in the
    same order.

    Args:
        image: `(H, W, 3)` uint8 RGB, as `read_image` returns it, or gray `(H, W)` uint8.
        mode: "fast" has 2 colour spaces, 3 values of k and 2 combinations of similarities;
            "quality" has 5, 5 and 4.
        similarities: a choice of "colour", "texture", "size" and "fill" in place of the mode's
            combinations: the similarity is the sum of those chosen.
        min_size: boxes whose shorter side has fewer pixels are left out, except the whole image.
        max_side: for the search only, a larger image is shrunk until its longer side has this many
            pixels. R-CNN searched images of width 500.

    Returns:
        `(R, 4)` float32 `xyxy` in continuous pixels of the image, each box once. The box of the
        whole image is included.

    Raises:
        ValueError: for another type or shape of image, an unknown mode or similarity, no or a
            repeated similarity, and sizes out of range.
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
            # In an image one pixel wide or high OpenCV finds no neighbours and never merges it all.
            boxes = np.vstack([np.asarray(search.process()), [0, 0, width, height]])
            boxes = np.unique(boxes, axis=0)
            x, y, w, h = boxes[np.argsort(-boxes[:, 2:].prod(axis=1), kind="stable")].T
            groupings.append(np.stack([x, y, x + w, y + h], axis=1))
    return groupings


def _strategies(combinations: tuple[tuple[str, ...], ...]) -> list:
    """Return OpenCV's strategies; they share their similarities, which cache what they compute."""
    segmentation = cv2.ximgproc.segmentation
    strategies = {  # in OpenCV's order: sums in another order differ in the last bit
        "colour": segmentation.createSelectiveSearchSegmentationStrategyColor(),
        "fill": segmentation.createSelectiveSearchSegmentationStrategyFill(),
        "texture": segmentation.createSelectiveSearchSegmentationStrategyTexture(),
        "size": segmentation.createSelectiveSearchSegmentationStrategySize(),
    }
    return [
        segmentation.createSelectiveSearchSegmentationStrategyMultiple(
            *(strategy for name, strategy in strategies.items() if name in combination)
        )
        for combination in combinations
    ]


def _ranked(groupings: list[np.ndarray]) -> np.ndarray:
    """Return the boxes of all groupings, each once, sorted by their smallest value."""
    values = [
        np.random.default_rng(number).random(len(boxes)) * np.arange(1, len(boxes) + 1)
        for number, boxes in enumerate(groupings)
    ]
    boxes = np.concatenate(groupings)
    boxes = boxes[np.argsort(np.concatenate(values), kind="stable")]
    _, first = np.unique(boxes, axis=0, return_index=True)
    return boxes[np.sort(first)]
