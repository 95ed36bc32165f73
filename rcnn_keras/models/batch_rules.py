"""What the values of a batch must be, in numpy, whatever pipeline it comes from.

Each rule returns the first thing that breaks it, or None. B images a batch, H and W their padded
height and width, N rows of objects, R rows of proposals, K classes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rcnn_keras.data.object_rules import UNIT, unit_suspicions

ROUNDING = 0.01  # by which resizing in float32 may leave 0..255
TOLERANCE = 2.0  # pixels that a box may lie outside its image: resizing rounds
OVERSHOOT = 64.0  # how far bicubic and Lanczos resizing go beyond 0..255 at sharp edges
PADDING_LABEL = -1
LEAST_IOU = 0.1  # of a box with the extent of its own mask, whatever tool drew them
FORM = "boxes are (x1, y1, x2, y2) with x2 > x1 and y2 > y1"

# Other tools' order of a box's four numbers, and what it is as x1, y1, x2, y2.
READINGS: dict[str, Callable[..., tuple]] = {
    "(y1, x1, y2, x2)": lambda a, b, c, d: (b, a, d, c),
    "(x, y, width, height)": lambda a, b, c, d: (a, b, a + c, b + d),
    "(center x, center y, width, height)": lambda a, b, c, d: (
        *(a - c / 2, b - d / 2),
        *(a + c / 2, b + d / 2),
    ),
}


class Broken(NamedTuple):
    """A rule that does not hold.

    Attributes:
        image: place of the image in the batch, None for all of it.
        problem: what is wrong.
        noun: what it is wrong with, if there are several in an image, such as "box".
        row: its number among them.
    """

    image: int | None
    problem: str
    noun: str = ""
    row: int = 0

    def __str__(self) -> str:
        return f"{self.noun} {self.row} {self.problem}" if self.noun else self.problem


def image_values(images: np.ndarray, is_first: bool) -> Broken | None:
    """Images are finite and in 0..255; floats of the first batch are not all in 0..1.

    Args:
        images: `(B, h, w, 3)`, all pixels or some of them.
        is_first: a later batch may be of dark images alone.
    """
    if not images.size:
        return None
    axes = tuple(range(1, images.ndim))
    lows, highs = images.min(axes).astype(np.float64), images.max(axes).astype(np.float64)
    bad = ~np.isfinite(lows) | ~np.isfinite(highs)  # NaN is in the least and the greatest value
    if bad.any():
        return Broken(int(bad.argmax()), "the image has values that are not finite")
    low, high = float(lows.min()), float(highs.max())
    if low < -ROUNDING or high > 255 + ROUNDING:
        i = int((lows < 0).argmax() if low < -ROUNDING else highs.argmax())
        hint = "; scale them to 0..255"
        if high <= 255 + OVERSHOOT and low >= -OVERSHOOT and high > 64:
            hint = ": tf.clip_by_value(images, 0, 255) after a resizing that overshoots (bicubic)"
        elif low < -ROUNDING:
            hint = "; leave out a normalization, which is inside the model"
        return Broken(i, f"the images' values from {low:g} to {high:g} are not 0..255{hint}")
    if is_first and np.issubdtype(images.dtype, np.floating) and 0 < high <= 1:
        problem = f"the images' values from {low:g} to {high:g} look like 0..1"
        return Broken(None, f"{problem}; multiply by 255 for 0..255")
    return None


def sizes_fit(sizes: np.ndarray, shape: tuple[int, ...]) -> Broken | None:
    """Each image's own height and width `(B, 2)` are within those of the batch, `(B, H, W, 3)`."""
    bad = ((sizes < 1) | (sizes > np.array(shape[1:3]))).any(axis=1)
    if not bad.any():
        return None
    i = int(bad.argmax())
    stated = sizes[i].tolist()
    return Broken(
        i,
        f"image_sizes {stated} must be (height, width) within the {shape[1]} x {shape[2]} "
        f"(height x width) of the batch",
    )


def labels_fit(labels: np.ndarray, classes: int) -> Broken | None:
    """Labels `(B, N)` are in 0..K-1, or -1 in rows of padding."""
    bad = (labels < PADDING_LABEL) | (labels >= classes)
    if not bad.any():
        return None
    i, n = np.argwhere(bad)[0]
    hint = ""
    if labels.max() == classes and labels.min() >= -1:
        hint = ". They look counted from 1: subtract 1, so that padding is -1"
    elif not np.issubdtype(labels.dtype, np.signedinteger):
        hint = f". {labels.dtype} has no -1 for padding: cast it to int32 before"
    what = f"label {labels[i, n]} of object {n} is not in 0..{classes - 1} (-1 is padding)"
    return Broken(int(i), what + hint)


def boxes_fit(
    boxes: np.ndarray, real: np.ndarray, sizes: np.ndarray, is_first: bool, noun: str = "box"
) -> Broken | None:
    """Boxes are finite, in order, in their images and in pixels.

    Args:
        boxes: `(B, N, 4)`, of objects or proposals.
        real: `(B, N)` bool, which rows are no padding.
        sizes: `(B, 2)` height and width of the images.
        is_first: whether each image has to have a box of more than a pixel; in later batches
            augmentation may have left a corner of one.
        noun: what to call one.
    """
    boxes = np.asarray(boxes, np.float64)
    finite = np.isfinite(boxes).all(axis=-1)
    if (bad := real & ~finite).any():
        return _named(boxes, bad, noun, "is not finite")
    if (bad := real & _in_fractions(boxes, real, is_first)).any():
        rule = "and all others of its image are within 0..1, and pixels are needed: multiply x by "
        rule += f"the width and y by the height of the image; {FORM}"
        return _named(boxes, bad, noun, rule)
    valid, inside = _valid(np.moveaxis(boxes, -1, 0), sizes)
    for holds, rule in (
        (valid, f"has no area: {FORM}"),
        (inside, "is outside the image, which is {width} x {height} pixels (width x height)"),
    ):
        if (bad := real & ~holds).any():
            height, width = sizes[int(np.argwhere(bad)[0][0])]
            rule = rule.replace("{width}", str(width)).replace("{height}", str(height))
            rule += _other_reading(boxes, real, sizes)
            if noun == "box" and not boxes[bad].any():
                rule += ". A row of padding has the label -1"
            return _named(boxes, bad, noun, rule)
    return None


def _in_fractions(boxes: np.ndarray, real: np.ndarray, is_first: bool) -> np.ndarray:
    """Return which rows `(B, 1)` are of images whose boxes are all in fractions of its sides."""
    largest = np.where(real, np.abs(boxes).max(axis=-1), 0).max(axis=1, initial=0)
    if not is_first and np.count_nonzero(real) < 2:
        return np.zeros((len(boxes), 1), bool)
    fractions = (largest <= UNIT) & (largest > 0)
    return (fractions if is_first else np.full(len(boxes), fractions[real.any(1)].all()))[:, None]


def _valid(
    corners: Sequence[np.ndarray] | np.ndarray, sizes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return which boxes, x1, y1, x2, y2, have an area, and which are inside their images."""
    x1, y1, x2, y2 = corners
    height, width = sizes[:, None, 0], sizes[:, None, 1]
    inside = (np.minimum(x1, x2) >= -TOLERANCE) & (np.maximum(x1, x2) <= width + TOLERANCE)
    inside &= (np.minimum(y1, y2) >= -TOLERANCE) & (np.maximum(y1, y2) <= height + TOLERANCE)
    return (x2 > x1) & (y2 > y1), inside


def _other_reading(boxes: np.ndarray, real: np.ndarray, sizes: np.ndarray) -> str:
    """Return in words the orders of four numbers in which all boxes of the batch are right."""
    numbers = np.moveaxis(boxes, -1, 0)
    fits = [
        name
        for name, reading in READINGS.items()
        if all(holds[real].all() for holds in _valid(reading(*numbers), sizes))
    ]
    return f". Or are they {' or '.join(fits)}?" if fits else ""


def _named(boxes: np.ndarray, bad: np.ndarray, noun: str, rule: str) -> Broken:
    """Say of the first of the bad boxes, and of how many more, what is wrong."""
    i, n = np.argwhere(bad)[0]
    box = [round(float(v), 4) for v in boxes[i, n]]
    more = int(bad.sum()) - 1
    also = f"; the same is true of {more} more" if more else ""
    return Broken(int(i), f"{box} {rule}{also}", noun, int(n))


def crowd_fits(crowd: np.ndarray, real: np.ndarray) -> Broken | None:
    """Crowd `(B, N)` is 0 or 1 for each object."""
    bad = real & (crowd != 0) & (crowd != 1)
    if not bad.any():
        return None
    i, n = np.argwhere(bad)[0]
    return Broken(int(i), f"crowd {crowd[i, n]} of object {n} is neither 0 nor 1")


def mask_values(masks: np.ndarray, real: np.ndarray) -> Broken | None:
    """Masks `(B, N, h, w)` that are not packed have the values 0 and 1, in all pixels or some."""
    for i, n in np.argwhere(real):  # one at a time: they are the largest part of a batch
        mask = masks[i, n]
        others = mask[(mask != 0) & (mask != 1)]
        if others.size:
            largest = mask.max()
            hint = "masks > 127" if largest > 127 else "masks > 0" if largest > 1 else "masks > 0.5"
            what = f"the mask of object {n} has the value {others[0]:g}, and masks are of 0 and 1"
            return Broken(int(i), f"{what}: {hint}, say")
    return None


def masks_meet_boxes(
    masks: np.ndarray, boxes: np.ndarray, objects: np.ndarray, is_packed: bool
) -> Broken | None:
    """The mask of some object is where its box is: none is a sign of another order or size.

    Args:
        masks: `(B, N, H, W)`, or packed along the width.
        boxes: `(B, N, 4)` xyxy in pixels.
        objects: `(B, N)` bool, the rows that have a mask to learn.
        is_packed: eight pixels a byte.
    """
    places = np.argwhere(objects)
    shown = None
    for i, n in places:
        mask = np.unpackbits(masks[i, n], axis=-1) if is_packed else masks[i, n]
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        extent = [int(v) for v in (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)]
        if _iou(np.array(extent, np.float64), boxes[i, n].astype(np.float64)) >= LEAST_IOU:
            return None
        shown = shown or (int(i), int(n), extent)
    if not len(places):
        return None
    if shown is None:
        return Broken(None, f"the masks of all {len(places)} objects are empty")
    i, n, extent = shown
    box = [round(float(v), 1) for v in boxes[i, n]]
    return Broken(
        i,
        f"the mask of object {n} lies in {extent} (x1, y1, x2, y2), its box is {box}, and none of "
        f"the batch fits its box: 'masks' are (B, N, H, W) in the order of 'boxes'",
    )


def keypoints_fit(
    keypoints: np.ndarray,
    boxes: np.ndarray,
    objects: np.ndarray,
    sizes: np.ndarray,
    names: Sequence[str],
) -> Broken | None:
    """Keypoints are as many as the model's, finite, in their images, in pixels, with a visibility.

    Args:
        keypoints: `(B, N, P, 3)` x, y and visibility.
        boxes: `(B, N, 4)` xyxy in pixels.
        objects: `(B, N)` bool, the rows that are objects to learn.
        sizes: `(B, 2)` height and width of the images.
        names: the P that the model has.
    """
    if keypoints.shape[2] != len(names):
        return Broken(
            None,
            f"'keypoints' {keypoints.shape} have {keypoints.shape[2]} keypoints of an object, the "
            f"model {len(names)}: keypoint_names={list(names)}",
        )
    points, visibility = np.asarray(keypoints[..., :2], np.float64), keypoints[..., 2]
    real = np.broadcast_to(objects[..., None], visibility.shape)
    known = np.isin(visibility, (0, 1, 2))
    labelled = real & known & (visibility > 0)
    finite = np.isfinite(points).all(axis=-1)
    most = sizes[:, None, None, ::-1] + TOLERANCE
    with np.errstate(invalid="ignore"):
        inside = np.all((points >= -TOLERANCE) & (points <= most), axis=-1)
        swapped = np.all(points <= most[..., ::-1], axis=-1)
        # One object's may all lie in a corner of the image: all of a batch do not.
        fractions = points[labelled].max(initial=0) <= UNIT and np.count_nonzero(labelled) > 1
        fractions = fractions and boxes[objects].max(initial=0) > 2 * UNIT
    for bad, rule in (
        (real & ~known, "its visibility must be 0 (not labelled), 1 (hidden) or 2 (in sight)"),
        (labelled & ~finite, "is not finite"),
        (
            labelled & fractions,
            "and all others of the batch are within 0..1, and pixels are needed: multiply x by the "
            "width and y by the height of the image",
        ),
        (
            labelled & ~inside,
            "is outside the image, which is {width} x {height} pixels (width x height); outside it "
            "a keypoint has the visibility 0",
        ),
    ):
        if bad.any():
            i, n, p = np.argwhere(bad)[0]
            height, width = sizes[i]
            rule = rule.replace("{width}", str(width)).replace("{height}", str(height))
            if rule.startswith("is outside") and swapped[labelled].all():
                rule += ". Or are they (y, x, visibility)?"
            value = [round(float(v), 4) for v in keypoints[i, n, p]]
            problem = f"({names[p]}) of object {n}, {value} (x, y, visibility), {rule}"
            return Broken(int(i), problem, "keypoint", int(p))
    return None


def _iou(one: np.ndarray, other: np.ndarray) -> float:
    low, high = np.maximum(one[:2], other[:2]), np.minimum(one[2:], other[2:])
    shared = float(np.maximum(high - low, 0).prod())
    return shared / (float((one[2:] - one[:2]).prod() + (other[2:] - other[:2]).prod()) - shared)


def suspicions(arrays: Mapping[str, np.ndarray], sizes: np.ndarray) -> Iterator[str]:
    """Yield what a batch states that can be read, and is probably not what is meant."""
    labels, boxes = arrays["labels"], np.asarray(arrays["boxes"], np.float64)
    real = labels != PADDING_LABEL
    with np.errstate(invalid="ignore"):
        has_area = ((boxes[..., 2:] - boxes[..., :2]) > 0).all(axis=-1) & (boxes >= 0).all(axis=-1)
    if hidden := np.count_nonzero(~real & has_area):
        yield (
            f"{hidden} boxes have an area and the label -1, which marks padding: they are left "
            f"out. Labels are counted from 0"
        )
    crowd = arrays.get("crowd")
    if crowd is not None and real.any() and (crowd[real] == 1).all():
        yield (
            f"crowd is 1 for all {np.count_nonzero(real)} objects: training leaves such regions "
            f"out, so nothing is learned of them"
        )
    repeated = np.repeat(sizes[:, ::-1], real.sum(axis=1), axis=0)
    for value, message in unit_suspicions(boxes[real], repeated):
        yield f"boxes: {value}: {message}"
