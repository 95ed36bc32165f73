"""Detectors: Keras models from images to detections."""

import importlib
from typing import TYPE_CHECKING, Any

from rcnn_keras.models.cascade_rcnn import CascadeRCNN
from rcnn_keras.models.detector import Detector
from rcnn_keras.models.errors import NonFiniteLossError
from rcnn_keras.models.fast_rcnn import FastRCNN
from rcnn_keras.models.faster_rcnn import FasterRCNN
from rcnn_keras.models.inference import detect_at_scales
from rcnn_keras.models.keypoint_rcnn import KeypointRCNN
from rcnn_keras.models.mask_rcnn import MaskRCNN
from rcnn_keras.models.matterport import MatterportMaskRCNN
from rcnn_keras.models.rcnn import RCNN
from rcnn_keras.models.saved import load_detector
from rcnn_keras.models.transforms import fold_batchnorm, truncate_svd, with_kernels

if TYPE_CHECKING:
    from rcnn_keras.presets import from_preset, list_presets

__all__ = [
    "RCNN",
    "CascadeRCNN",
    "Detector",
    "FastRCNN",
    "FasterRCNN",
    "KeypointRCNN",
    "MaskRCNN",
    "MatterportMaskRCNN",
    "NonFiniteLossError",
    "detect_at_scales",
    "fold_batchnorm",
    "from_preset",
    "list_presets",
    "load_detector",
    "truncate_svd",
    "with_kernels",
]


def __getattr__(name: str) -> Any:
    # Presets convert other projects' weights into models, so they stand above both and are
    # fetched when asked for.
    if name in ("from_preset", "list_presets"):
        return getattr(importlib.import_module("rcnn_keras.presets"), name)
    raise AttributeError(f"module 'rcnn_keras.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
