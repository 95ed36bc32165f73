"""Faster R-CNN (Ren et al. 2015), alone on one map or with a feature pyramid.

B images, A anchors, R proposals, S sampled anchors or RoIs, D detections, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.backbones import Backbone
from rcnn_keras.layers import AnchorGenerator, AnchorSampler, ProposalLayer, RPNHead
from rcnn_keras.losses import SMOOTH_L1_BETA, rpn_losses
from rcnn_keras.models.arguments import check_arguments, default_anchor_sizes
from rcnn_keras.models.two_stage import TwoStageDetector
from rcnn_keras.ops.types import Kernels


@keras.saving.register_keras_serializable(package="rcnn_keras")
class FasterRCNN(TwoStageDetector):
    """Faster R-CNN; the defaults are those of torchvision's `fasterrcnn_resnet50_fpn`.

    Args:
        backbone: `"resnet18_fpn"`, `"resnet34_fpn"`, `"resnet50_fpn"`, `"resnet101_fpn"`; without
            `_fpn` the C4 detector on one map of stride 16; `"mobilenet_v3_large_fpn"`; `"vgg16"`;
            `"zf"`, the small network of the paper.
        classes: K class names, without the background.
        min_size: length to which an image's shorter side is resized, in pixels;
            of several, each image draws one whenever it is trained on, and detection takes the
            last.
        max_size: most pixels of the longer side.
        norm: of the backbone: `"batch"` trains batch norm, `"frozen_batch"` keeps pre-trained
            statistics, `"group"` uses group norm, None has biases instead. VGG and ZF have none.
        backbone_width: factor of a ResNet's channels, as in Wide Residual Networks (Zagoruyko and
            Komodakis 2016), a multiple of 1/64, with group norm of 1/2. Published weights need 1.
        backbone_weights: None for random ones, or `"imagenet"` for those of keras.applications
            (`resnet50`, `resnet101` with `stride_in_1x1=True`, and `vgg16`).
        stride_in_1x1: stride in a bottleneck's first 1x1 convolution, as in the first ResNet paper.
        frozen_stages: how many of the backbone's first stages stand still, see `freeze_backbone`.
        recompute_stages: how many of the backbone's first stages run a second time for the gradient
            and keep no maps for it, see `freeze_backbone` for what a stage is. 2 of
            ResNet-50 save a fifth of the memory of a step.
        fpn_channels: channels of the pyramid.
        head_norm: of the convolutions of pyramid and heads, as `norm`; None in the papers,
            `"batch"` in torchvision's `_v2` models.
        anchor_sizes: for each level, square roots of the anchors' areas in pixels; default 32..512,
            one a level of a ResNet's pyramid, all on each level of MobileNet's, or 128, 256 and
            512 on a single map.
        aspect_ratios: heights over widths of the anchors.
        rpn_pre_nms_top_n_train: anchors kept a level before NMS while training.
        rpn_pre_nms_top_n_test: the same at inference.
        rpn_post_nms_top_n_train: proposals kept an image after NMS while training.
        rpn_post_nms_top_n_test: the same at inference.
        rpn_nms_thresh: IoU above which a weaker proposal is dropped.
        rpn_fg_iou_thresh: anchors from this IoU up are positive.
        rpn_bg_iou_thresh: anchors below this IoU are negative.
        rpn_batch_size_per_image: anchors sampled an image.
        rpn_positive_fraction: largest share of positives among them.
        rpn_score_thresh: proposals are dropped whose objectness is less, 0..1.
        rpn_convs: 3x3 convolutions of the RPN's head; 2 in torchvision's `_v2` models.
        rpn_objectness: `"sigmoid"` of one logit an anchor, or the paper's `"softmax"` of two.
        rpn_ignore_border: train on no anchor that crosses the border; None means on a single map
            only, as the paper does and the users of pyramids do not.
        box_units: width of the box head's dense layers; default 1024, VGG and ZF 4096.
        box_convs: 3x3 convolutions of a pyramid's box head before a single dense layer (4 in
            torchvision's `_v2` models); 0 has two dense layers.
        box_score_thresh: detections score more than this, 0..1.
        box_nms_thresh: IoU above which a weaker detection of the same class is dropped.
        box_detections_per_img: D.
        box_fg_iou_thresh: RoIs from this IoU up are foreground.
        box_bg_iou_thresh: RoIs below this IoU are background.
        box_batch_size_per_image: RoIs sampled an image.
        box_positive_fraction: largest share of foreground among them.
        bbox_reg_weights: factors of the second stage's deltas.
        box_smooth_l1_beta: where the box head's smooth L1 turns linear: 1/9 in torchvision, 1 in
            the Fast R-CNN paper.
        image_mean: RGB mean in 0..255; default that of the backbone's weights, else ImageNet's.
        image_std: RGB deviation in 0..255, likewise.
        winograd: compute the 3x3 convolutions of pyramid and RPN by Winograd's algorithm: faster on
            a CPU, for inference, see `layers.WinogradConv2D`.
        antialias: average over pixels when an image is made smaller; False as in torchvision.
        value_range: which values of an image of more than 8 bits become 0 and 255, in training and
            detection: `"full"` for all of 16 bits, `"max"`, `"percentiles"`, a number such as 4095,
            or the least and the greatest value; see `data.read_image`.
        kernels: `"native"`, TensorFlow's own, to train and to serve with it; `"portable"` for
            XLA, LiteRT, ONNX and OpenVINO, see `with_kernels`. Weights and detections are the same.
        seed: of the sampling of anchors and RoIs.
        name: the model's name.

    Raises:
        ValueError: for an argument out of its range, named with its value.
        OSError: if ImageNet weights are wanted and cannot be fetched.

    Attributes:
        proposer: None, or a function from the inputs to the `proposals` and `num_proposals` on
            which the second stage trains in place of the RPN's, see `train_alternating`.
    """

    loss_names: tuple[str, ...] = ("rpn_objectness_loss", "rpn_box_loss", "class_loss", "box_loss")
    proposer: Callable[[dict], dict] | None = None

    def __init__(
        self,
        backbone: str = "resnet50_fpn",
        classes: Sequence[str] = (),
        *,
        min_size: int | tuple[int, ...] = 800,
        max_size: int = 1333,
        norm: str | None = "batch",
        backbone_width: float = 1.0,
        backbone_weights: str | None = None,
        stride_in_1x1: bool = False,
        frozen_stages: int = 0,
        recompute_stages: int = 2,
        fpn_channels: int = 256,
        head_norm: str | None = None,
        anchor_sizes: tuple[tuple[float, ...], ...] | None = None,
        aspect_ratios: tuple[float, ...] = (0.5, 1.0, 2.0),
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
        box_units: int | None = None,
        box_convs: int = 0,
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
        value_range: str | float | tuple[float, float] = "full",
        kernels: Kernels = "native",
        seed: int = 0,
        name: str | None = None,
    ):
        config = {k: v for k, v in locals().items() if k not in ("self", "name", "__class__")}
        check_arguments(config)
        parts = self._build_backbone(config)
        sizes = default_anchor_sizes(backbone) if anchor_sizes is None else anchor_sizes
        if rpn_ignore_border is None:
            rpn_ignore_border = not parts.pyramid
        self.rpn_head = RPNHead(
            len(sizes[0]) * len(aspect_ratios),
            num_convs=rpn_convs,
            winograd=winograd,
            objectness=rpn_objectness,
            name="rpn_head",
        )
        self.anchor_generator = AnchorGenerator(sizes, aspect_ratios, name="anchor_generator")
        self.proposal_layer = ProposalLayer(
            (rpn_pre_nms_top_n_train, rpn_pre_nms_top_n_test),
            (rpn_post_nms_top_n_train, rpn_post_nms_top_n_test),
            rpn_nms_thresh,
            rpn_score_thresh,
            kernels,
            name="proposals",
        )
        self.anchor_sampler = AnchorSampler(
            rpn_fg_iou_thresh,
            rpn_bg_iou_thresh,
            rpn_batch_size_per_image,
            rpn_positive_fraction,
            rpn_ignore_border,
            seed,
            name="anchor_sampler",
        )
        self.anchor_sampler.built = True  # it runs in the losses only, not in the graph
        self._build_second_stage(parts, config, seed + 1)
        self._build_more(parts, config)
        self._finish(parts, config, name)

    def _build_more(self, parts: Backbone, config: dict[str, Any]) -> None:
        """Build the layers that a descendant has beside those of Faster R-CNN."""

    def first_stage(self, inputs: dict, training: bool) -> dict[str, Any]:
        """Run backbone, pyramid and RPN once.

        Returns:
            `features`, a list of maps; `rpn_logits`, `rpn_deltas`, `anchors`, lists by level;
            `proposals` `(B, R, 4)`, `num_proposals` `(B,)`, and the inputs' sizes and ids.
        """
        first = self.features_of(inputs, training)
        features, sizes = first["features"], first["image_sizes"]
        logits, deltas = self.rpn_head(features)
        anchors = self.anchor_generator(first["images"], features)
        proposals, count = self.proposal_layer(logits, deltas, anchors, sizes, training=training)
        first |= {
            "rpn_logits": logits,
            "rpn_deltas": deltas,
            "anchors": anchors,
            "proposals": proposals,
            "num_proposals": count,
        }
        return first | self.proposer(inputs) if self.proposer else first

    def losses_of(self, first: dict, targets: dict, training: bool) -> dict[str, tuple]:
        """Sample anchors and RoIs, and return the four losses as `(sum, count)`."""
        step = self.optimizer.iterations if training else ops.zeros((), "int64")
        sizes, ids = first["image_sizes"], first["image_ids"]

        anchors = ops.concatenate(first["anchors"])
        indices, kinds, goals = self.anchor_sampler(anchors, targets, sizes, ids, step)
        logits = ops.take_along_axis(ops.concatenate(first["rpn_logits"], axis=1), indices, axis=1)
        deltas = ops.concatenate(first["rpn_deltas"], axis=1)
        deltas = ops.take_along_axis(deltas, indices[..., None], axis=1)
        losses = rpn_losses(logits, deltas, goals, kinds)

        return losses | self.second_stage_losses(first, targets, step, training)
