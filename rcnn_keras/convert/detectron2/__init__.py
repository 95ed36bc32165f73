"""Weights of Detectron2's detectors and of its zoo, converted to this package's models.

What a file says of itself, by the names and shapes of its tensors, decides the architecture; the
rest, such as image sizes and thresholds, comes from a configuration. Detectron2 counts the
background last, orders anchors by size first, and reads images as blue, green, red; the converted
weights have this package's orders, and the model takes RGB like all others.
"""

from rcnn_keras.convert.detectron2.loading import load, load_backbone, read_weights, zoo_arguments
from rcnn_keras.convert.detectron2.zoo import ZOO

__all__ = ["ZOO", "load", "load_backbone", "read_weights", "zoo_arguments"]
