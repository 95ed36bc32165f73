"""Which anchors the RPN trains on, and what it should say of them (Faster R-CNN, 3.1.2)."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import encode_boxes, inside_image, iou, match, sample, stateless_uniform
from rcnn_keras.ops.matching import IGNORED, real_boxes
from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class AnchorSampler(keras.layers.Layer):
    """Match anchors to ground truth and draw S of them an image, at most half positive.

    Crowd boxes are no ground truth here: anchors on them are matched to the other boxes alone.

    Args:
        fg_iou_thresh: anchors from this IoU up are positive, as is the best of each box.
        bg_iou_thresh: anchors below this IoU with every box are negative.
        batch_size_per_image: S, anchors drawn an image.
        positive_fraction: largest share of positives.
        ignore_border: leave out anchors that cross the image's border, as the paper does.
        seed: of the random draw.

    Call arguments:
        anchors: `(A, 4)` boxes in pixels.
        targets: `{"boxes" (B, N, 4), "labels" (B, N), "crowd" (B, N)}`.
        image_sizes: `(B, 2)` int32.
        image_ids: `(B,)` integers.
        step: integer scalar; with seed and image id it decides the draw.

    Returns:
        `indices` `(B, S)`, `match_labels` `(B, S)` (1 positive, 0 negative, -1 padding) and target
        `deltas` `(B, S, 4)`.
    """

    def __init__(
        self,
        fg_iou_thresh: float = 0.7,
        bg_iou_thresh: float = 0.3,
        batch_size_per_image: int = 256,
        positive_fraction: float = 0.5,
        ignore_border: bool = False,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.fg_iou_thresh = fg_iou_thresh
        self.bg_iou_thresh = bg_iou_thresh
        self.batch_size_per_image = batch_size_per_image
        self.positive_fraction = positive_fraction
        self.ignore_border = ignore_border
        self.seed = seed

    def call(
        self,
        anchors: Tensor,
        targets: Mapping[str, Tensor],
        image_sizes: Tensor,
        image_ids: Tensor,
        step: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Match and sample; see the class."""
        gt_boxes, _ = real_boxes(targets)
        matches, match_labels = self.match(anchors, targets, image_sizes)
        priorities = stateless_uniform(self.seed, image_ids, step, ops.shape(anchors)[0])
        indices, match_labels = sample(
            match_labels, priorities, self.batch_size_per_image, self.positive_fraction
        )
        matched = ops.take_along_axis(matches, indices, axis=1)
        boxes = ops.take_along_axis(gt_boxes, matched[..., None], axis=1)
        deltas = encode_boxes(boxes, ops.take(anchors, indices, axis=0))
        return indices, match_labels, deltas

    def match(
        self, anchors: Tensor, targets: Mapping[str, Tensor], image_sizes: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Match every anchor to the ground truth: what the draw is made from.

        Args:
            anchors: as in the call, like the others.
            targets: likewise.
            image_sizes: likewise.

        Returns:
            `matches` `(B, A)` int32, the ground-truth box of each anchor, and `match_labels`
            `(B, A)`, see `ops.matching.match`.
        """
        gt_boxes, gt_valid = real_boxes(targets)
        if self.ignore_border:  # the best anchor of a box is sought among those inside
            inside = inside_image(anchors[None], image_sizes)

        def iou_with(n: int | Tensor) -> Tensor:
            overlap = iou(ops.take(gt_boxes, n, axis=1)[:, None], anchors[None])[:, 0]
            return ops.where(inside, overlap, 0.0) if self.ignore_border else overlap

        matches, match_labels = match(
            iou_with,
            gt_valid,
            self.fg_iou_thresh,
            self.bg_iou_thresh,
            allow_low_quality_matches=True,
        )
        if self.ignore_border:
            match_labels = ops.where(inside, match_labels, IGNORED)
        return matches, match_labels

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "fg_iou_thresh": self.fg_iou_thresh,
            "bg_iou_thresh": self.bg_iou_thresh,
            "batch_size_per_image": self.batch_size_per_image,
            "positive_fraction": self.positive_fraction,
            "ignore_border": self.ignore_border,
            "seed": self.seed,
        }
