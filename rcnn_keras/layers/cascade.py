"""What Cascade R-CNN has between its box heads (Cai and Vasconcelos 2018).

B images, R RoIs an image, N ground-truth boxes, K classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import area, clip_boxes, decode_boxes, encode_boxes, iou, match
from rcnn_keras.ops.matching import IGNORED, POSITIVE, real_boxes
from rcnn_keras.ops.types import Tensor

SMALLEST = 1e-30  # probability whose logarithm is taken; float32 holds some less


@keras.saving.register_keras_serializable(package="rcnn_keras")
class BoxRefinement(keras.layers.Layer):
    """Move RoIs by class-agnostic deltas, and clip them: what the next stage pools from.

    No gradient flows into a box.

    Args:
        box_weights: factors of the deltas.

    Call arguments:
        deltas: `(B, R, 1, 4)`.
        rois: `(B, R, 4)` boxes in pixels.
        image_sizes: `(B, 2)` int32.

    Returns:
        `(B, R, 4)` boxes in pixels; a RoI of no size, which padding is, stays one.
    """

    def __init__(
        self, box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0), **kwargs: Any
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.box_weights = tuple(box_weights)

    def call(self, deltas: Tensor, rois: Tensor, image_sizes: Tensor) -> Tensor:
        """Move and clip; see the class."""
        boxes = decode_boxes(deltas[:, :, 0], rois, self.box_weights)
        return ops.stop_gradient(clip_boxes(boxes, image_sizes))

    def compute_output_spec(
        self, deltas: Tensor, rois: Tensor, image_sizes: Tensor
    ) -> keras.KerasTensor:
        """As many boxes as RoIs."""
        return keras.KerasTensor(rois.shape, "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"box_weights": self.box_weights}


@keras.saving.register_keras_serializable(package="rcnn_keras")
class MeanLogits(keras.layers.Layer):
    """Return logits whose softmax is the mean of the softmaxes of several stages.

    Call arguments:
        logits: a list of `(B, R, K + 1)`, one a stage.

    Returns:
        `(B, R, K + 1)` float32, the logarithms of the mean probabilities.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)

    def call(self, logits: Sequence[Tensor]) -> Tensor:
        """Average; see the class."""
        mean = sum(ops.softmax(each) for each in logits) / len(logits)
        return ops.log(ops.maximum(mean, SMALLEST))

    def compute_output_spec(self, logits: Sequence[Tensor]) -> keras.KerasTensor:
        """As each of the stages."""
        return keras.KerasTensor(logits[0].shape, "float32")


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RoIMatcher(keras.layers.Layer):
    """Label RoIs for a later stage: by the ground truth that each overlaps most, and all of them.

    Args:
        fg_iou_thresh: RoIs from this IoU up are foreground, all others background.
        box_weights: factors of the target deltas.

    Call arguments:
        rois: `(B, R, 4)` boxes in pixels.
        real: `(B, R)` bool, which of them are no padding.
        targets: `{"boxes" (B, N, 4), "labels" (B, N), "crowd" (B, N)}`.

    Returns:
        `classes` `(B, R)` int32 in 0..K with 0 the background and -1 for padding and for boxes
        without an area, which are not trained on; target `deltas` `(B, R, 4)`; and `matches`
        `(B, R)`, the ground-truth box of each RoI.
    """

    def __init__(
        self,
        fg_iou_thresh: float = 0.5,
        box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.fg_iou_thresh = fg_iou_thresh
        self.box_weights = tuple(box_weights)

    def call(
        self, rois: Tensor, real: Tensor, targets: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Match; see the class."""
        gt_boxes, gt_valid = real_boxes(targets)

        def iou_with(n: int | Tensor) -> Tensor:
            return iou(ops.take(gt_boxes, n, axis=1)[:, None], rois)[:, 0]

        matches, match_labels = match(iou_with, gt_valid, self.fg_iou_thresh, self.fg_iou_thresh)
        labels = ops.take_along_axis(ops.cast(targets["labels"], "int32"), matches, axis=1)
        classes = ops.where(match_labels == POSITIVE, labels + 1, match_labels)
        trained = ops.logical_and(real, area(rois) > 0)
        boxes = ops.take_along_axis(gt_boxes, matches[..., None], axis=1)
        deltas = encode_boxes(boxes, rois, self.box_weights)
        return ops.where(trained, classes, IGNORED), deltas, matches

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "fg_iou_thresh": self.fg_iou_thresh,
            "box_weights": self.box_weights,
        }
