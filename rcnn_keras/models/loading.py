"""Detectors from the files that they were saved to."""

from os import PathLike

import keras

from rcnn_keras.models.detector import Detector


def load_detector(path: str | PathLike) -> Detector:
    """Load a detector for inference; ValueError if the file holds something else."""
    model = keras.models.load_model(path, compile=False)
    if not isinstance(model, Detector):
        raise ValueError(f"{path} holds a {type(model).__name__}, not a detector of this package")
    return model
