"""COCO's precision at recall, from what was kept of each image.

D detections and G objects of all images, K classes, A area ranges, T IoU thresholds, R recalls; d
detections of an image and p pairs of one and an object.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from pycocotools import mask as run_length

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.records import Record
from rcnn_keras.evaluation.coco_matching import (
    AREAS,
    RIGHT,
    THRESHOLDS,
    WRONG,
    match,
    outside_areas,
)
from rcnn_keras.evaluation.overlaps import object_masks

RECALLS = np.linspace(0, 1, 101)


class ImageOverlaps(NamedTuple):
    """What decides the scores of one image's detections, class by class, the best score first.

    Attributes:
        scores: `(d,)` float64.
        labels: `(d,)` int, rising.
        areas: `(d,)` float64 in square pixels.
        detections: `(p,)` int in 0..d-1, of each pair of one class that overlaps by 0.5 or more.
        objects: `(p,)` int, the object's place in the record.
        overlaps: `(p,)` float64 IoU.
    """

    scores: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    detections: np.ndarray
    objects: np.ndarray
    overlaps: np.ndarray


@dataclass(frozen=True)
class GroundTruth:
    """The objects of a dataset, end to end.

    Attributes:
        classes: K.
        firsts: for each image where its objects begin, and G at the end.
        labels: `(G,)` int.
        crowd: `(G,)` bool.
        ignored: `(G, A)` bool, crowds and objects outside of an area range.
    """

    classes: int
    firsts: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray

    @staticmethod
    def of(dataset: DetectionDataset, kind: str) -> "GroundTruth":
        """Return the objects of a dataset; for `kind` "segm" sizes are those of masks."""
        firsts = np.cumsum([0, *(len(record) for record in dataset)])
        crowd = _end_to_end([record.crowd for record in dataset], bool)
        outside = outside_areas(_end_to_end([_areas(record, kind) for record in dataset], float))
        labels = _end_to_end([record.labels for record in dataset], np.int64)
        return GroundTruth(len(dataset.classes), firsts, labels, crowd, crowd[:, None] | outside)


def coco_curves(
    images: Sequence[ImageOverlaps], places: Sequence[int], truth: GroundTruth
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall of all classes.

    Args:
        images: those with detections, by rising image id, which is COCO's order of equal scores.
        places: of each of them in the dataset.
        truth: the objects of all images.

    Returns:
        `(T, R, K, A)` float64 precision and `(T, K, A)` recall; see `precision_at_recall`.
    """
    scores = _end_to_end([image.scores for image in images], float)
    labels = _end_to_end([image.labels for image in images], np.int64)
    ignored = outside_areas(_end_to_end([image.areas for image in images], float))
    before = np.cumsum([0, *(len(image.scores) for image in images)])
    found, outcomes = match(
        _end_to_end([i.detections + n for i, n in zip(images, before[:-1], strict=True)], np.int64),
        _end_to_end(
            [i.objects + truth.firsts[n] for i, n in zip(images, places, strict=True)], int
        ),
        _end_to_end([image.overlaps for image in images], float),
        np.repeat(np.arange(len(truth.firsts) - 1), np.diff(truth.firsts)) * truth.classes
        + truth.labels,
        truth.crowd,
        truth.ignored,
    )
    row = np.full(len(scores), -1)
    row[found] = np.arange(len(found))
    order = np.lexsort((-scores, labels))
    ends = np.searchsorted(labels[order], np.arange(truth.classes + 1))
    curves = []
    for k, (begin, end) in enumerate(pairwise(ends)):
        of_class = order[begin:end]
        known = row[of_class] >= 0
        of_each = np.full((len(of_class), *outcomes.shape[1:]), WRONG, np.int8)
        of_each[known] = outcomes[row[of_class[known]]]
        positives = (~truth.ignored[truth.labels == k]).sum(axis=0)
        curves.append(precision_at_recall(of_each, ignored[of_class], positives))
    precision, recall = zip(*curves, strict=True)
    return np.stack(precision, axis=2), np.stack(recall, axis=1)


def precision_at_recall(
    outcomes: np.ndarray, ignored: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interpolated precision and the recall of one class.

    Args:
        outcomes: `(D, A, T)` int8 as `match` gives them, best score first.
        ignored: `(D, A)` bool, detections that are ignored where they are wrong.
        positives: `(A,)` int, how many objects are to be found.

    Returns:
        `(T, R, A)` float64 precision in 0..1, the best at this recall or a higher one, and
        `(T, A)` recall in 0..1; -1 where there is nothing to be found.
    """
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(AREAS)), -1.0)
    recall = np.full((len(THRESHOLDS), len(AREAS)), -1.0)
    for a in np.flatnonzero(positives):
        outcome = outcomes[:, a]
        counted = (outcome == RIGHT) | ((outcome == WRONG) & ~ignored[:, a, None])
        number = np.cumsum(counted, axis=0, dtype=np.int32)
        for t in range(len(THRESHOLDS)):
            # Between two hits precision only falls, so the hits tell all.
            hits = np.flatnonzero(outcome[:, t] == RIGHT)
            rank = np.arange(1, len(hits) + 1)
            best = np.maximum.accumulate((rank / (number[hits, t] + np.spacing(1)))[::-1])[::-1]
            reached = np.searchsorted(rank / positives[a], RECALLS)
            precision[t, :, a] = np.append(best, 0.0)[reached]
            recall[t, a] = len(hits) / positives[a]
    return precision, recall


def _areas(record: Record, kind: str) -> np.ndarray:
    """Return the objects' sizes in square pixels: as stated by the file, else their own."""
    if record.areas is not None:
        return record.areas
    if kind == "segm":
        return np.asarray(run_length.area(object_masks(record)), np.float64)
    x1, y1, x2, y2 = record.boxes.astype(np.float64).T
    return (x2 - x1) * (y2 - y1)


def _end_to_end(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)
