"""Trained detectors as files for programs that know nothing of this package."""

import importlib
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rcnn_keras.models import Detector

__all__ = ["export"]

_HOMES = {
    "saved_model": "rcnn_keras.export.saved_model",
    "litert": "rcnn_keras.export.litert",
    "onnx": "rcnn_keras.export.onnx_openvino",
    "openvino": "rcnn_keras.export.onnx_openvino",
}
FORMATS = tuple(_HOMES)


def export(
    model: "Detector", path: str | PathLike, format: str = "saved_model", **options: Any
) -> Path:
    """Write a detector in the format of another program.

    Args:
        model: a trained detector, which stays as it is.
        path: of the folder or file to write.
        format: `"saved_model"` for TensorFlow Serving, `"litert"` for phones, `"onnx"` or
            `"openvino"`.
        **options: those of the format's function: `saved_model.saved_model`, `litert.litert`,
            `exchange.onnx`, `exchange.openvino`.

    Returns:
        The path that was written.

    Raises:
        ValueError: for another format.
        TypeError: for an option that the format does not have.
        FileExistsError: if something is there already, without `overwrite=True`.
    """
    return exporter(format)(model, path, **options)


def exporter(format: str) -> Callable[..., Path]:
    """Return the function that writes a format; it and what it needs are imported only now."""
    if format not in _HOMES:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}; received {format!r}")
    return getattr(importlib.import_module(_HOMES[format]), format)
