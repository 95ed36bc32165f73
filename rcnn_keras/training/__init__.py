"""Training: callbacks, checkpoints, optimizers, schedules, and the papers' procedures."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rcnn_keras.training.alternating import train_alternating
    from rcnn_keras.training.rcnn import train_rcnn

_MODULES = {
    "train_alternating": "rcnn_keras.training.alternating",
    "train_rcnn": "rcnn_keras.training.rcnn",
}
__all__ = ["train_alternating", "train_rcnn"]


def __getattr__(name: str) -> Any:
    # Imported on use, so that the command line reads a configuration without TensorFlow.
    if name in __all__:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'rcnn_keras.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
