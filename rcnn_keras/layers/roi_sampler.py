"""Which proposals the second stage trains on (Fast R-CNN, 2.3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import encode_boxes, iou, match, sample, stateless_uniform
from rcnn_keras.ops.matching import IGNORED, POSITIVE, real_boxes
from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RoISampler(keras.layers.Layer):
    """Join ground truth to the proposals, match, and draw S RoIs an image.

    Args:
        fg_iou_thresh: RoIs from this IoU up are foreground.
        bg_iou_thresh: RoIs below this IoU are background.
        batch_size_per_image: S, RoIs drawn an image.
        positive_fraction: largest share of foreground.
        box_weights: factors of the target deltas.
        seed: of the random draw.
        bg_iou_low_thresh: RoIs below this IoU are left out, background that is too easy (Fast
            R-CNN, 2.3).

    Call arguments:
        proposals: `(B, R, 4)` boxes in pixels.
        num_proposals: `(B,)` how many of them are real.
        targets: `{"boxes" (B, N, 4), "labels" (B, N), "crowd" (B, N)}`.
        image_ids: `(B,)` integers.
        step: integer scalar; with seed and image id it decides the draw.

    Returns:
        `rois` `(B, S, 4)`, `classes` `(B, S)` int32 in 0..K with 0 the background and -1 padding,
        target `deltas` `(B, S, 4)`, and `matches` `(B, S)`, the ground-truth box of each RoI.
    """

    def __init__(
        self,
        fg_iou_thresh: float = 0.5,
        bg_iou_thresh: float = 0.5,
        batch_size_per_image: int = 512,
        positive_fraction: float = 0.25,
        box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        seed: int = 0,
        bg_iou_low_thresh: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.fg_iou_thresh = fg_iou_thresh
        self.bg_iou_thresh = bg_iou_thresh
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.box_weights = tuple(box_weights)
        self.seed = seed
        self.bg_iou_low_thresh = bg_iou_low_thresh

    def call(
        self,
        proposals: Tensor,
        num_proposals: Tensor,
        targets: Mapping[str, Tensor],
        image_ids: Tensor,
        step: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Match and sample; see the class."""
        gt_boxes, _ = real_boxes(targets)
        candidates, matches, match_labels = self.match(proposals, num_proposals, targets)
        priorities = stateless_uniform(self.seed, image_ids, step, ops.shape(candidates)[1])
        indices, match_labels = sample(
            match_labels, priorities, self.batch_size_per_image, self.positive_fraction
        )

        rois = ops.take_along_axis(candidates, indices[..., None], axis=1)
        matches = ops.take_along_axis(matches, indices, axis=1)
        labels = ops.take_along_axis(ops.cast(targets["labels"], "int32"), matches, axis=1)
        boxes = ops.take_along_axis(gt_boxes, matches[..., None], axis=1)
        classes = ops.where(match_labels == POSITIVE, labels + 1, match_labels)
        return rois, classes, encode_boxes(boxes, rois, self.box_weights), matches

    def match(
        self, proposals: Tensor, num_proposals: Tensor, targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Join ground truth to the proposals and match them: what the draw is made from.

        Args:
            proposals: as in the call, like the others.
            num_proposals: likewise.
            targets: likewise.

        Returns:
            `candidates` `(B, R + N, 4)`, the proposals and then the ground truth; `matches`
            `(B, R + N)` int32, the ground-truth box of each, and `match_labels` `(B, R + N)`, see
            `ops.matching.match`.
        """
        gt_boxes, gt_valid = real_boxes(targets)
        candidates = ops.concatenate([proposals, gt_boxes], axis=1)
        place = ops.arange(ops.shape(proposals)[1], dtype="int32")[None]
        real = ops.concatenate([place < num_proposals[:, None], gt_valid], axis=1)

        def iou_with(n: int | Tensor) -> Tensor:
            return iou(ops.take(gt_boxes, n, axis=1)[:, None], candidates)[:, 0]

        thresholds = self.fg_iou_thresh, self.bg_iou_thresh
        matches, match_labels = match(
            iou_with, gt_valid, *thresholds, bg_iou_low_thresh=self.bg_iou_low_thresh
        )
        return candidates, matches, ops.where(real, match_labels, IGNORED)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "fg_iou_thresh": self.fg_iou_thresh,
            "bg_iou_thresh": self.bg_iou_thresh,
            "batch_size_per_image": self.batch_size_per_image,
            "positive_fraction": self.positive_fraction,
            "box_weights": self.box_weights,
            "seed": self.seed,
            "bg_iou_low_thresh": self.bg_iou_low_thresh,
        }
