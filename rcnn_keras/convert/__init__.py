"""Weights of other projects, read and converted to this package's models."""

from rcnn_keras.convert import detectron2, torchvision
from rcnn_keras.convert.torchvision import read_state_dict

__all__ = ["detectron2", "read_state_dict", "torchvision"]
