"""What is taken for what: a confusion matrix with a background row and column."""

from os import PathLike

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation.matching import Found, Kind, check_thresholds, paired
from rcnn_keras.evaluation.report.plots import LIGHT, Theme, plot_confusion

BACKGROUND = "background"


class ConfusionMatrix:
    """Counts of objects by their class and the class under which they were found.

    Whatever their classes, the best detection comes first and takes the free object that it
    overlaps most, if by `iou` or more (of two overlapped alike, the one of its own class). An
    object that none takes was taken for background, its row's last column; a detection that
    takes none found background, the last row. Detections on crowd regions and difficult objects,
    of whatever class, are left out, as are those objects.

    Args:
        dataset: images and ground truth; K classes.
        detections: for each image id what was found there, or the rows of `coco_results`.
        iou: threshold in 0..1, above 0.
        min_score: detections below it are left out, in 0..1.
        kind: `"box"` or `"mask"`, what overlaps.

    Attributes:
        counts: `(K + 1, K + 1)` int64; row: the true class, column: the class found. The corner
            of background and background is 0.
        names: the K + 1 names, the last one `background`.

    Raises:
        ValueError: for thresholds out of range, and as `paired`.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: Found,
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
        for pairs in paired(dataset, detections, kind=kind, min_score=min_score):
            wanted = np.broadcast_to(pairs.wanted, pairs.overlaps.shape)
            taken = pairs.taken(wanted, iou)  # -1, the last one, is background
            truth = np.append(pairs.record.labels, background)
            counted = (taken >= 0) | (pairs.best(~wanted)[0] < iou)
            np.add.at(self.counts, (truth[taken[counted]], pairs.labels[counted]), 1)
            missed = np.setdiff1d(np.flatnonzero(pairs.wanted), taken)
            np.add.at(self.counts[:, background], truth[missed], 1)

    def table(self) -> dict[str, dict[str, int]]:
        """Return for each true class, and for background, how often each class was found."""
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
