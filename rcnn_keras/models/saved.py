"""Detectors in `.keras` files: which one a file holds, and loading it for inference."""

import difflib
import json
import os
import zipfile
from os import PathLike
from pathlib import Path
from typing import Any

import keras

from rcnn_keras.models.detector import Detector
from rcnn_keras.models.errors import ENDING


def saved_arguments(path: str | PathLike[str]) -> tuple[type[Detector], dict[str, Any]]:
    """Return the class of a saved detector and its arguments, without reading its weights.

    Raises:
        FileNotFoundError: there is no such file; names the nearest `.keras` file in the folder.
        ValueError: if the file does not hold a detector of this package.
    """
    path = Path(path)
    if not path.is_file():
        files = [str(file) for file in path.parent.glob(f"*{ENDING}")]
        near = difflib.get_close_matches(str(path), files, 1, cutoff=0.0)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise FileNotFoundError(f"{path}: no such file{hint}")
    try:
        with zipfile.ZipFile(path) as archive:
            saved = json.loads(archive.read("config.json"))
        kind = keras.saving.get_registered_object(saved["registered_name"])
        name = saved["class_name"]
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a {ENDING} file") from error
    if not (isinstance(kind, type) and issubclass(kind, Detector)):
        raise ValueError(f"{path} holds a {name}, not a detector of this package")
    return kind, keras.tree.lists_to_tuples(saved["config"])


def load_detector(path: str | PathLike[str]) -> Detector:
    """Load a detector for inference.

    Raises:
        FileNotFoundError, ValueError: as `saved_arguments`.
    """
    saved_arguments(path)
    return keras.models.load_model(os.fspath(path), compile=False)
