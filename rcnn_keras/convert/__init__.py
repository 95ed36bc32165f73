"""Weights of other projects, read and converted to this package's models."""

from rcnn_keras.convert import matterport, torchvision
from rcnn_keras.convert.torchvision import read_state_dict

__all__ = ["matterport", "read_state_dict", "torchvision"]
