"""The windows that R-CNN learns from: an image's ground truth and its proposals.

w windows of an image, K classes.
"""

from dataclasses import dataclass

import numpy as np

from rcnn_keras.data.records import Record
from rcnn_keras.ops import encode_boxes, iou


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of one image, its ground truth first.

    Attributes:
        boxes: `(w, 4)` float32 `xyxy` in pixels.
        labels: `(w,)` int32 in 0..K-1 for ground truth, -1 for proposals.
        overlaps: `(w, K)` float32, IoU with the nearest ground truth of each class, 0 without one.
        nearest: `(w,)` int32, the row of the ground truth of greatest IoU, -1 without any.
    """

    boxes: np.ndarray
    labels: np.ndarray
    overlaps: np.ndarray
    nearest: np.ndarray

    def __len__(self) -> int:
        """Number of windows."""
        return len(self.labels)

    def classes(self, positive_iou: float) -> np.ndarray:
        """Return `(w,)` int32: 1 + the label that a window is an example of, 0 for background."""
        label = self.labels[self.nearest]  # with nothing to find there is nothing near either
        return np.where(self.best() >= positive_iou, label + 1, 0).astype(np.int32)

    def best(self) -> np.ndarray:
        """Return `(w,)` float32, the IoU with the nearest ground truth of any class."""
        return self.overlaps.max(axis=1, initial=0.0)

    def targets(self) -> np.ndarray:
        """Return `(w, 4)` float32, what turns each window into its nearest ground truth.

        These are `t_x = (G_x - P_x) / P_w`, `t_y`, `t_w = log(G_w / P_w)` and `t_h` of the paper's
        appendix C; meaningless for windows that are near to nothing.
        """
        return np.asarray(encode_boxes(self.boxes[self.nearest], self.boxes))


def image_windows(record: Record, num_classes: int) -> Windows:
    """Return the windows of a record; crowd regions and boxes without area are no ground truth.

    Raises:
        ValueError: for a record without proposals.
    """
    if record.proposals is None:
        raise ValueError(f"{record.path} has no proposals")
    sides = record.boxes[:, 2:] - record.boxes[:, :2]
    truth = ~record.crowd & np.all(sides > 0, axis=1)
    boxes, labels = record.boxes[truth], record.labels[truth]
    windows = np.concatenate([boxes, record.proposals])
    overlaps = np.zeros((len(windows), num_classes), np.float32)
    nearest = np.full(len(windows), -1, np.int32)
    if len(boxes):
        found = np.asarray(iou(windows, boxes))
        nearest = found.argmax(axis=1).astype(np.int32)
        for label in np.unique(labels):
            overlaps[:, label] = found[:, labels == label].max(axis=1)
    kinds = np.full(len(windows), -1, np.int32)
    kinds[: len(boxes)] = labels
    return Windows(windows, kinds, overlaps, nearest)
