"""What an annotation file states of each image, before anything is compared with the images.

An image file that is listed more than once, under several ids, becomes one entry.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.problems import ProblemLog


@dataclass(slots=True)
class Object:
    """An object as the annotation file states it, its box `xyxy` in finite numbers."""

    id: str
    field: str
    value: Any
    box: tuple[float, float, float, float]
    label: int
    crowd: bool
    segmentation: Any = None
    area: float | None = None
    difficult: bool = False
    keypoints: np.ndarray | None = None  # (P, 3) float64 x, y, visibility


@dataclass(slots=True)
class Entry:
    """An image as the annotation file states it; `size` is height and width, None if missing."""

    image_id: int
    file: str
    id: str
    path: str
    size: tuple[int, int] | None
    objects: list[Object] = field(default_factory=list)


def join_repeated(entries: Sequence[Entry], log: ProblemLog) -> Sequence[Entry]:
    """Return the entries with one for each image file, however its path is spelt.

    A file that is listed with its objects and again without them would train as background what
    the first entry has as objects. The entry that stays is the first with objects, and gets those
    of the others that it lacks. Entries that state different sizes stay: one of them is wrong.
    """
    by_file: dict[str, list[Entry]] = {}
    for entry in entries:
        by_file.setdefault(os.path.abspath(entry.path), []).append(entry)
    if len(by_file) == len(entries):
        return entries
    joined: set[int] = set()
    for same in by_file.values():
        kept = next((entry for entry in same if entry.objects), same[0])
        for entry in same:
            if entry is not kept and (entry.size == kept.size or not entry.objects):
                _join(kept, entry, log)
                joined.add(id(entry))
    return [entry for entry in entries if id(entry) not in joined]


def _join(kept: Entry, entry: Entry, log: ProblemLog) -> None:
    """Add the objects of one entry to another that has not all of them."""
    known = set(map(_key, kept.objects))
    more = [item for item in entry.objects if _key(item) not in known]
    message = "image listed twice, read once"
    if more:
        message = "image of two ids read once, with the objects of both"
        kept.objects.extend(more)
    both = f"{entry.id}, also {kept.id}" if entry.id else f"also {kept.file}"
    log.repaired(entry.file, both, "file_name", Path(entry.path), message)


def _key(item: Object) -> tuple:
    return (*item.box, item.label, item.crowd)
