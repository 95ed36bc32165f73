"""What keeps a dataset's scores from saying how good a detector is, before it is scored."""

import warnings
import weakref

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.models import Detector

# What was said of which dataset: a training comes back to its validation data every epoch.
_said: weakref.WeakKeyDictionary[DetectionDataset, set[str]] = weakref.WeakKeyDictionary()


def warn_unscorable(model: Detector, dataset: DetectionDataset, name: str = "") -> None:
    """Warn, once for each dataset, that not all its objects can be found, or that it has none.

    Args:
        model: the detector, which gives so many detections for an image at most.
        dataset: images with ground truth.
        name: of the dataset, by default its own.

    Warns:
        UserWarning: images with more objects than that, or no object but crowd regions.
    """
    most = model.detection_layer.max_detections
    counts = np.array([np.count_nonzero(~record.crowd) for record in dataset])
    name = name or dataset.name or "the dataset"
    if not counts.any():
        _say(dataset, f"{name}: no image has an object to find, so scores are NaN")
    elif counts.max() > most:
        over, worst = np.count_nonzero(counts > most), int(counts.argmax())
        _say(
            dataset,
            f"{name}: {over} image{'s have' if over > 1 else ' has'} more objects than the {most} "
            f"detections that the model keeps for an image (box_detections_per_img), the most are "
            f"{counts[worst]} in {dataset[worst].path}: they cannot all be found",
        )


def _say(dataset: DetectionDataset, text: str) -> None:
    said = _said.setdefault(dataset, set())
    kind = text.partition(": ")[2]
    if kind not in said:
        said.add(kind)
        warnings.warn(text, stacklevel=4)
