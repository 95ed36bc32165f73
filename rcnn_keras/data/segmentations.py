"""COCO's two ways to write a mask down: polygons, and run lengths (RLE)."""

from typing import Any

import numpy as np

# Times the image's longer side; pycocotools overflows on polygons that reach further out of it.
MOST_OUTSIDE = 10


def malformed(segmentation: Any, size: tuple[int, int]) -> tuple[str, Any] | None:
    """Return what keeps a segmentation from being a mask of its image, None if nothing does.

    Polygons are a list of lists x1, y1, x2, y2, .. of at least three points, none further from the
    image's origin than ten times its longer side. An RLE is a dict of `size`, the image's height
    and width, and `counts`: run lengths that add up to the image, as a list or packed by
    pycocotools into text or bytes. pycocotools itself fills what is missing with whatever was in
    memory.

    Returns:
        The field at fault, such as `segmentation.0` for the first polygon, and its value.
    """
    if isinstance(segmentation, list):
        if not segmentation:
            return "segmentation", segmentation
        for index, polygon in enumerate(segmentation):
            if not _is_polygon(polygon, MOST_OUTSIDE * max(size)):
                return f"segmentation.{index}", polygon
        return None
    if not isinstance(segmentation, dict):
        return "segmentation", segmentation
    stated = segmentation.get("size", "missing")
    if not isinstance(stated, list | tuple) or tuple(stated) != tuple(size):
        return "segmentation.size", stated
    if "counts" not in segmentation:
        return "segmentation.counts", "missing"
    counts = segmentation["counts"]
    return None if _are_counts(counts, size[0] * size[1]) else ("segmentation.counts", counts)


def _is_polygon(points: Any, most: float) -> bool:
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and set(map(type, points)) <= {int, float}
        and all(abs(number) <= most for number in points)  # NaN fails too
    )


def _are_counts(counts: Any, pixels: int) -> bool:
    if isinstance(counts, list):
        runs = set(map(type, counts)) <= {int} and all(run >= 0 for run in counts)
        return runs and sum(counts) == pixels
    if isinstance(counts, str):
        counts = counts.encode()
    if not isinstance(counts, bytes):
        return False
    lengths = _unpacked(counts)
    return lengths is not None and bool((lengths >= 0).all()) and int(lengths.sum()) == pixels


def _unpacked(counts: bytes) -> np.ndarray | None:
    """Return the run lengths that pycocotools packed into bytes, None if it did not.

    A number is written in digits of five bits, the lowest first, each offset by 48; a digit's sixth
    bit says that another follows, the last one's fifth bit that the number is negative. From the
    fourth on, a number is the difference to the run two before.
    """
    digits = np.frombuffer(counts, np.uint8).astype(np.int64) - 48
    if not len(digits) or digits.min() < 0 or digits.max() > 63 or digits[-1] & 32:
        return None
    last = np.flatnonzero(digits & 32 == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    if (last - first).max() > 6:  # more than 32 bits
        return None
    place = 5 * (np.arange(len(digits)) - np.repeat(first, last - first + 1))
    numbers = np.add.reduceat((digits & 31) << place, first)
    numbers -= np.where(digits[last] & 16, 1 << (place[last] + 5), 0)
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
