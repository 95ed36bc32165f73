"""Warnings of datasets whose objects a detector cannot all find."""

import warnings
import weakref
from typing import TYPE_CHECKING

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset

if TYPE_CHECKING:
    from rcnn_keras.models.detector import Detector

# The warnings that were given of each dataset: a training returns to its data every epoch.
_given: weakref.WeakKeyDictionary[DetectionDataset, set[str]] = weakref.WeakKeyDictionary()


def warn_unscorable(model: "Detector", dataset: DetectionDataset, name: str = "") -> None:
    """Warn, once for each dataset, that not all its objects can be found, or that it has none.

    Args:
        model: the detector, which gives so many detections for an image at most.
        dataset: images with ground truth.
        name: of the dataset, by default its own.

    Warns:
        UserWarning: images with more objects than that, or no object but crowd regions.
    """
    if has_objects(dataset):
        problem = _too_many_objects(model, dataset)
    else:
        problem = "no image has an object to find, so scores are NaN"
    _warn_once(dataset, problem, name)


def warn_unlearnable(model: "Detector", dataset: DetectionDataset) -> None:
    """Warn, once for each dataset, that nothing in it, or not all, can be learned or found.

    Warns:
        UserWarning: no object but crowd regions, or images with more objects than the model has
            detections.
    """
    if _object_counts(dataset).any():
        problem = _too_many_objects(model, dataset)
    else:
        crowds = sum(len(record) for record in dataset)
        but = f" other than crowd regions or difficult ones ({crowds})" if crowds else ""
        problem = f"no image has an object{but}, so nothing but background is learned"
    _warn_once(dataset, problem)


def has_objects(dataset: DetectionDataset) -> bool:
    """Return whether any image has an object to find, other than crowd regions."""
    return bool(_object_counts(dataset).any())


def _object_counts(dataset: DetectionDataset) -> np.ndarray:
    return np.array([np.count_nonzero(~record.crowd) for record in dataset], np.int64)


def _too_many_objects(model: "Detector", dataset: DetectionDataset) -> str | None:
    limit = model.detection_layer.max_detections
    counts = _object_counts(dataset)
    if counts.max(initial=0) <= limit:
        return None
    number, largest = np.count_nonzero(counts > limit), int(counts.argmax())
    return (
        f"{number} image{'s have' if number > 1 else ' has'} more objects than the {limit} "
        f"detections that the model keeps for an image (box_detections_per_img), the most are "
        f"{counts[largest]} in {dataset[largest].path}: they cannot all be found"
    )


def _warn_once(dataset: DetectionDataset, problem: str | None, name: str = "") -> None:
    given = _given.setdefault(dataset, set())
    if problem is not None and problem not in given:
        given.add(problem)
        warnings.warn(f"{name or dataset.name or 'the dataset'}: {problem}", stacklevel=4)
