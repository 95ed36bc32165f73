"""Class-agnostic proposals without a network: where objects may be."""

from rcnn_keras.proposals.objectness import Objectness, objectness_windows
from rcnn_keras.proposals.windows import sample_windows

__all__ = ["Objectness", "objectness_windows", "sample_windows"]
