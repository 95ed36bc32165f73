"""Confusion matrix of a detector, with a background row and column."""

from os import PathLike

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation.matching import AnyDetections, Kind, check_thresholds, pair_detections
from rcnn_keras.evaluation.report.plots import LIGHT, Theme, plot_confusion

BACKGROUND = "background"


class ConfusionMatrix:
    """Counts of objects by their true class and the class of the detection matched to them.

    By falling score and whatever their classes, each detection is matched to the unmatched object
    that it overlaps most, if by `iou` or more (of two equal overlaps, the object of its own class).
    An object without a detection counts in its row's last column, background; a detection without
    an object counts in the last row. Detections on crowd regions and difficult objects, of whatever
    class, are left out, as are those objects.

    Args:
        dataset: images and ground truth; K classes.
        detections: the detections of each image by image id, or the rows of `coco_results`.
        iou: threshold in 0..1, above 0.
        min_score: detections below it are left out, in 0..1.
        kind: `"box"` or `"mask"`, what is compared.

    Attributes:
        counts: `(K + 1, K + 1)` int64; row: the true class, column: the predicted class. The
            entry of background and background is 0.
        names: the K + 1 names, the last one `background`.

    Raises:
        ValueError: for thresholds out of range, and as `pair_detections`.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: AnyDetections,
        *,
        iou: float = 0.5,
        min_score: float = 0.5,
        kind: Kind = "box",
    ):
        check_thresholds("ConfusionMatrix", iou=iou, min_score=min_score)
        if not iou:
            raise ValueError("ConfusionMatrix: iou must be above 0")
        self.iou, self.min_score, self.kind = iou, min_score, kind
        background = len(dataset.classes)
        self.names = (*dataset.classes, BACKGROUND)
        self.counts = np.zeros((background + 1, background + 1), np.int64)
        for pairs in pair_detections(dataset, detections, kind=kind, min_score=min_score):
            allowed = np.broadcast_to(pairs.must_be_found, pairs.overlaps.shape)
            assigned = pairs.assign(allowed, iou)  # -1, the last one, is background
            truth = np.append(pairs.record.labels, background)
            counted = (assigned >= 0) | (pairs.best_overlap(~allowed)[0] < iou)
            np.add.at(self.counts, (truth[assigned[counted]], pairs.labels[counted]), 1)
            missed = np.setdiff1d(np.flatnonzero(pairs.must_be_found), assigned)
            np.add.at(self.counts[:, background], truth[missed], 1)

    def table(self) -> dict[str, dict[str, int]]:
        """Return for each true class, and for background, how often each class was predicted."""
        return {
            truth: dict(zip(self.names, row, strict=True))
            for truth, row in zip(self.names, self.counts.tolist(), strict=True)
        }

    def plot(self, path: str | PathLike[str], theme: Theme = LIGHT) -> None:
        """Write the matrix as a PNG; see `plot_confusion`."""
        plot_confusion(path, self.counts, self.names, theme)

    def shares(self) -> np.ndarray:
        """Return `(K + 1, K + 1)` float64 in 0..1, each row as shares of its sum; NaN where 0."""
        total = self.counts.sum(axis=1, keepdims=True)
        return np.where(total > 0, self.counts / np.maximum(total, 1), np.nan)
