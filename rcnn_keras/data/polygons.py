"""Polygons of a whole dataset in one buffer of numbers, and lists of them where they are read.

A COCO polygon of 25 points is 1.7 kB as a list of Python numbers and 0.4 kB in the buffer.
"""

from array import array
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np


class PolygonBuffer:
    """The coordinates x1, y1, x2, y2, .. of many polygons, float64, one after the other."""

    def __init__(self) -> None:
        self.numbers = array("d")
        self.ends = array("q", [0])  # of each polygon in `numbers`, after the 0 of none

    def add(self, segmentation: Any) -> Any:
        """Return a COCO segmentation as `Polygons`, or as it is if that is not what it is."""
        if not isinstance(segmentation, list) or not segmentation:
            return segmentation
        if not all(map(_is_polygon, segmentation)):
            return segmentation
        start, first = len(self.numbers), len(self.ends) - 1
        try:
            for polygon in segmentation:
                self.numbers.extend(polygon)
                self.ends.append(len(self.numbers))
        except OverflowError:  # a whole number beyond all floats
            del self.numbers[start:], self.ends[first + 1 :]
            return segmentation
        return Polygons(self, first, len(self.ends) - 1)


class Polygons:
    """The polygons of one object, in a buffer."""

    __slots__ = ("buffer", "first", "stop")

    def __init__(self, buffer: PolygonBuffer, first: int, stop: int) -> None:
        self.buffer, self.first, self.stop = buffer, first, stop

    def lists(self) -> list[list[float]]:
        """Return them as COCO writes them."""
        numbers, ends = self.buffer.numbers, self.buffer.ends
        return [numbers[ends[i] : ends[i + 1]].tolist() for i in range(self.first, self.stop)]

    def reach(self) -> float:
        """Return the largest absolute coordinate; NaN if one is NaN."""
        ends = self.buffer.ends
        part = self.buffer.numbers[ends[self.first] : ends[self.stop]]
        return float(np.abs(np.frombuffer(part)).max())


class Segmentations(Sequence):
    """The segmentations of a record's objects; polygons become lists when they are looked at."""

    __slots__ = ("_packed",)

    def __init__(self, packed: Sequence[Any]) -> None:
        self._packed = tuple(packed)

    def __len__(self) -> int:
        return len(self._packed)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> "Segmentations": ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return Segmentations(self._packed[index])
        packed = self._packed[index]
        return packed.lists() if isinstance(packed, Polygons) else packed

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | Segmentations):
            return NotImplemented
        return tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(tuple(self))

    def take(self, index: Sequence[int] | np.ndarray) -> "Segmentations":
        """Return those at `index`, still packed."""
        return Segmentations([self._packed[i] for i in index])


def _is_polygon(points: Any) -> bool:
    """Return whether these are the numbers of three points or more."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    return set(map(type, points)) <= {int, float}
