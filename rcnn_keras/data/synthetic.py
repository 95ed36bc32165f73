"""Drawn scenes with exact ground truth: a dataset to learn and test with that needs no download.

A scene is a cluttered background and up to `max_shapes` textured, rotated shapes drawn back to
front, so that later ones hide parts of earlier ones. The ground truth is what is left to see of
each shape.
"""

import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from pycocotools import mask as run_length

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.keypoints import HIDDEN, VISIBLE, Skeleton, points_inside

CLASSES = ("circle", "triangle", "square", "star")

# Things of a kind have a surface and a range of colours in common, and small networks read those
# before they read outlines.
TEXTURES = {"circle": "dots", "triangle": "stripes", "square": "checker", "star": "noise"}

HUES = {"circle": 0, "triangle": 90, "square": 180, "star": 270}  # degrees, give or take 40

MIN_VISIBLE = 0.5  # of a shape's area; a place that would leave less of any shape is not taken

EMPTY_SCENES = 0.04

# The corner that reaches furthest each way, clockwise: what a picture shows of a turned shape. One
# corner of a triangle is furthest two ways.
CORNERS = Skeleton(("top", "right", "bottom", "left"), ((1, 3),), ((0, 1), (1, 2), (2, 3), (3, 0)))

OVERLAP = 0.4  # chance that a shape is put next to an earlier one instead of anywhere


def draw_shapes(
    count: int,
    *,
    size: tuple[int, int] = (160, 160),
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    max_shapes: int = 6,
    keypoints: bool = False,
) -> DetectionDataset:
    """Draw `count` scenes of circles, triangles, squares and stars and return them as a dataset.

    Scene `i` depends on `(seed, i, size, max_shapes)` alone: `draw_shapes(10)` is the beginning of
    `draw_shapes(20)`, and a second call writes the same bytes. Shapes are 0.1 to 0.44 of the
    image's shorter side across (16 to 70 pixels at 160, never under 12), at least half of each is
    visible, and about one scene in 25 is empty.

    Args:
        count: number of images, at least 1.
        size: height and width of every image in pixels, each at least 32.
        seed: not negative; another seed gives other scenes, for a validation set for instance.
        out: folder for `shapes_000000.png`, ... and `annotations.json` (COCO), made where it does
            not exist. By default a new folder in the system's folder for temporary files, which
            stays until somebody deletes it.
        max_shapes: most shapes in one image, at least 1.
        keypoints: mark of each triangle, square and star the corner that is furthest up, right,
            down and left, in the same pictures: in sight, hidden by a later shape, or not labelled
            where it is outside the image. A circle has no corner, so none is labelled. As the names
            are directions in the image and not parts of the shape, train with flips from left to
            right at the most: upside down or turned, another corner is the top one.

    Returns:
        A dataset whose boxes are tight around the visible pixels (`xyxy`, whole numbers) and whose
        segmentations are compressed COCO run-length codes of them, in drawing order.

    Raises:
        ValueError: an argument is out of range.
        FileExistsError: `out` is a file, or holds files that `draw_shapes` did not write.
    """
    _check_arguments(count, size, seed, max_shapes)
    folder = _own_folder(out)
    records = [_write_scene(folder, index, size, seed, max_shapes) for index in range(count)]
    if not keypoints:
        records = [replace(record, keypoints=None) for record in records]
    skeleton = CORNERS if keypoints else None
    dataset = DetectionDataset(records, CLASSES, name="shapes", skeleton=skeleton)
    dataset.save_coco(folder / "annotations.json")
    return dataset


def _check_arguments(count: int, size: tuple[int, int], seed: int, max_shapes: int) -> None:
    for name, value, least in (
        ("count", count, 1),
        ("seed", seed, 0),
        ("max_shapes", max_shapes, 1),
    ):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
            raise ValueError(
                f"draw_shapes: {name} must be an integer of at least {least}, not {value!r}"
            )
    if np.shape(size) != (2,) or not all(isinstance(n, int | np.integer) and n >= 32 for n in size):
        raise ValueError(
            f"draw_shapes: size must be (height, width), each at least 32, not {size!r}"
        )


def _own_folder(out: str | os.PathLike[str] | None) -> Path:
    """Return the folder to write to; an existing one must be empty or an earlier call's."""
    if out is None:
        return Path(tempfile.mkdtemp(prefix="rcnn_keras_shapes_"))
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"draw_shapes: out is a file, not a folder: {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in folder.iterdir()}
    own = {name for name in names if re.fullmatch(r"shapes_\d{6,}\.png", name)}
    foreign = names - own - ({"annotations.json"} if own else set())
    if foreign:
        raise FileExistsError(
            f"draw_shapes: {folder} holds files that draw_shapes did not write ({min(foreign)}); "
            "give a new or empty folder"
        )
    return folder


def _write_scene(
    folder: Path, index: int, size: tuple[int, int], seed: int, max_shapes: int
) -> Record:
    height, width = int(size[0]), int(size[1])
    image, masks, labels, keypoints = _draw_scene(
        np.random.default_rng([seed, index]), height, width, max_shapes
    )
    path = folder / f"shapes_{index:06d}.png"
    encoded = cv2.imencode(".png", image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
    path.write_bytes(encoded.tobytes())  # cv2.imwrite only returns False where the disk is full
    codes = run_length.encode(np.asfortranarray(masks.transpose(1, 2, 0)))
    boxes = run_length.toBbox(codes).reshape(-1, 4).astype(np.float32)
    boxes[:, 2:] += boxes[:, :2]
    return Record(
        image_id=index + 1,
        path=str(path),
        height=height,
        width=width,
        boxes=boxes,
        labels=labels,
        crowd=np.zeros(len(labels), bool),
        segmentations=tuple(
            {"size": [height, width], "counts": code["counts"].decode("ascii")} for code in codes
        )
        or None,
        areas=run_length.area(codes),
        keypoints=keypoints,
    )


def _draw_scene(
    rng: np.random.Generator, height: int, width: int, max_shapes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a scene.

    Returns:
        The image `(H, W, 3)`, the visible masks `(n, H, W)` uint8, the labels `(n,)` and the
        keypoints `(n, P, 3)`.
    """
    image = _background(rng, height, width)
    owner = np.zeros((height, width), np.int32)  # which shape is seen at a pixel; 0 is background
    outlines: list[np.ndarray] = []
    labels: list[int] = []
    wanted = 0 if rng.random() < EMPTY_SCENES else int(rng.integers(1, max_shapes + 1))
    for _ in range(wanted):
        label = int(rng.integers(len(CLASSES)))
        placed = _place(rng, CLASSES[label], owner, outlines)
        if placed is None:
            continue
        outline, mask = placed
        _paint(rng, image, mask, CLASSES[label])
        outlines.append(outline)
        labels.append(label)
        owner[mask] = len(outlines)
    masks = owner == np.arange(1, len(outlines) + 1)[:, None, None]
    corners = [_corners(CLASSES[k], outline) for k, outline in zip(labels, outlines, strict=True)]
    points = np.array([_seen(c, owner, i) for i, c in enumerate(corners, start=1)])
    points = points.reshape(-1, len(CORNERS), 3)
    return image, masks.astype(np.uint8), np.array(labels, np.int32), points


def _corners(shape: str, outline: np.ndarray) -> np.ndarray:
    """Return the corners `(4, 2)` of an outline that are furthest up, right, down and left."""
    if shape == "circle":
        return np.zeros((0, 2))
    x, y = outline.T
    # Outlines count from the centre of the first pixel.
    return outline[[y.argmin(), x.argmax(), y.argmax(), x.argmin()]] + 0.5


def _seen(corners: np.ndarray, owner: np.ndarray, number: int) -> np.ndarray:
    """Return corners as keypoints `(4, 3)`; a later shape may hide one."""
    keypoints = np.zeros((len(CORNERS), 3))
    for i in np.flatnonzero(points_inside(corners, *owner.shape)):
        column, row = np.minimum(corners[i].astype(int), np.array(owner.shape[::-1]) - 1)
        hidden = owner[row, column] > number
        keypoints[i] = [*corners[i], HIDDEN if hidden else VISIBLE]
    return keypoints


def _background(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a muted gradient under soft blobs, strokes and grain: clutter that is not a shape."""
    level = rng.uniform(50, 205)
    coarse = (
        level + rng.uniform(-18, 18, 3) + rng.normal(0, 22, (5, 5, 1)) + rng.normal(0, 7, (5, 5, 3))
    )
    image = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    short = min(height, width)
    for _ in range(rng.integers(3, 12)):
        start = rng.uniform(-0.1, 1.1, 2) * (width, height)
        # A random walk with a steady heading bends like a scratch or a twig and never closes.
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.35, 6))
        steps = np.stack([np.cos(heading), np.sin(heading)], -1) * short * rng.uniform(0.04, 0.16)
        line = np.vstack([start, start + np.cumsum(steps, 0)]).round().astype(np.int32)
        tone = level + rng.uniform(-80, 80) + rng.uniform(-20, 20, 3)
        thickness = int(rng.integers(1, 2 + short // 60))
        cv2.polylines(image, [line], False, tone.tolist(), thickness, cv2.LINE_AA)
    for _ in range(rng.integers(2, 7)):
        _add_blob(rng, image)
    grain = rng.integers(-128, 128, (height, width, 1), np.int8) * np.float32(
        rng.uniform(0.02, 0.14)
    )
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def _add_blob(rng: np.random.Generator, image: np.ndarray) -> None:
    height, width = image.shape[:2]
    spread = rng.uniform(0.03, 0.12, 2) * min(height, width)
    across = np.exp(-0.5 * ((np.arange(width) - rng.uniform(0, width)) / spread[0]) ** 2)
    down = np.exp(-0.5 * ((np.arange(height) - rng.uniform(0, height)) / spread[1]) ** 2)
    tone = rng.choice([-1, 1]) * rng.uniform(20, 55) + rng.uniform(-15, 15, 3)
    image += (down[:, None, None] * across[:, None] * tone).astype(np.float32)


def _place(
    rng: np.random.Generator, shape: str, owner: np.ndarray, outlines: list[np.ndarray]
) -> tuple[np.ndarray, np.ndarray] | None:
    """Return an outline `(P, 2)` and mask that leave every shape visible; None after 12 tries."""
    height, width = owner.shape
    areas = np.array([cv2.contourArea(outline) for outline in outlines])
    visible = np.bincount(owner.ravel(), minlength=len(outlines) + 1)[1:]
    short = min(height, width)
    smallest = max(12.0, 0.15 * short)
    for _ in range(12):
        radius = rng.uniform(smallest, max(smallest, 0.44 * short)) / 2
        # The image's border may cut off a part of a shape, but never most of it.
        first, last = np.full(2, 0.7 * radius), np.array([width, height]) - 0.7 * radius
        if outlines and rng.random() < OVERLAP:
            neighbour = outlines[rng.integers(len(outlines))]
            reach = radius + np.ptp(neighbour, axis=0).max() / 2
            angle = rng.uniform(0, 2 * np.pi)
            centre = neighbour.mean(0) + rng.uniform(0.5, 0.9) * reach * np.array(
                [np.cos(angle), np.sin(angle)]
            )
        else:
            centre = rng.uniform(first, last)
        centre = np.clip(centre, first, last)
        outline = (centre + radius * _unit_outline(rng, shape)).astype(np.float32)
        mask = np.zeros((height, width), np.uint8)
        cv2.fillPoly(mask, [np.round(outline * 16).astype(np.int32)], 1, cv2.LINE_8, shift=4)
        inside = mask.view(bool)
        hidden = np.bincount(owner[inside], minlength=len(outlines) + 1)[1:]
        left = np.append(visible - hidden, inside.sum())
        if np.all(left >= MIN_VISIBLE * np.append(areas, cv2.contourArea(outline))):
            return outline, inside
    return None


def _unit_outline(rng: np.random.Generator, shape: str) -> np.ndarray:
    """Return corners `(P, 2)` of a shape of radius 1 about 0, randomly turned and squeezed."""
    corners = {"circle": 48, "triangle": 3, "square": 4, "star": 10}[shape]
    angles = np.arange(corners) * 2 * np.pi / corners
    radii = np.where(np.arange(corners) % 2, 0.45, 1.0) if shape == "star" else np.ones(corners)
    points = radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], -1)
    points[:, 0] *= rng.uniform(0.85, 1.0)
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return points @ rotation


def _paint(rng: np.random.Generator, image: np.ndarray, mask: np.ndarray, shape: str) -> None:
    """Fill the mask with a two-tone texture that stands out from what lies under it."""
    under = image[mask].mean(0)
    while True:
        hue = (HUES[shape] + rng.uniform(-40, 40)) % 360
        hsv = np.array([[[hue, rng.uniform(0.5, 1), rng.uniform(0.45, 1)]]], np.float32)
        colour = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255
        if np.linalg.norm(colour - under) > 90:
            break
    second = colour * rng.uniform(0.3, 0.6)
    rows, columns = np.nonzero(mask)
    pattern = _texture(rng, TEXTURES[shape], rows, columns)[:, None]
    grain = rng.integers(-9, 10, (len(rows), 1))
    paint = np.where(pattern, second, colour) + grain
    image[rows, columns] = np.clip(paint, 0, 255).astype(np.uint8)


def _texture(
    rng: np.random.Generator, name: str, rows: np.ndarray, columns: np.ndarray
) -> np.ndarray:
    """Return for each pixel whether it takes the second tone."""
    turn = rng.uniform(0, np.pi)
    period = rng.uniform(5, 11)
    along = (columns * np.cos(turn) + rows * np.sin(turn)) / period
    across = (rows * np.cos(turn) - columns * np.sin(turn)) / period
    match name:
        case "stripes":
            return along % 1 < 0.5
        case "checker":
            return (along % 1 < 0.5) ^ (across % 1 < 0.5)
        case "dots":
            return np.hypot(along % 1 - 0.5, across % 1 - 0.5) < 0.32
        case _:
            return rng.random(len(rows)) < 0.4
