"""Masks in numpy: COCO's polygons and run lengths, a detector's M x M grids.

A mask is `(H, W)` bool. D is the number of detections, n that of a record's objects. The polygons
of a whole dataset lie in one buffer of numbers: a COCO polygon of 25 points is 1.7 kB as a list of
Python numbers and 0.4 kB in the buffer.
"""

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

import cv2
import numpy as np
from PIL import Image
from pycocotools import mask as rle

from rcnn_keras.data.image_rule import weights_on_zeros
from rcnn_keras.data.tfrecord_images import TFRecordSegmentations
from rcnn_keras.data.values import FROM_TEXT, number

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rcnn_keras.data.dataset import Record


AT_ONCE = 50_000  # polygons that are measured in one go


class PolygonBuffer:
    """The coordinates x1, y1, x2, y2, .. of many polygons, float64, one after the other."""

    def __init__(self) -> None:
        self.numbers = array("d")
        self.ends = array("q", [0])  # of each polygon in `numbers`, after the 0 of none
        self._measured: tuple[np.ndarray, np.ndarray] | None = None

    def add(self, segmentation: Any) -> Any:
        """Return a COCO segmentation as `Polygons`, or as it is if that is not what it is."""
        if not isinstance(segmentation, list) or not segmentation:
            return segmentation
        if not all(map(_is_polygon_list, segmentation)):
            return segmentation
        self._measured = None
        start, first = len(self.numbers), len(self.ends) - 1
        try:
            for polygon in segmentation:
                self.numbers.extend(polygon)
                self.ends.append(len(self.numbers))
        except OverflowError:  # a whole number beyond all floats
            del self.numbers[start:], self.ends[first + 1 :]
            return segmentation
        return Polygons(self, first, len(self.ends) - 1)

    def measures(self) -> tuple[np.ndarray, np.ndarray]:
        """Return each polygon's largest absolute coordinate, and its area by Gauss' formula.

        NaN where a coordinate is NaN. Computed for all at once when first asked for: a call for
        each of a million polygons takes longer than to parse them.
        """
        if self._measured is None:
            ends = np.array(self.ends)
            reach, area = np.empty(len(ends) - 1), np.empty(len(ends) - 1)
            for first in range(0, len(area), AT_ONCE):
                stop = min(first + AT_ONCE, len(area))
                part = np.array(self.numbers[ends[first] : ends[stop]]).reshape(-1, 2)
                starts = (ends[first:stop] - ends[first]) // 2
                following = np.arange(1, len(part) + 1)  # the point after the last is the first
                following[np.append(starts[1:], len(part)) - 1] = starts
                x, y = part.T
                with np.errstate(invalid="ignore", over="ignore"):
                    cross = x * y[following] - x[following] * y
                    area[first:stop] = np.abs(np.add.reduceat(cross, starts)) / 2
                    largest = np.abs(part).max(axis=1)
                    reach[first:stop] = np.maximum.reduceat(largest, starts)
            self._measured = reach, area
        return self._measured


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
        reach, _ = self.buffer.measures()
        return float(reach[self.first : self.stop].max())

    def least_area(self) -> float:
        """Return the smallest of their areas in square pixels; NaN if one is NaN."""
        _, area = self.buffer.measures()
        return float(area[self.first : self.stop].min())


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


def _is_polygon_list(points: Any) -> bool:
    """Return whether these are the numbers of three points or more."""
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return False
    return set(map(type, points)) <= {int, float}


# Times the image's longer side; pycocotools overflows on polygons that reach further out of it.
MOST_OUTSIDE = 10

# A polygon less wide than this many pixels has no area.
MIN_WIDTH = 1e-3

FLAT = "flat list of coordinates read as a polygon"

POINTS = "list of points read as polygons"


def as_polygons(stated: list) -> tuple[list, list[str]]:
    """Return polygons that another tool nests otherwise as COCO writes them: `[[x1, y1, ..], ..]`.

    These are a flat list `[x1, y1, ..]`, a list of points `[[x1, y1], ..]`, several of them, and
    numbers as text.

    Returns:
        The polygons, and what was repaired, as the problems of a dataset say it; `stated` itself if
        it is something else.
    """
    repairs = []
    polygons = [_as_numbers(item) for item in stated]
    if polygons != stated:
        repairs.append(FROM_TEXT)
    if _are_numbers(polygons) and len(polygons) >= 6:
        return [polygons], [*repairs, FLAT]
    nested = [polygons] if _are_points(polygons) else polygons
    if nested and all(map(_are_points, nested)):
        flat = [[number for point in points for number in _point(point)] for points in nested]
        return flat, [*repairs, POINTS]
    return (polygons, repairs) if repairs else (stated, [])


def as_run_lengths(stated: dict[str, Any]) -> dict[str, Any]:
    """Return run lengths whose size, and counts that are a list, are no text; else as stated."""
    listed = {key: value for key, value in stated.items() if isinstance(value, list)}
    return stated | {key: _as_numbers(value) for key, value in listed.items()}


def _as_numbers(value: Any) -> Any:
    """Return a value with the numbers that are text in it as numbers, however it is nested."""
    if isinstance(value, list):
        return [_as_numbers(item) for item in value]
    found = number(value) if isinstance(value, str) else None
    return value if found is None else found


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and set(map(type, values)) <= {int, float}


def _are_points(values: Any) -> bool:
    """Return whether this is a list of three points or more; OpenCV has `[[x, y]]` for one."""
    return isinstance(values, list) and len(values) >= 3 and all(map(_point, values))


def _point(value: Any) -> list[float]:
    """Return the two numbers of a point, None if it is not a point."""
    inner = value[0] if isinstance(value, list) and len(value) == 1 else value
    return inner if _are_numbers(inner) and len(inner) == 2 else []


def sound_polygon(points: Any, size: tuple[int, int]) -> bool:
    """Return whether a polygon of COCO covers some of the plane, in or near an image of a size."""
    return _is_polygon(points, MOST_OUTSIDE * max(size)) and _has_area(points)


def _has_area(polygon: list[float]) -> bool:
    """Return whether the points of a polygon lie apart from one straight line."""
    points = np.reshape(np.array(polygon, np.float64), (-1, 2))
    points = points - points[0]
    lengths = np.hypot(*points.T)
    x, y = points[lengths.argmax()]
    across = np.abs(points[:, 0] * y - points[:, 1] * x).max()
    return bool(across >= MIN_WIDTH * lengths.max() > 0)


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


def is_empty(code: dict[str, Any]) -> bool:
    """Return whether a sound RLE sets no pixel."""
    counts = code["counts"]
    if isinstance(counts, list):
        return not any(counts[1::2])
    lengths = _unpacked(counts.encode() if isinstance(counts, str) else counts)
    return lengths is None or not lengths[1::2].any()


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


NAMED = 10  # objects that a message names

NO_SEGMENTATION = " has no segmentation, so there is no mask of it"

WITHOUT_MASK_RULE = (
    'Where data is read, without_mask="drop" leaves such objects out and "box" fills their boxes '
    "(without_mask in the section data of a configuration, --without-mask on the command line)"
)


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Return a COCO segmentation as the `(height, width)` bool mask that pycocotools fills.

    Args:
        segmentation: polygons, or run lengths as a list or packed into text or bytes.
        height: of its image in pixels.
        width: likewise.

    Raises:
        ValueError: for a segmentation that is malformed or of another size; names the field.
    """
    bad = malformed(segmentation, (height, width))
    if bad is not None:
        field, value = bad
        raise ValueError(f"malformed {field} in an image of {width}x{height} pixels: {value!r:.80}")
    if isinstance(segmentation, list):
        return rle.decode(rle.merge(rle.frPyObjects(segmentation, height, width))).astype(bool)
    counts = segmentation["counts"]
    code = {"size": [height, width], "counts": counts}
    if isinstance(counts, list):
        code = rle.frPyObjects(code, height, width)
    return rle.decode(code).astype(bool)


def check_masks(record: "Record") -> None:
    """Raise ValueError unless every object of a record has a sound segmentation.

    A crowd region may have none. The message names the image and the objects, counted from 0.
    """
    check_segmentations([record])


def check_segmentations(dataset: "Iterable[Record]") -> None:
    """Raise ValueError if objects have no sound segmentation; crowds need none.

    The message names the first such objects and the number of all, and says how to go on.
    """
    faults = [
        (record.path, place, fault) for record in dataset for place, fault in _mask_faults(record)
    ]
    if not faults:
        return
    path, place, fault = faults[0]
    message = f"{path}: object {place}{fault}"
    if len(faults) > 1:
        named = ", ".join(f"{path} object {place}" for path, place, _ in faults[1:NAMED])
        rest = f" and {len(faults) - NAMED} more" if len(faults) > NAMED else ""
        message += f"; {len(faults)} objects have no mask, the others are {named}{rest}"
    raise ValueError(f"{message}. {WITHOUT_MASK_RULE}")


def _mask_faults(record: "Record") -> "Iterator[tuple[int, str]]":
    """Yield the objects whose mask is missing or malformed, and what is wrong with each."""
    if isinstance(record.segmentations, TFRecordSegmentations):  # they were sound when packed
        missing = ~record.segmentations.present & ~record.crowd
        yield from ((place, NO_SEGMENTATION) for place in np.flatnonzero(missing).tolist())
        return
    segmentations = record.segmentations or (None,) * len(record)
    for i, (segmentation, crowd) in enumerate(zip(segmentations, record.crowd, strict=True)):
        if segmentation is None:
            if not crowd:
                yield i, NO_SEGMENTATION
            continue
        bad = malformed(segmentation, (record.height, record.width))
        if bad is not None:
            yield i, f": malformed {bad[0]}: {bad[1]!r:.80}"


def record_masks(record: "Record", height: int, width: int) -> np.ndarray:
    """Return the masks of a record's objects on its image resized to `height` x `width`.

    Resized as Pillow's bilinear does it, averaging where it shrinks, and set from one half on. One
    object at a time is decoded. An object without segmentation has an empty mask.

    Returns:
        `(n, height, ceil(width / 8))` uint8, eight pixels a byte as `numpy.packbits` lays them out.

    Raises:
        ValueError: as `decode_mask`.
    """
    packed = np.zeros((len(record), height, -(-width // 8)), np.uint8)
    for i, segmentation in enumerate(record.segmentations or ()):
        if segmentation is None:
            continue
        mask = decode_mask(segmentation, record.height, record.width)
        if mask.shape != (height, width):
            mask = _resized(mask, height, width)
        packed[i] = np.packbits(mask, axis=1)
    return packed


def _resized(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask at another size; only what may be set is computed."""
    resized = np.zeros((height, width), bool)
    if not mask.any():
        return resized
    gray = mask.astype(np.uint8) * 255
    x, y, wide, high = cv2.boundingRect(gray)
    rows, (top, bottom) = _window(y, y + high - 1, mask.shape[0], height)
    columns, (left, right) = _window(x, x + wide - 1, mask.shape[1], width)
    part = Image.fromarray(gray).resize(
        (columns.stop - columns.start, rows.stop - rows.start),
        Image.Resampling.BILINEAR,
        box=(left, top, right, bottom),
    )
    resized[rows, columns] = np.asarray(part) > 127
    return resized


def _window(first: int, last: int, old: int, new: int) -> tuple[slice, tuple[float, float]]:
    """Return what pixels from `first` to `last` of `old` along an axis may reach of `new`.

    Returns:
        The new pixels, and where these lie among the old ones.
    """
    ratio = new / old
    start = max(math.floor((first - 1) * ratio) - 1, 0)
    stop = min(math.ceil((last + 2) * ratio) + 1, new)
    return slice(start, stop), (start / ratio, min(stop / ratio, old))


def paste_masks(
    masks: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    threshold: float | None = None,
    rule: str = "torchvision",
) -> np.ndarray:
    """Return the masks inside boxes as masks of the whole image.

    Rules are those of

    - `"torchvision"`, `paste_masks_in_image`: a mask is padded by one position of zeros, its box
      grows with it and is cut to whole pixels, and the positions are interpolated bilinearly.
    - `"matterport"`, `unmold_mask`: a mask is resized to its box, which has whole pixels, with
      zeros around it; pixels are set from the threshold on, not only above it.

    Args:
        masks: `(D, M, M)` in 0..1.
        boxes: `(D, 4)` `xyxy` in pixels of the image, finite.
        size: height and width of the image.
        threshold: set the pixels above it; None gives the values themselves.
        rule: one of the above.

    Returns:
        `(D, H, W)` float32 in 0..1, or bool with a threshold.

    Raises:
        ValueError: if the arrays do not fit each other, a box is not finite, or for another rule.
    """
    pasted = np.zeros((len(masks), *size), np.float32 if threshold is None else bool)
    for i, (rows, columns, values) in enumerate(_pasted(masks, boxes, size, rule)):
        pasted[i, rows, columns] = values if threshold is None else _set(values, threshold, rule)
    return pasted


def encode_masks(
    masks: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    threshold: float = 0.5,
    rule: str = "torchvision",
) -> list[dict[str, Any]]:
    """Return what `paste_masks` would with a threshold as COCO run lengths, `counts` as text.

    One mask at a time exists in pixels, and of it the columns that its box covers.

    Raises:
        ValueError: as `paste_masks`.
    """
    height, width = size
    codes = []
    for rows, columns, values in _pasted(masks, boxes, size, rule):
        runs = _runs(_set(values, threshold, rule), rows.start, columns.start, size)
        code = rle.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
        codes.append({"size": [height, width], "counts": code["counts"].decode("ascii")})
    return codes


def mask_areas(
    masks: np.ndarray,
    boxes: np.ndarray,
    size: tuple[int, int],
    threshold: float = 0.5,
    rule: str = "torchvision",
) -> np.ndarray:
    """Return how many pixels each of `paste_masks` sets above a threshold, `(D,)` int64.

    Raises:
        ValueError: as `paste_masks`.
    """
    pasted = _pasted(masks, boxes, size, rule)
    counts = [np.count_nonzero(_set(values, threshold, rule)) for _, _, values in pasted]
    return np.array(counts, np.int64)


def _runs(part: np.ndarray, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    """Return the run lengths, down the columns, of a mask that is empty but for a part of it."""
    (height, width), (high, wide) = size, part.shape
    strip = np.zeros((wide, high + 1), bool)  # an empty pixel ends each column
    strip[:, :high] = part.T
    strip = strip.ravel()
    edges = np.flatnonzero(strip[1:] != strip[:-1]) + 1
    if strip.size and strip[0]:
        edges = np.concatenate([[0], edges])
    column, row = np.divmod(edges, high + 1)
    edges = (left + column) * height + top + row
    if high == height:  # then a run may go on in the next column
        again = np.flatnonzero(edges[1:] == edges[:-1])
        edges = np.delete(edges, np.concatenate([again, again + 1]))
    edges = edges[edges < height * width]  # no run follows the last pixel
    return np.diff(edges, prepend=0, append=height * width)


Pasted = Iterator[tuple[slice, slice, np.ndarray]]


def _pasted(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int], rule: str) -> Pasted:
    """Yield the rows and columns of the image that each mask covers, and its values there."""
    if rule not in PASTING_RULES:
        raise ValueError(f"rule must be one of {', '.join(PASTING_RULES)}; received {rule!r}")
    masks, boxes = np.asarray(masks, np.float32), np.asarray(boxes, np.float32)
    if masks.ndim != 3 or masks.shape[1] != masks.shape[2] or boxes.shape != (len(masks), 4):
        raise ValueError(
            f"masks (D, M, M) and boxes (D, 4) are needed, not {masks.shape} and {boxes.shape}"
        )
    finite = np.isfinite(boxes).all(axis=1)
    if not finite.all():
        raise ValueError(f"a box is not finite: {boxes[~finite][0].tolist()}")
    return PASTING_RULES[rule](masks, boxes, size)


def _set(values: np.ndarray, threshold: float, rule: str) -> np.ndarray:
    """Return which pixels are set."""
    return values >= threshold if rule == "matterport" else values > threshold


def _grown(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> Pasted:
    """Paste by torchvision's rule."""
    grown = np.float32((masks.shape[1] + 2) / masks.shape[1])
    half = (boxes[:, 2:] - boxes[:, :2]) * np.float32(0.5) * grown
    centre = (boxes[:, 2:] + boxes[:, :2]) * np.float32(0.5)
    first, last = np.trunc(centre - half).astype(int), np.trunc(centre + half).astype(int)
    start = np.clip(first, 0, size[::-1])
    stop = np.clip(last + 1, start, size[::-1])
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1)))
    sides = np.maximum(last - first + 1, 1)
    placed = zip(padded, sides.tolist(), start, stop, first, strict=True)
    for mask, side, low, high, origin in placed:
        values = cv2.resize(mask, side, interpolation=cv2.INTER_LINEAR)
        columns, rows = map(slice, low.tolist(), high.tolist())
        inner_columns, inner_rows = map(slice, (low - origin).tolist(), (high - origin).tolist())
        yield rows, columns, values[inner_rows, inner_columns]


def _resized_to_boxes(masks: np.ndarray, boxes: np.ndarray, size: tuple[int, int]) -> Pasted:
    """Paste by matterport's rule."""
    first, last = np.rint(boxes[:, :2]).astype(int), np.rint(boxes[:, 2:]).astype(int)
    start, stop = (np.clip(corner, 0, size[::-1]) for corner in (first, last))
    for mask, origin, end, low, high in zip(masks, first, last, start, stop, strict=True):
        width, height = np.maximum(end - origin, 1).tolist()
        rows, columns = (weights_on_zeros(len(mask), side) for side in (height, width))
        values = (rows @ mask.astype(np.float64) @ columns.T).astype(np.float32)
        (left, top), (right, bottom) = (low - origin).tolist(), (high - origin).tolist()
        yield (
            slice(low[1], max(high[1], low[1])),
            slice(low[0], max(high[0], low[0])),
            values[top:bottom, left:right],
        )


PASTING_RULES = {"torchvision": _grown, "matterport": _resized_to_boxes}
