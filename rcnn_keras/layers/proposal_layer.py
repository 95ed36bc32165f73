"""From the RPN's maps to proposals (Faster R-CNN, 3.3)."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import clip_boxes, decode_boxes, grouped_nms, take_rows, top_k, valid_boxes
from rcnn_keras.ops.types import Kernels, Tensor

MIN_SIZE = 1e-3  # pixels; torchvision's smallest proposal
MIN_LOGIT = -1e30  # below every logit, and above -inf


@keras.saving.register_keras_serializable(package="rcnn_keras")
class ProposalLayer(keras.layers.Layer):
    """Keep the best anchors of each level, move them, and thin them out by NMS level by level.

    Args:
        pre_nms_top_n: anchors kept a level before NMS, while training and at inference.
        post_nms_top_n: R, proposals an image after NMS, while training and at inference.
        nms_thresh: IoU above which a weaker proposal of the same level is dropped.
        score_threshold: proposals are dropped whose objectness is less, 0..1.
        kernels: of NMS and `top_k`, `"native"` or `"portable"`, see `ops.nms`.

    Call arguments:
        logits: list of `(B, A_l)`.
        deltas: list of `(B, A_l, 4)`.
        anchors: list of `(A_l, 4)`.
        image_sizes: `(B, 2)` int32.

    Returns:
        `proposals` `(B, R, 4)` clipped boxes, best first, padded with zeros, and `num_proposals`
        `(B,)` int32. No gradient flows through them.
    """

    def __init__(
        self,
        pre_nms_top_n: Sequence[int] = (2000, 1000),
        post_nms_top_n: Sequence[int] = (2000, 1000),
        nms_thresh: float = 0.7,
        score_threshold: float = 0.0,
        kernels: Kernels = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.pre_nms_top_n = tuple(pre_nms_top_n)
        self.post_nms_top_n = tuple(post_nms_top_n)
        self.nms_thresh = nms_thresh
        self.score_threshold = score_threshold
        self.kernels = kernels

    def call(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return proposals; see the class."""
        boxes, scores, levels, _ = self.candidates(logits, deltas, anchors, image_sizes, training)
        index, count = self.suppress(boxes, scores, levels, training)
        kept = take_rows(boxes, index)
        real = ops.arange(ops.shape(index)[1])[None] < count[:, None]
        return ops.where(real[..., None], kept, 0.0), count

    def candidates(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Move and clip the best anchors of each level: what NMS chooses from.

        Args:
            logits: as in the call, like the others.
            deltas: likewise.
            anchors: likewise.
            image_sizes: likewise.
            training: which of the two numbers of anchors is kept.

        Returns:
            `boxes` `(B, n, 4)`; `scores` `(B, n)`, logits, and -inf for those to be dropped;
            `levels` `(n,)` int32; and `indices` `(B, n)` int32, the place of each one's anchor in
            its level.
        """
        pre = self.pre_nms_top_n[0 if training else 1]
        boxes, scores, levels, indices = [], [], [], []
        for level, (logit, delta, anchor) in enumerate(zip(logits, deltas, anchors, strict=True)):
            count = ops.minimum(pre, ops.shape(logit)[1])
            score, index = top_k(ops.stop_gradient(logit), count, self.kernels)
            delta = take_rows(ops.stop_gradient(delta), index)
            boxes.append(decode_boxes(delta, ops.take(anchor, index, axis=0)))
            scores.append(score)
            levels.append(ops.full((count,), level, dtype="int32"))
            indices.append(index)
        boxes = clip_boxes(ops.concatenate(boxes, axis=1), image_sizes)
        scores = ops.concatenate(scores, axis=1)
        kept = valid_boxes(boxes, MIN_SIZE)
        if self.score_threshold > 0:
            kept = ops.logical_and(kept, ops.sigmoid(scores) >= self.score_threshold)
        scores = ops.where(kept, scores, float("-inf"))
        return boxes, scores, ops.concatenate(levels), ops.concatenate(indices, axis=1)

    def suppress(
        self, boxes: Tensor, scores: Tensor, levels: Tensor, training: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run NMS level by level on candidates.

        Returns:
            `indices` `(B, R)` int32 of those kept, best first, and `count` `(B,)`; see `ops.nms`.
        """
        most = self.post_nms_top_n[0 if training else 1]
        return grouped_nms(boxes, scores, levels, self.nms_thresh, most, MIN_LOGIT, self.kernels)

    def compute_output_spec(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        anchors: Sequence[Tensor],
        image_sizes: Tensor,
        training: bool = False,
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """R is `post_nms_top_n`."""
        batch, post = logits[0].shape[0], self.post_nms_top_n[0 if training else 1]
        return keras.KerasTensor((batch, post, 4), "float32"), keras.KerasTensor((batch,), "int32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "pre_nms_top_n": self.pre_nms_top_n,
            "post_nms_top_n": self.post_nms_top_n,
            "nms_thresh": self.nms_thresh,
            "score_threshold": self.score_threshold,
            "kernels": self.kernels,
        }
