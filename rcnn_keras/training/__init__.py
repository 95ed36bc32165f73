"""Training from a configuration: optimizers, schedules, callbacks and the run itself."""

import importlib
from typing import Any

__all__ = ["train_rcnn"]


def __getattr__(name: str) -> Any:
    # The command line reads a configuration's file before it waits for TensorFlow.
    if name in __all__:
        return getattr(importlib.import_module("rcnn_keras.training.rcnn"), name)
    raise AttributeError(f"module 'rcnn_keras.training' has no attribute {name!r}")
