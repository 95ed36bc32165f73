"""The R-CNN family of object detectors as Keras 3 models on TensorFlow."""

import sys
from pathlib import Path

__version__ = "0.1.0"

# Keras finds the classes of a saved model once they are imported. The command `rcnn` imports what
# it needs by itself: its help and its errors should not wait seconds for TensorFlow.
if Path(sys.argv[0]).stem != "rcnn":
    from rcnn_keras import data, evaluation, models, visualize
    from rcnn_keras.data.detections import Detections
    from rcnn_keras.training import callbacks, schedules

    __all__ = [
        "Detections",
        "callbacks",
        "data",
        "evaluation",
        "models",
        "schedules",
        "visualize",
    ]
