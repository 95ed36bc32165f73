"""The R-CNN family of object detectors as Keras 3 models on TensorFlow."""

import importlib
import os
from typing import TYPE_CHECKING, Any

from rcnn_keras.utils.environment import check_settings, check_versions

if TYPE_CHECKING:
    from rcnn_keras import comparison, explain, export

__version__ = "0.2.0"
__all__ = [
    "Detections",
    "backbones",
    "callbacks",
    "comparison",
    "convert",
    "data",
    "evaluation",
    "explain",
    "export",
    "layers",
    "losses",
    "models",
    "ops",
    "parallel",
    "presets",
    "proposals",
    "runs",
    "schedules",
    "training",
    "visualize",
]

_HOMES = {
    "Detections": "rcnn_keras.data.detections",
    "callbacks": "rcnn_keras.training.callbacks",
    "schedules": "rcnn_keras.training.schedules",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rcnn_keras' has no attribute {name!r}")
    module = importlib.import_module(_HOMES.get(name, f"rcnn_keras.{name}"))
    return module.Detections if name == "Detections" else module


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])


# Keras finds the classes of a saved model once they are imported. The command `rcnn` imports what
# it needs by itself, as its help and its errors should not wait seconds for TensorFlow. So do
# workers whose work does not need it, each of which would hold a TensorFlow of its own.
if TYPE_CHECKING or "RCNN_KERAS_LEAN" not in os.environ:
    check_settings()
    check_versions()
    from rcnn_keras import (
        backbones,
        convert,
        data,
        evaluation,
        layers,
        losses,
        models,
        ops,
        parallel,
        presets,
        proposals,
        runs,
        training,
        visualize,
    )
    from rcnn_keras.data.detections import Detections
    from rcnn_keras.training import callbacks, schedules
