"""What a finished stage leaves behind, so that it need not run again."""

import hashlib
import json
import warnings
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.written_aside import written_aside

Result = tuple[list[np.ndarray], Any]  # arrays, and notes that JSON can hold


def once(path: Path, key: str, compute: Callable[[], Result]) -> Result:
    """Return a stage's result from its file, or compute it and write the file.

    A file that was altered is told of, and its stage runs again.

    Args:
        path: an `.npz` file, there whole or not at all.
        key: of all that the result depends on.
        compute: runs the stage.

    Raises:
        ValueError: if the file is of another key.
    """
    stored = _stored(path)
    if stored is None:
        arrays, notes = compute()
        texts = {"key": np.array(key), "notes": np.array(json.dumps(notes))}
        numbered: dict[str, Any] = {f"array_{i}": x for i, x in enumerate(arrays)}
        with written_aside(path) as aside:
            np.savez(aside, **texts, **numbered)  # type: ignore[arg-type]
        stored = _stored(path)
        assert stored is not None
    if str(stored["key"]) != key:
        raise ValueError(
            f"{path} is of a training with other data, arguments or weights: take another "
            f"folder, or remove this one"
        )
    arrays = [stored[f"array_{i}"] for i in range(len(stored) - 2)]
    return arrays, json.loads(str(stored["notes"]))


def _stored(path: Path) -> dict[str, np.ndarray] | None:
    """Return what a file holds, checked by the sums that it has itself; None if it is not there."""
    if not path.exists():
        return None
    try:
        with np.load(path) as file:
            return {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        warnings.warn(f"{path} was altered ({error}): its stage runs again", stacklevel=3)
        return None


def key_of(*parts: Any) -> str:
    """Return a hash of texts, numbers, None, dicts and lists of them, and lists of arrays."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, list) and part and isinstance(part[0], np.ndarray):
            for array in part:
                digest.update(str((array.shape, array.dtype)).encode())
                digest.update(np.ascontiguousarray(array).data)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return digest.hexdigest()


def arrays_of(dataset: DetectionDataset) -> list[np.ndarray]:
    """Return all of a dataset that the stages learn from but the pixels, for a key."""
    return [array for record in dataset for array in _arrays(record)]


def _arrays(record: Any) -> Iterable[np.ndarray]:
    yield np.array([record.image_id, record.height, record.width])
    yield from (record.boxes, record.labels, record.crowd, record.proposals)
