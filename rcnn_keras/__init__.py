"""The R-CNN family of object detectors as Keras 3 models on TensorFlow.

The parts are imported when they are first named, so that the command line answers `--help` and
rejects a bad configuration without waiting for TensorFlow.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rcnn_keras import data, evaluation, models, visualize
    from rcnn_keras.data.detections import Detections
    from rcnn_keras.training import callbacks

__version__ = "0.1.0"
__all__ = ["Detections", "callbacks", "data", "evaluation", "models", "visualize"]

_HOMES = {"Detections": "rcnn_keras.data.detections", "callbacks": "rcnn_keras.training.callbacks"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'rcnn_keras' has no attribute {name!r}")
    found = importlib.import_module(_HOMES.get(name, f"rcnn_keras.{name}"))
    return found.Detections if name == "Detections" else found


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
