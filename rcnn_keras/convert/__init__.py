"""Weights of other projects, read and converted to this package's models."""

from rcnn_keras.convert import detectron2, matterport, torchvision
from rcnn_keras.convert.torchvision import read_state_dict

__all__ = ["detectron2", "matterport", "read_state_dict", "torchvision"]
