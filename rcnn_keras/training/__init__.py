"""Training: configurations, runs, schedules, and the papers' own ways to train."""

import importlib
from typing import Any

_HOMES = {
    "train_alternating": "rcnn_keras.training.alternating",
    "train_rcnn": "rcnn_keras.training.rcnn",
}
__all__ = ["train_alternating", "train_rcnn"]


def __getattr__(name: str) -> Any:
    # The command line reads a configuration's file before it waits for TensorFlow.
    if name in __all__:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'rcnn_keras.training' has no attribute {name!r}")
