"""Detectors: Keras models from images to detections."""

from rcnn_keras.models.detector import Detector
from rcnn_keras.models.errors import NonFiniteLossError
from rcnn_keras.models.faster_rcnn import FasterRCNN

__all__ = ["Detector", "FasterRCNN", "NonFiniteLossError"]
