"""Proposals from all levels of a pyramid together, as matterport/Mask_RCNN finds them."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.layers.proposal_layer import ProposalLayer
from rcnn_keras.ops import clip_to_windows, decode_inclusive, nms, take_rows, to_inclusive, top_k
from rcnn_keras.ops.inclusive_boxes import END
from rcnn_keras.ops.types import Kernels, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class JointProposalLayer(ProposalLayer):
    """Keep the best anchors of all levels together, move them, and thin them out by one NMS.

    Boxes of any size and growth are kept, and what clipping leaves of them may be a single pixel
    wide. Overlaps are those of boxes that end at the last pixel inside.

    Args:
        pre_nms_top_n: anchors of all levels kept before NMS, while training and at inference.
        post_nms_top_n: as in `ProposalLayer`.
        nms_thresh: IoU above which a weaker proposal of any level is dropped.
        box_weights: factors of the deltas.
        kernels: as in `ProposalLayer`.

    Call arguments and return value are those of `ProposalLayer`, with the canvases' sizes as
    `image_sizes`. Padding is the first pixel.
    """

    def __init__(
        self,
        pre_nms_top_n: Sequence[int] = (6000, 6000),
        post_nms_top_n: Sequence[int] = (2000, 1000),
        nms_thresh: float = 0.7,
        box_weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
        kernels: Kernels = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(pre_nms_top_n, post_nms_top_n, nms_thresh, kernels=kernels, **kwargs)
        self.box_weights = tuple(box_weights)

    def call(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return proposals; see the class."""
        boxes, count = super().call(logits, deltas, anchors, image_sizes, training)
        real = ops.arange(ops.shape(boxes)[1])[None] < count[:, None]
        return ops.where(real[..., None], boxes, ops.array(END, "float32")), count

    def candidates(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Move and clip the best anchors: what NMS chooses from.

        Args:
            logits: as in the call, like the others.
            deltas: likewise.
            anchors: likewise.
            image_sizes: likewise.
            training: which of the two numbers of anchors is kept.

        Returns:
            `boxes` `(B, n, 4)`; `scores` `(B, n)`, the probability of an object; `levels` `(n,)`,
            all 0, as levels compete; and `indices` `(B, n)`, each one's anchor among all.
        """
        logit = ops.stop_gradient(ops.concatenate(logits, axis=1))
        delta = ops.stop_gradient(ops.concatenate(deltas, axis=1))
        anchor = ops.concatenate(anchors, axis=0)
        # Not the sigmoid: the softmax of two, so that scores are equal where the original's are.
        exponential = ops.exp(-ops.abs(logit))
        scores = ops.where(logit > 0, 1.0, exponential) / (1.0 + exponential)
        count = ops.minimum(self.pre_nms_top_n[0 if training else 1], ops.shape(scores)[1])
        scores, index = top_k(scores, count, self.kernels)
        boxes = decode_inclusive(
            take_rows(delta, index), ops.take(anchor, index, axis=0), self.box_weights
        )
        whole = ops.cast(ops.flip(image_sizes, axis=1), "float32")
        boxes = clip_to_windows(boxes, ops.concatenate([ops.zeros_like(whole), whole], axis=1))
        return boxes, scores, ops.zeros((count,), "int32"), index

    def suppress(
        self, boxes: Tensor, scores: Tensor, levels: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run one NMS on the candidates of all levels; returns what `ProposalLayer` does."""
        most = self.post_nms_top_n[0 if training else 1]
        return nms(to_inclusive(boxes), scores, self.nms_thresh, most, kernels=self.kernels)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = super().get_config() | {"box_weights": self.box_weights}
        return {name: value for name, value in config.items() if name != "score_threshold"}
