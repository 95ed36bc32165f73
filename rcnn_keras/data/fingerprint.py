"""What a training reads, in a few lines that show whether it is still the same."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.data.value_range import FULL
from rcnn_keras.utils.hashing import sha256


def batches_fingerprint(batches: Batches) -> dict[str, Any]:
    """Return all that decides what is in which batch, long parts of it as SHA-256.

    Raises:
        FileNotFoundError: an image file is gone.
    """
    parts = dataset_fingerprint(batches.dataset, masks=batches.masks)
    if batches.proposals:
        proposals = (np.asarray(record.proposals).tobytes() for record in batches.dataset)
        parts["proposals"] = _digest(proposals)
    settings = ("batch_size", "shuffle", "seed", "min_size", "max_size", "max_objects", "antialias")
    return {
        **parts,
        **{name: getattr(batches, name) for name in settings},
        "augment": _text(batches.augment),
        **({} if batches.value_range == FULL else {"value_range": str(batches.value_range)}),
    }


def dataset_fingerprint(dataset: DetectionDataset, *, masks: bool) -> dict[str, Any]:
    """Return how many images a dataset has, and the SHA-256 of them and of their objects.

    Image files count by name, number of bytes and size in pixels, images in memory by their
    pixels, those in TFRecord files by the file's number of bytes and their place in it; the folder
    that holds the files does not count.

    Args:
        dataset: of annotated images.
        masks: whether the objects' segmentations count.

    Raises:
        FileNotFoundError: an image file is gone.
    """
    records = list(dataset)
    parts = {
        "number of images": len(records),
        "images": _digest(part for record in records for part in _image(record)),
        "objects": _digest(part for record in records for part in _objects(record)),
    }
    if masks:
        parts["segmentations"] = _digest(part for r in records for part in _segmentations(r))
    return parts


def _image(record: Record) -> Iterable[bytes]:
    yield f"{record.image_id} {record.height} {record.width} {Path(record.path).name} ".encode()
    if record.pixels is not None:
        yield np.ascontiguousarray(record.pixels).tobytes()
    elif record.tfrecord is not None:
        file = Path(record.tfrecord.file)
        yield f"{file.name} {file.stat().st_size} {record.tfrecord.offset}\n".encode()
    else:
        yield f"{Path(record.path).stat().st_size}\n".encode()


def _objects(record: Record) -> Iterable[bytes]:
    yield f"{len(record)} ".encode()
    yield from (array.tobytes() for array in (record.boxes, record.labels, record.crowd))


def _segmentations(record: Record) -> Iterable[bytes]:
    for segmentation in record.segmentations or ():
        if isinstance(segmentation, list):
            for polygon in segmentation:
                yield np.asarray(polygon, np.float64).tobytes()
            yield b"\n"
        else:
            yield repr(segmentation and sorted(segmentation.items())).encode()


def _digest(chunks: Iterable[bytes]) -> str:
    return f"sha256:{sha256(chunks)}"


def _text(augment: Any) -> str:
    """Return an augmentation with its arguments, without the addresses of functions."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(augment))
