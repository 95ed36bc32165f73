"""The R-CNN family of object detectors as Keras 3 models on TensorFlow."""

from rcnn_keras import data, evaluation, models, visualize
from rcnn_keras.data.detections import Detections
from rcnn_keras.training import callbacks

__version__ = "0.1.0"
__all__ = ["Detections", "callbacks", "data", "evaluation", "models", "visualize"]
