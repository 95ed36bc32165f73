"""What is exported runs and does not train: batch norm goes into the convolutions before it."""

from typing import Any

from rcnn_keras.layers.normalization import BATCH_NORMS
from rcnn_keras.models import Detector, fold_batchnorm


def check_detector(model: Any) -> None:
    """Raise TypeError unless this is a detector of this package."""
    if not isinstance(model, Detector):
        raise TypeError(f"only detectors of this package are exported; got {type(model).__name__}")


def folded(model: Detector, winograd: bool = False) -> Detector:
    """Return `fold_batchnorm` of a detector, or itself if there is nothing to fold."""
    if winograd or any(isinstance(layer, BATCH_NORMS) for layer in model._flatten_layers()):
        return fold_batchnorm(model, winograd=winograd)
    return model
