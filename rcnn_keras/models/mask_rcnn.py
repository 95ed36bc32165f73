"""Mask R-CNN (He et al. 2017): Faster R-CNN with a mask for each detection.

B images, N ground-truth objects, D detections, n RoIs of the whole batch, M mask size, K classes.
"""

from collections.abc import Sequence
from typing import Any

import keras

from rcnn_keras.backbones import Backbone
from rcnn_keras.data.resampling import Resizing
from rcnn_keras.losses import SMOOTH_L1_BETA, Losses, mask_head_loss
from rcnn_keras.models.arguments import MASK_RCNN
from rcnn_keras.models.faster_rcnn import FasterRCNN
from rcnn_keras.models.mask_branch import MaskBranch
from rcnn_keras.models.two_stage import Sampled
from rcnn_keras.ops.types import Kernels, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class MaskRCNN(MaskBranch):
    """Mask R-CNN; the arguments are those of `FasterRCNN`, and one more.

    The mask branch runs on positive RoIs while training and on the final detections, with the boxes
    that they ended up with, at inference. After a pyramid it is four convolutions on 14x14 features
    and M = 28; the C4 detector shares the fifth stage with its box head and M = 14.

    Training targets have, beside boxes, labels and crowd, `"masks"`: `(B, N, H, W)` of 0 and 1, or
    `(B, N, H, ceil(W / 8))` uint8 with eight pixels a byte; `fit` on `Batches` sees to it.
    Detections have `"masks"` `(B, D, M, M)` in 0..1, each inside its box.

    Args:
        mask_head: a layer in place of `layers.MaskHead`. It is called with pooled features
            `(n, 14, 14, C)`, by RoIAlign whatever `roi_pooling` is for boxes, and, if its `call`
            has it, `training`; it returns logits `(n, M, M, K)`, float32.
    """

    loss_names = (*FasterRCNN.loss_names, "mask_loss")

    def __init__(
        self,
        backbone: str | keras.Model = "resnet50_fpn",
        classes: Sequence[str] = (),
        *,
        num_classes: int | None = None,
        min_size: int | tuple[int, ...] = 800,
        max_size: int = 1333,
        norm: str | None = "batch",
        backbone_width: float = 1.0,
        backbone_weights: str | None = None,
        stride_in_1x1: bool = False,
        stochastic_depth: float = 0.0,
        frozen_stages: int | None = 0,
        recompute_stages: int | None = None,
        feature_pyramid: bool | None = None,
        fpn_channels: int = 256,
        head_norm: str | None = None,
        anchor_sizes: tuple[tuple[float, ...], ...] | None = None,
        aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
        anchor_rounding: bool = True,
        anchor_generator: keras.layers.Layer | None = None,
        rpn_head: keras.layers.Layer | None = None,
        rpn_pre_nms_top_n_train: int = 2000,
        rpn_pre_nms_top_n_test: int = 1000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_score_thresh: float = 0.0,
        rpn_convs: int = 1,
        rpn_objectness: str = "sigmoid",
        rpn_ignore_border: bool | None = None,
        rpn_smooth_l1_beta: float = SMOOTH_L1_BETA,
        roi_pooling: keras.layers.Layer | None = None,
        roi_aligned: bool = False,
        roi_sampling_ratio: int = 2,
        box_head: keras.layers.Layer | None = None,
        box_units: int | None = None,
        box_convs: int = 0,
        mask_head: keras.layers.Layer | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0),
        box_smooth_l1_beta: float = SMOOTH_L1_BETA,
        image_mean: tuple[float, ...] | None = None,
        image_std: tuple[float, ...] | None = None,
        winograd: bool = False,
        antialias: bool = False,
        resizing: Resizing = "torchvision",
        size_divisor: int | None = None,
        value_range: str | float | tuple[float, float] = "full",
        kernels: Kernels = "native",
        seed: int = 0,
        name: str | None = None,
    ):
        config = {k: v for k, v in locals().items() if k not in ("self", "name", "__class__")}
        self._build(config, MASK_RCNN, name)

    def _build_more(self, parts: Backbone, config: dict[str, Any]) -> None:
        self._build_masks(parts, config)

    def select_detections(
        self, extracted: dict[str, Any], logits: Tensor, deltas: Tensor
    ) -> dict[str, Any]:
        """Detect as Faster R-CNN does, and draw each detection's mask."""
        return self.draw_masks(extracted, super().select_detections(extracted, logits, deltas))

    def roi_losses_of(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        step: Tensor,
        training: bool,
    ) -> Losses:
        """Return the losses of classes, boxes and masks, the last on positive RoIs alone."""
        losses = super().roi_losses_of(extracted, targets, sampled, step, training)
        return losses | mask_head_loss(*self.draw_sampled(extracted, targets, sampled, training))
