"""Trained detectors as files for programs that know nothing of this package."""

import importlib
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rcnn_keras.models import Detector

__all__ = ["export"]

# By Keras' name of the format: the module and the function that write it.
_HOMES = {
    "tf_saved_model": ("rcnn_keras.export.saved_model", "saved_model"),
    "litert": ("rcnn_keras.export.litert", "litert"),
    "onnx": ("rcnn_keras.export.onnx_openvino", "onnx"),
    "openvino": ("rcnn_keras.export.onnx_openvino", "openvino"),
}
FORMATS = tuple(_HOMES)
ENDINGS = {".tflite": "litert", ".onnx": "onnx", ".xml": "openvino"}
# What may follow a dot in the name of a SavedModel's folder: a version, or Triton's ending.
FOLDER_ENDING = re.compile(r"(\.v?\d.*|\.savedmodel)?")
NO_FOLDERS = (".keras", ".h5", ".hdf5", ".pb", ".bin", ".lite", ".pt", ".pth", ".mlmodel", ".zip")


def export(
    model: "Detector", path: str | PathLike, format: str | None = None, **options: Any
) -> Path:
    """Write a detector in the format of another program.

    Args:
        model: a trained detector, which stays as it is.
        path: of the folder or file to write.
        format: `"tf_saved_model"` for TensorFlow Serving, `"litert"` for phones, `"onnx"` or
            `"openvino"`; by default that of the path's ending, `.tflite`, `.onnx` or `.xml`, and a
            SavedModel for a folder's name. A folder's name has no ending, or a version's as in
            `cells.v2`; others need the format.
        **options: those of the format's function: `saved_model.saved_model`, `litert.litert`,
            `onnx_openvino.onnx`, `onnx_openvino.openvino`.

    Returns:
        The path that was written.

    Raises:
        ValueError: for another format, and a path with the ending of another.
        TypeError: for an option that the format does not have.
        FileExistsError: if something is there already, without `overwrite=True`.
    """
    return exporter(format_of(path, format))(model, path, **options)


def format_of(path: str | PathLike, format: str | None = None) -> str:
    """Return the format of what is written to a path: the one given, or that of the ending.

    Raises:
        ValueError: for another format, and a path with the ending of another.
    """
    if format is not None:
        _check_format(format)
    ending = Path(path).suffix.lower()
    by_ending = ENDINGS.get(ending, "tf_saved_model")
    is_of_file = ending in NO_FOLDERS or not (format or FOLDER_ENDING.fullmatch(ending))
    format = format or by_ending
    if format != by_ending:
        wanted = {name: end for end, name in ENDINGS.items()}.get(format)
        what = f"its file ends in {wanted}" if wanted else "it is a folder"
        raise ValueError(f"{path} has not the ending of format {format!r}: {what}")
    if format == "tf_saved_model" and is_of_file:
        raise ValueError(
            f"{path} has the ending of a file, and a SavedModel is a folder; files are written for "
            f"the endings {', '.join(ENDINGS)}"
            + ("" if ending in NO_FOLDERS else "; format='tf_saved_model' writes such a folder")
        )
    return format


def exporter(format: str) -> Callable[..., Path]:
    """Return the function that writes a format; it and what it needs are imported only now."""
    _check_format(format)
    module, function = _HOMES[format]
    return getattr(importlib.import_module(module), function)


def _check_format(format: str) -> None:
    if format not in _HOMES:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; received {format!r}")
