"""Object keypoint similarity (OKS), which COCO scores keypoints by as boxes by IoU.

d detections, n objects, P keypoints.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.keypoints import NOT_LABELLED, num_labelled

# pycocotools' for COCO's 17 keypoints: how far annotators differ, over the root of the area.
_SIDED = (0.025, 0.035, 0.079, 0.072, 0.062, 0.107, 0.087, 0.089)
COCO_SIGMAS = (0.026, *(sigma for sigma in _SIDED for _ in ("left", "right")))
DEFAULT_SIGMA = 0.05  # of other keypoints: between a person's eyes and ankles


def keypoint_sigmas(count: int, sigmas: Iterable[float] | None = None) -> np.ndarray:
    """Return the P standard deviations of OKS as float64.

    Args:
        count: P.
        sigmas: P numbers above 0; default pycocotools' for 17 keypoints, those of COCO's persons,
            and 0.05 for each of another number.

    Raises:
        ValueError: for another number of them, or numbers that are not above 0.
    """
    if sigmas is None:
        sigmas = COCO_SIGMAS if count == len(COCO_SIGMAS) else [DEFAULT_SIGMA] * count
    found = np.asarray(list(sigmas), np.float64)
    if found.shape != (count,) or not (np.isfinite(found) & (found > 0)).all():
        raise ValueError(
            f"keypoint_sigmas must be {count} numbers above 0, one a keypoint, not {list(found)}"
        )
    return found


def keypoint_similarity(
    detections: np.ndarray,
    objects: np.ndarray,
    boxes: np.ndarray,
    areas: np.ndarray,
    sigmas: Sequence[float] | np.ndarray | None = None,
) -> np.ndarray:
    """Return the OKS of every pair of a detection and an object, as pycocotools computes it.

    The mean over an object's labelled keypoints of `exp(-distance^2 / (2 area (2 sigma)^2))`. For
    an object without any, distances are those from its box, twice enlarged.

    Args:
        detections: `(d, P, 2)` or `(d, P, 3)` x and y in pixels; more is not read.
        objects: `(n, P, 3)` x, y and visibility.
        boxes: `(n, 4)` of the objects, `xyxy` in pixels.
        areas: `(n,)` of the objects, in square pixels.
        sigmas: see `keypoint_sigmas`.

    Returns:
        `(d, n)` float64 in 0..1.
    """
    variances = (2 * keypoint_sigmas(objects.shape[1], sigmas)) ** 2
    similarity = np.zeros((len(detections), len(objects)))
    found = np.asarray(detections, np.float64)[..., :2]
    for k, (keypoints, box) in enumerate(
        zip(np.asarray(objects, np.float64), np.asarray(boxes, np.float64), strict=True)
    ):
        labelled = keypoints[:, 2] > NOT_LABELLED
        if labelled.any():
            apart = found - keypoints[:, :2]
        else:
            labelled[:] = True
            side = box[2:] - box[:2]
            low, high = box[:2] - side, box[2:] + side
            apart = np.maximum(0, low - found) + np.maximum(0, found - high)
        squares = apart[..., 0] ** 2 + apart[..., 1] ** 2
        exponents = squares / variances / (areas[k] + np.spacing(1)) / 2
        similarity[:, k] = np.exp(-exponents[:, labelled]).sum(axis=1) / labelled.sum()
    return similarity


def check_keypoints_there(dataset: DetectionDataset) -> None:
    """Raise ValueError if no object of a dataset has a labelled keypoint."""
    if not any(r.keypoints is not None and num_labelled(r.keypoints).any() for r in dataset):
        raise ValueError(
            f"{dataset.name or 'the dataset'}: no object has a labelled keypoint, so keypoints "
            f"cannot be scored"
        )
