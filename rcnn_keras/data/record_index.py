"""The index of a record file: where each image lies, and its ground truth but for the masks.

I images, n objects of all of them, in an .npz archive:

    offsets (I + 1,) int64     of each image's record, and of the file's end, in bytes
    names                      of the image files, UTF-8, zero bytes in between
    image_ids (I,) int64, sizes (I, 2) int32    height and width
    counts (I,) int64          objects of each image
    boxes (n, 4) float32, labels (n,) int32, crowd (n,) bool
    areas (n,) float64, difficult (n,) bool, masks (n,) bool    masks: whether there is one
    has_areas, has_difficult, has_masks (I,) bool    whether the record states any
    sha256                     of the record file
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rcnn_keras.data.packed_images import PackedImage, PackedSegmentations
from rcnn_keras.data.records import Record
from rcnn_keras.data.written_aside import written_aside


def write_index(path: Path, records: Sequence[Record], offsets: np.ndarray, sha256: str) -> None:
    """Write the index of a record file."""
    present = [_present(record) for record in records]
    columns = {
        "offsets": np.asarray(offsets, np.int64),
        "names": np.frombuffer("\0".join(Path(r.path).name for r in records).encode(), np.uint8),
        "image_ids": np.array([r.image_id for r in records], np.int64),
        "sizes": np.array([(r.height, r.width) for r in records], np.int32),
        "counts": np.array([len(r) for r in records], np.int64),
        "boxes": np.concatenate([r.boxes for r in records]),
        "labels": np.concatenate([r.labels for r in records]),
        "crowd": np.concatenate([r.crowd for r in records]),
        "areas": _column([r.areas for r in records], records, np.float64),
        "difficult": _column([r.difficult for r in records], records, bool),
        "masks": _column(present, records, bool),
        "has_areas": np.array([r.areas is not None for r in records]),
        "has_difficult": np.array([r.difficult is not None for r in records]),
        "has_masks": np.array([there is not None for there in present]),
        "sha256": np.array(sha256),
    }
    with written_aside(path) as aside:
        np.savez(aside, **columns)  # type: ignore[arg-type]


def read_index(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of an index."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def index_records(file: Path, columns: dict[str, np.ndarray]) -> list[Record]:
    """Return the records of a record file by its index."""
    names = columns["names"].tobytes().decode().split("\0")
    bounds = np.cumsum([0, *columns["counts"]])
    records = []
    for i, name in enumerate(names):
        objects = slice(bounds[i], bounds[i + 1])
        height, width = columns["sizes"][i].tolist()
        place = PackedImage(str(file), int(columns["offsets"][i]), name)
        segmentations = None
        if columns["has_masks"][i]:
            numbers = np.arange(columns["counts"][i], dtype=np.int32)
            present = columns["masks"][objects]
            segmentations = PackedSegmentations(place, (height, width), numbers, present)
        records.append(
            Record(
                image_id=int(columns["image_ids"][i]),
                path=place.path,
                height=height,
                width=width,
                boxes=columns["boxes"][objects],
                labels=columns["labels"][objects],
                crowd=columns["crowd"][objects],
                segmentations=segmentations,
                areas=columns["areas"][objects] if columns["has_areas"][i] else None,
                difficult=columns["difficult"][objects] if columns["has_difficult"][i] else None,
                packed=place,
            )
        )
    return records


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _present(record: Record) -> np.ndarray | None:
    """Return which objects have a segmentation, None if the record states none."""
    if record.segmentations is None:
        return None
    if isinstance(record.segmentations, PackedSegmentations):
        return record.segmentations.present
    return np.array([code is not None for code in record.segmentations], bool)


def _column(
    arrays: Sequence[np.ndarray | None], records: Sequence[Record], dtype: type
) -> np.ndarray:
    """Return the values of all objects, zeros where a record has none."""
    filled: list[np.ndarray] = [
        np.zeros(len(record), dtype) if array is None else np.asarray(array, dtype)
        for array, record in zip(arrays, records, strict=True)
    ]
    return np.concatenate(filled)
