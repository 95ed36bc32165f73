"""Detectors that this package saved as `.keras` files."""

import difflib
import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from rcnn_keras.models import FasterRCNN

ENDING = ".keras"


def saved_arguments(path: Path) -> dict[str, Any]:
    """Return the constructor's arguments of a saved detector, without reading its weights.

    Raises:
        FileNotFoundError: names the nearest `.keras` file in the folder.
        ValueError: if the file holds something else than a detector of this package.
    """
    if not path.is_file():
        files = [str(found) for found in path.parent.glob(f"*{ENDING}")]
        near = difflib.get_close_matches(str(path), files, 1, cutoff=0.0)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise FileNotFoundError(f"{path}: no such file{hint}")
    try:
        with zipfile.ZipFile(path) as archive:
            saved = json.loads(archive.read("config.json"))
        kind = keras.saving.get_registered_object(saved["registered_name"])
        name = saved["class_name"]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no {ENDING} file") from error
    if not (isinstance(kind, type) and issubclass(kind, FasterRCNN)):
        raise ValueError(f"{path} holds a {name}, not a detector of this package")
    return keras.tree.lists_to_tuples(saved["config"])


def load_saved(path: Path) -> FasterRCNN:
    """Return a saved detector; raises what `saved_arguments` does."""
    saved_arguments(path)
    return keras.models.load_model(path, compile=False)
