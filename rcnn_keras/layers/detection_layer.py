"""From the second stage's outputs to detections."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import clip_boxes, decode_boxes, grouped_nms, take_rows, valid_boxes
from rcnn_keras.ops.types import Kernels, Tensor

MIN_SIZE = 1e-2  # pixels; torchvision's smallest detection
# Scores that portable kernels sort at the most, see `ops.nms`. Some hundred pass a threshold of
# 0.05 in a usual image; all 90,000 of COCO's classes would take OpenVINO five times as long as the
# whole network.
MAX_CANDIDATES, CANDIDATES_PER_DETECTION = 2048, 8


@keras.saving.register_keras_serializable(package="rcnn_keras")
class DetectionLayer(keras.layers.Layer):
    """Decode every class's box, drop the unlikely, and thin out class by class.

    Args:
        score_threshold: detections must score more than this, 0..1.
        nms_thresh: IoU above which a weaker detection of the same class is dropped.
        max_detections: D.
        box_weights: factors of the deltas.
        margins: whether the logits are margins of one classifier a class, whose scores are their
            sigmoid; otherwise they are those of one softmax.
        kernels: of NMS, `"native"` or `"portable"`, see `ops.nms`.

    Call arguments:
        logits: `(B, R, K + 1)`, background first; `(B, R, K)` with `margins`.
        deltas: `(B, R, K, 4)`, or `(B, R, 1, 4)` where all classes share a box.
        rois: `(B, R, 4)` boxes in pixels.
        num_rois: `(B,)` how many of them are real.
        image_sizes: `(B, 2)` int32.

    Returns:
        `{"boxes" (B, D, 4), "scores" (B, D), "labels" (B, D), "num_detections" (B,)}`, best score
        first; padding has label -1 and zeros.
    """

    def __init__(
        self,
        score_threshold: float = 0.05,
        nms_thresh: float = 0.5,
        max_detections: int = 100,
        box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        margins: bool = False,
        kernels: Kernels = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.score_threshold = score_threshold
        self.nms_thresh = nms_thresh
        self.max_detections = max_detections
        self.box_weights = tuple(box_weights)
        self.margins = margins
        self.kernels = kernels

    def call(
        self, logits: Tensor, deltas: Tensor, rois: Tensor, num_rois: Tensor, image_sizes: Tensor
    ) -> dict[str, Tensor]:
        """Return padded detections; see the class."""
        boxes, scores, classes = self.candidates(logits, deltas, rois, num_rois, image_sizes)
        index, found = self.suppress(boxes, scores, classes)
        real = ops.arange(self.max_detections)[None] < found[:, None]
        kept = take_rows(boxes, index)
        return {
            "boxes": ops.where(real[..., None], kept, 0.0),
            "scores": ops.where(real, take_rows(scores, index), 0.0),
            "labels": ops.where(real, ops.take(classes, index, axis=0), -1),
            "num_detections": found,
        }

    def candidates(
        self, logits: Tensor, deltas: Tensor, rois: Tensor, num_rois: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode and clip every class's box of every RoI: what NMS chooses from.

        Args:
            logits: as in the call, like the others.
            deltas: likewise.
            rois: likewise.
            num_rois: likewise.
            image_sizes: likewise.

        Returns:
            `boxes` `(B, R * K, 4)`, those of a RoI one after the other; `scores` `(B, R * K)`, 0
            for padding and for boxes without an area; and the `classes` `(R * K,)`, 0..K-1.
        """
        count = ops.shape(rois)[1]
        num_classes = logits.shape[2] if self.margins else logits.shape[2] - 1
        boxes = decode_boxes(deltas, rois[:, :, None], self.box_weights)
        if deltas.shape[2] < num_classes:
            boxes = ops.tile(boxes, (1, 1, num_classes, 1))
        boxes = clip_boxes(ops.reshape(boxes, (-1, count * num_classes, 4)), image_sizes)
        real = ops.arange(count)[None] < num_rois[:, None]
        scores = ops.sigmoid(logits) if self.margins else ops.softmax(logits)[..., 1:]
        scores = ops.where(real[..., None], scores, 0.0)
        scores = ops.reshape(scores, (-1, count * num_classes))
        scores = ops.where(valid_boxes(boxes, MIN_SIZE), scores, 0.0)
        return boxes, scores, ops.tile(ops.arange(num_classes), (count,))

    def suppress(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Run NMS class by class on candidates that score enough.

        Returns:
            `indices` `(B, D)` int32 of those kept, best first, and `count` `(B,)`; see `ops.nms`.
        """
        return grouped_nms(
            boxes,
            scores,
            classes,
            self.nms_thresh,
            self.max_detections,
            score_threshold=self.least_score,
            kernels=self.kernels,
            max_candidates=max(MAX_CANDIDATES, CANDIDATES_PER_DETECTION * self.max_detections),
        )

    @property
    def least_score(self) -> float:
        """The score that a detection must exceed."""
        return max(self.score_threshold, 0.0)

    def compute_output_spec(
        self, logits: Tensor, deltas: Tensor, rois: Tensor, num_rois: Tensor, image_sizes: Tensor
    ) -> dict[str, keras.KerasTensor]:
        """D detections an image."""
        shape = (rois.shape[0], self.max_detections)
        return {
            "boxes": keras.KerasTensor((*shape, 4), "float32"),
            "scores": keras.KerasTensor(shape, "float32"),
            "labels": keras.KerasTensor(shape, "int32"),
            "num_detections": keras.KerasTensor(shape[:1], "int32"),
        }

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "score_threshold": self.score_threshold,
            "nms_thresh": self.nms_thresh,
            "max_detections": self.max_detections,
            "box_weights": self.box_weights,
            "margins": self.margins,
            "kernels": self.kernels,
        }
