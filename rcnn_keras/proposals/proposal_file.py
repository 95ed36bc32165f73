"""The proposals of a dataset in one file.

An .npz archive: the boxes of all images, concatenated, the row splits of the images, and a JSON
header that says how they were made. The same proposals always give the same bytes.

    I      number of images
    R      proposals of an image
    T      proposals of all images
"""

import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from rcnn_keras.utils.atomic import atomic_write

if TYPE_CHECKING:
    from rcnn_keras.data.dataset import DetectionDataset

FORMAT = "rcnn_keras proposals 1"
ARRAYS = ("boxes", "row_splits", "image_ids", "image_sizes")
ENTRY_DATE = (1980, 1, 1, 0, 0, 0)  # of every entry, so that the bytes do not depend on the time
UNKNOWN_SIZE = (0, 0)
MAX_LISTED = 10  # images in an error message
# What zip, JSON and numpy raise on files that are damaged or of another kind.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, AttributeError)


class Proposals(Mapping[int, np.ndarray]):
    """Proposals by image id: `(R, 4)` float32 `xyxy` in the upright image's pixels, best first.

    Args:
        boxes: `(T, 4)` of any real type.
        row_splits: `(I + 1,)` int64; image i has the boxes `row_splits[i]` to `row_splits[i + 1]`.
        image_ids: `(I,)` int64, all different.
        image_sizes: `(I, 2)` int32, height and width in pixels; zeros if they are not known.
        header: how the proposals were made: "method", "arguments", "opencv" and "rcnn_keras" (the
            versions), and further entries.

    Raises:
        ValueError: if the arrays do not fit each other.
    """

    def __init__(
        self,
        boxes: np.ndarray,
        row_splits: np.ndarray,
        image_ids: np.ndarray,
        image_sizes: np.ndarray,
        header: Mapping[str, Any],
    ):
        images = len(image_ids)
        shapes = boxes.shape[1:], row_splits.shape, image_ids.shape, image_sizes.shape
        if shapes != ((4,), (images + 1,), (images,), (images, 2)):
            raise ValueError(f"arrays of shapes {shapes} do not fit each other")
        if row_splits[0] != 0 or row_splits[-1] != len(boxes) or (np.diff(row_splits) < 0).any():
            raise ValueError(f"row_splits do not split {len(boxes)} boxes")
        self._boxes, self._row_splits = boxes, row_splits
        self.image_ids, self.image_sizes, self.header = image_ids, image_sizes, dict(header)
        self._indices = {int(image_id): i for i, image_id in enumerate(image_ids)}
        if len(self._indices) < images:
            raise ValueError("image ids are repeated")

    def __getitem__(self, image_id: int) -> np.ndarray:
        index = self._indices[image_id]
        start, end = self._row_splits[index : index + 2]
        return self._boxes[start:end].astype(np.float32)

    def __iter__(self) -> Iterator[int]:
        return iter(self._indices)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._indices)

    def __repr__(self) -> str:
        method = self.header["method"]
        return f"Proposals({method!r}, {len(self)} images, {len(self._boxes)} boxes)"

    def image_size(self, image_id: int) -> tuple[int, int] | None:
        """Return height and width of an image in pixels, None if they are not known."""
        height, width = self.image_sizes[self._indices[image_id]].tolist()
        return None if (height, width) == UNKNOWN_SIZE else (height, width)


def make_header(
    method: str, arguments: Mapping[str, Any] | None = None, **entries: Any
) -> dict[str, Any]:
    """Return the header of new proposals, after a round trip through JSON."""
    from rcnn_keras import __version__  # the package imports this module

    header = {
        "format": FORMAT,
        "method": method,
        "arguments": dict(arguments or {}),
        "opencv": cv2.__version__,
        "rcnn_keras": __version__,
        **entries,
    }
    return json.loads(json.dumps(header))


def save_proposals(
    path: str | PathLike,
    proposals: Mapping[int, np.ndarray],
    *,
    method: str,
    arguments: Mapping[str, Any] | None = None,
    image_sizes: Mapping[int, tuple[int, int]] | None = None,
) -> None:
    """Write proposals into one file, atomically: an older file is replaced once all is written.

    Args:
        path: the file.
        proposals: image id to `(R, 4)` `xyxy` in pixels of the upright image, best first; R may
            be 0.
        method: name of the method that made them.
        arguments: of the method; JSON must be able to hold them.
        image_sizes: image id to height and width in pixels, which `check_proposals` compares.

    Raises:
        ValueError: for boxes that are not `(R, 4)`, not finite or have x2 < x1 or y2 < y1; names
            the image id.
    """
    write_proposals(path, proposals, make_header(method, arguments), image_sizes or {})


def write_proposals(
    path: str | PathLike,
    proposals: Mapping[int, np.ndarray],
    header: Mapping[str, Any],
    image_sizes: Mapping[int, tuple[int, int]],
) -> None:
    """Write a file as `save_proposals` does, under a header of `make_header`."""
    arrays = [_checked_boxes(image_id, boxes) for image_id, boxes in proposals.items()]
    sizes = [image_sizes.get(image_id, UNKNOWN_SIZE) for image_id in proposals]
    content = {
        "boxes": _compact(np.concatenate([np.zeros((0, 4), np.float32), *arrays])),
        "row_splits": np.cumsum([0, *map(len, arrays)], dtype=np.int64),
        "image_ids": np.array(list(proposals), np.int64),
        "image_sizes": np.array(sizes, np.int32).reshape(-1, 2),
    }
    with atomic_write(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        archive.writestr(_entry("header.json"), json.dumps(header, sort_keys=True))
        for name, array in content.items():
            with archive.open(_entry(f"{name}.npy"), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, version=(1, 0), allow_pickle=False)


def load_proposals(path: str | PathLike) -> Proposals:
    """Return the proposals of a file that `save_proposals` or `propose` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, damaged or not a file of proposals; names it.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            header = json.loads(archive.read("header.json"))
            if header.get("format") != FORMAT:
                raise ValueError(f"its format is {header.get('format')!r}, not {FORMAT!r}")
            boxes, row_splits, image_ids, image_sizes = (_array(archive, name) for name in ARRAYS)
        return Proposals(boxes, row_splits, image_ids, image_sizes, header)
    except DAMAGE as error:
        raise ValueError(f"{path} is not a complete file of proposals: {error}") from error


def check_proposals(proposals: Mapping[int, np.ndarray], dataset: "DetectionDataset") -> None:
    """Raise ValueError unless every image of a dataset has proposals, made at its size.

    Args:
        proposals: image id to boxes; sizes are compared for proposals of `load_proposals`.
        dataset: the images; proposals of further images are allowed.
    """
    missing = [f"{r.image_id} ({r.path})" for r in dataset if r.image_id not in proposals]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(dataset)} images have no proposals: image {_listing(missing)}"
        )
    if not isinstance(proposals, Proposals):
        return
    others = [
        f"{r.image_id} ({r.path}) has {r.width}x{r.height} pixels, not {size[1]}x{size[0]}"
        for r in dataset
        if (size := proposals.image_size(r.image_id)) not in (None, (r.height, r.width))
    ]
    if others:
        raise ValueError(f"the proposals are those of other images: image {_listing(others)}")


def read_into(
    dataset: "DetectionDataset", path: str | PathLike, max_proposals: int | None = None
) -> "DetectionDataset":
    """Return a dataset with the proposals of a file, at most `max_proposals` of each image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: as `load_proposals` and `check_proposals` do.
    """
    proposals = load_proposals(path)
    check_proposals(proposals, dataset)
    return dataset.with_proposals(proposals, most=max_proposals)


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(f"{name}.npy") as entry:
        return np.lib.format.read_array(entry, allow_pickle=False)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, ENTRY_DATE)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


def _checked_boxes(image_id: int, boxes: np.ndarray) -> np.ndarray:
    """Return the boxes of an image as float32, or raise ValueError."""
    boxes = np.asarray(boxes, np.float32)
    boxes = boxes.reshape(0, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"image {image_id}: boxes must be (R, 4), not {boxes.shape}")
    valid = np.isfinite(boxes).all(axis=1) & (boxes[:, 2:] >= boxes[:, :2]).all(axis=1)
    if not valid.all():
        bad = boxes[~valid][0].tolist()
        raise ValueError(f"image {image_id}: {bad} is not a box x1, y1, x2, y2")
    return boxes


def _compact(boxes: np.ndarray) -> np.ndarray:
    """Return the boxes as uint16 if that changes no value."""
    inside = np.all((boxes >= 0) & (boxes < 2**16))
    return boxes.astype(np.uint16) if inside and (boxes % 1 == 0).all() else boxes


def _listing(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more
