"""Detectors: Keras models from images to detections."""

from rcnn_keras.models.detector import Detector
from rcnn_keras.models.errors import NonFiniteLossError
from rcnn_keras.models.faster_rcnn import FasterRCNN
from rcnn_keras.models.folding import fold_batchnorm
from rcnn_keras.models.mask_rcnn import MaskRCNN

__all__ = ["Detector", "FasterRCNN", "MaskRCNN", "NonFiniteLossError", "fold_batchnorm"]
