"""Objects that can be read: the user's rules for them, and what is probably not meant.

The rules say what becomes of crowd regions and of objects without a mask. Suspicious are such as
fractions where pixels are expected.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np

from rcnn_keras.data.dataset import Record
from rcnn_keras.data.entries import Entry, Object
from rcnn_keras.data.keypoints import NOT_LABELLED
from rcnn_keras.data.masks import WITHOUT_MASK_RULE, Polygons
from rcnn_keras.data.problems import ProblemLog, as_json
from rcnn_keras.data.tfrecord_images import TFRecordSegmentations

Crowd = Literal["ignore", "objects"]
WithoutMask = Literal["keep", "drop", "box"]


def check_rules(crowd: str, without_mask: str) -> None:
    """Raise ValueError for another word than the types above have."""
    for name, value, kind in (
        ("crowd", crowd, Crowd),
        ("without_mask", without_mask, WithoutMask),
    ):
        if value not in get_args(kind):
            known = " or ".join(map(repr, get_args(kind)))
            raise ValueError(f"{name} must be {known}, not {value!r}")


def apply_rules(record: Record, log: ProblemLog, crowd: Crowd, without_mask: WithoutMask) -> Record:
    """Return a record whose objects follow the rules of `load_coco`; changes go to the log.

    Raises:
        ValueError: boxes are to be filled, and the masks are in a TFRecord file.
    """
    if crowd == "objects" and record.crowd.any():
        _note(record, record.crowd, log, "crowd region read as an ordinary object")
        record = replace(record, crowd=np.zeros(len(record), bool), difficult=None)
    if without_mask == "keep":
        return record
    missing = ~has_mask(record) & ~record.crowd
    if not missing.any():
        return record
    if without_mask == "drop":
        _note(record, missing, log, "object without a mask left out")
        return record.select(~missing)
    if record.tfrecord is not None:
        raise ValueError(
            f'{record.path}: without_mask="box" cannot change the masks in a TFRecord file; pack '
            "the original data with it: rcnn data pack --without-mask box"
        )
    _note(record, missing, log, "box filled for an object without a mask")
    stated = record.segmentations or (None,) * len(record)
    filled = [_filled(record.boxes[i]) if missing[i] else s for i, s in enumerate(stated)]
    return replace(record, segmentations=tuple(filled))


def has_mask(record: Record) -> np.ndarray:
    """Return which objects have a segmentation, `(n,)` bool."""
    if record.segmentations is None:
        return np.zeros(len(record), bool)
    if isinstance(record.segmentations, TFRecordSegmentations):
        return record.segmentations.present
    return np.array([s is not None for s in record.segmentations], bool)


def _note(record: Record, changed: np.ndarray, log: ProblemLog, message: str) -> None:
    """Note what was done with the objects that `changed` marks."""
    for i in np.flatnonzero(changed):
        log.repaired(record.path, f"object {i}", "", "", message)


def _filled(box: np.ndarray) -> list[list[float]]:
    """Return a box as the polygon of its corners."""
    x1, y1, x2, y2 = box.tolist()
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


UNIT = 1.01  # fractions are rounded, some to a little more than one
SMALL, SMALL_OBJECTS = 3.0, 3  # pixels: three objects or more are not all less wide and high
CORNER_OBJECTS = 20  # so many are not all in one quarter of their images by chance
SHOWN = 10  # classes or objects that one message names
CROWD_RULE = (
    'crowd="objects" reads them as ordinary objects (crowd in the section data of a '
    "configuration, --crowd on the command line)"
)


def find_fractions(entries: Sequence[Entry], log: ProblemLog) -> None:
    """Note boxes in fractions of their image's sides: fatal if all of a dataset are."""
    found = [(e, o) for e, o in _objects(entries) if _lies_in_unit_square(o.box)]
    if not found:
        return
    entry, item = found[0]
    if len(found) == sum(1 for _ in _objects(entries)):
        message = (
            f"all boxes ({len(found)}) are within 0..1: fractions of the image's sides, "
            "where pixels are needed"
        )
        log.fatal(entry.file, _name(entry, item), item.field, item.value, message)
        return
    for entry, item in found:
        message = "within 0..1: a fraction of the image's sides? Pixels are needed"
        log.suspicious(entry.file, _name(entry, item), item.field, item.value, message)


def in_fractions(item: Object) -> bool:
    """Return whether the polygons of an object are in fractions and its box is not."""
    if max(item.box) <= 2:
        return False
    if isinstance(item.segmentation, Polygons):
        return item.segmentation.reach() <= UNIT
    return isinstance(item.segmentation, list) and _reach(item.segmentation) <= UNIT


def _reach(values: Any) -> float:
    """Return the largest absolute number in nested lists, infinity if something is not a number."""
    if isinstance(values, list):
        return max(map(_reach, values), default=np.inf)
    return abs(values) if type(values) in (int, float) else np.inf


def _objects(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Object]]:
    """Yield the objects whose box is not empty."""
    for entry in entries:
        for item in entry.objects:
            x1, y1, x2, y2 = item.box
            if x2 > x1 and y2 > y1:
                yield entry, item


def _lies_in_unit_square(box: tuple[float, float, float, float]) -> bool:
    """Return whether a box is one of fractions; the corner may be the centre, as YOLO has it."""
    x1, y1, x2, y2 = box
    return min(x1, y1) >= -0.1 and max(x1, y1, x2 - x1, y2 - y1) <= UNIT


def _name(entry: Entry, item: Object) -> str:
    return f"{entry.id}, {item.id}" if entry.id else item.id


def find_suspicious(
    records: Sequence[Record], classes: Sequence[str], file: str, log: ProblemLog
) -> None:
    """Note what is suspicious about all objects of a dataset together.

    Args:
        records: of the dataset.
        classes: its names.
        file: the annotation file that messages name.
        log: gets the problems.
    """
    _find_similar_names(classes, file, log)
    if not any(len(record) for record in records):
        return
    _find_crowds(records, classes, file, log)
    _find_wrong_units(records, file, log)
    _find_missing_masks(records, file, log)
    _find_misplaced_keypoints(records, file, log)


def _find_similar_names(classes: Sequence[str], file: str, log: ProblemLog) -> None:
    """Note class names that differ in letter case alone; single letters are classes of letters."""
    same: dict[str, list[str]] = {}
    for name in classes:
        if len(name) > 1:
            same.setdefault(name.casefold(), []).append(as_json(name))
    for names in same.values():
        if len(names) > 1:
            message = "are classes apart, and differ in letter case alone: are they one?"
            log.suspicious(file, "", "classes", ", ".join(names), message)


def _find_crowds(
    records: Sequence[Record], classes: Sequence[str], file: str, log: ProblemLog
) -> None:
    """Note that most objects, of all or of one class, are crowd regions or difficult."""
    labels = np.concatenate([record.labels for record in records])
    crowd = np.concatenate([record.crowd for record in records])
    difficult = sum(int(r.difficult.sum()) for r in records if r.difficult is not None)
    count, n = int(crowd.sum()), len(crowd)
    field = "difficult" if difficult == count else "iscrowd"
    nothing = "training leaves such objects out and scores ignore them, so "
    if 2 * count > n:
        learned = "nothing is learned" if count == n else f"only {n - count} are learned from"
        value = f"1 in {'all' if count == n else f'{count} of'} {n} objects"
        log.suspicious(file, "", field, value, f"{nothing}{learned}; {CROWD_RULE}")
    if count == n:
        return
    of_class = np.bincount(labels, minlength=len(classes))
    crowd_of_class = np.bincount(labels[crowd], minlength=len(classes))
    # One region alone may well be the crowd that it is marked as.
    most = (2 * crowd_of_class > of_class) & (crowd_of_class >= 2)
    found: list[int] = np.flatnonzero(most).tolist()
    if found:
        named = [f"{crowd_of_class[i]} of {of_class[i]} {as_json(classes[i])}" for i in found]
        learned = f"little or nothing is learned of {_listing(named, len(named))}"
        value = f"1 in most objects of {len(found)} of {len(classes)} classes"
        log.suspicious(file, "", field, value, f"{nothing}{learned}; {CROWD_RULE}")


def _find_wrong_units(records: Sequence[Record], file: str, log: ProblemLog) -> None:
    """Note boxes that are all tiny or in one corner, and areas that are fractions."""
    boxes = np.concatenate([record.boxes for record in records])
    repeats = [len(record) for record in records]
    sizes = np.repeat([(r.width, r.height) for r in records], repeats, axis=0)
    for value, message in unit_suspicions(boxes, sizes):
        log.suspicious(file, "", "boxes", value, message)
    sides = boxes[:, 2:] - boxes[:, :2]
    stated = [record for record in records if record.areas is not None and len(record)]
    if stated and np.median(sides.prod(axis=1)) >= 4:
        areas = np.concatenate([record.areas for record in stated])  # type: ignore[misc]
        if areas.max() < 1:
            value = f"at most {areas.max():.3g} in {len(areas)} objects"
            message = "is less than a pixel: fractions? Scores sort objects by it into sizes"
            log.suspicious(file, "", "area", value, message)


def unit_suspicions(boxes: np.ndarray, sizes: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield what is suspicious about the unit of boxes that are not in fractions: value, message.

    Args:
        boxes: `(n, 4)` xyxy in pixels, of all images.
        sizes: `(n, 2)` width and height of the image of each.
    """
    n = len(boxes)
    largest = (boxes[:, 2:] - boxes[:, :2]).max(axis=0, initial=0)
    if n >= SMALL_OBJECTS and largest.max() <= SMALL:
        value = f"at most {largest[0]:.3g} x {largest[1]:.3g} pixels in {n} objects"
        yield value, "are boxes in another unit than pixels?"
    if n >= CORNER_OBJECTS and np.all(boxes[:, 2:] <= sizes / 2):
        right, bottom = boxes[:, 2:].max(axis=0)
        value = f"none of {n} reaches beyond x = {right:.4g}, y = {bottom:.4g}"
        yield (
            value,
            "all lie in the upper left quarter of their images: are boxes in another unit than "
            "pixels, or of smaller copies of the images?",
        )


def _find_missing_masks(records: Sequence[Record], file: str, log: ProblemLog) -> None:
    """Note objects without a mask where others have one."""
    missing = [~has_mask(record) & ~record.crowd for record in records]
    count = sum(map(np.count_nonzero, missing))
    n = sum(np.count_nonzero(~record.crowd) for record in records)
    if not 0 < count < n:
        return
    some = (
        f"{record.path} object {i}"
        for record, places in zip(records, missing, strict=True)
        for i in np.flatnonzero(places)
    )
    listing = _listing(list(islice(some, SHOWN)), count)
    message = f"masks cannot be learned or scored with {listing}. {WITHOUT_MASK_RULE}"
    log.suspicious(file, "", "segmentation", f"missing in {count} of {n} objects", message)


def _find_misplaced_keypoints(records: Sequence[Record], file: str, log: ProblemLog) -> None:
    """Note that most keypoints are far from their objects' boxes."""
    far, labelled, shown = 0, 0, ""
    for record in records:
        if record.keypoints is None:
            continue
        sides = (record.boxes[:, 2:] - record.boxes[:, :2])[:, None]
        low, high = record.boxes[:, None, :2] - sides / 2, record.boxes[:, None, 2:] + sides / 2
        points, seen = record.keypoints[..., :2], record.keypoints[..., 2] > NOT_LABELLED
        apart = seen & ((points < low) | (points > high)).any(axis=-1)
        if apart.any() and not shown:
            i, p = np.argwhere(apart)[0]
            box = [round(float(v), 1) for v in record.boxes[i]]
            shown = f"{record.path} object {i} has {points[i, p].tolist()} for its box {box}"
        far, labelled = far + int(apart.sum()), labelled + int(seen.sum())
    if 2 * far > labelled:
        message = (
            f"lie far outside their object's box (as {shown}): are keypoints x, y in pixels of the "
            "image?"
        )
        log.suspicious(file, "", "keypoints", f"{far} of {labelled}", message)


def _listing(first: Sequence[str], count: int) -> str:
    """Return the first items of `count`, and how many there are more."""
    shown = first[:SHOWN]
    return ", ".join(shown) + (f" and {count - len(shown)} more" if count > len(shown) else "")
