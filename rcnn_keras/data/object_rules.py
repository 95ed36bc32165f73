"""What becomes of crowd regions and of objects without a mask: the user's choice for a dataset."""

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from rcnn_keras.data.dataset import Record
from rcnn_keras.data.problems import ProblemLog
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
