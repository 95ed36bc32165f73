"""Mask R-CNN as matterport/Mask_RCNN computes it, for weights that were trained with that.

B images, N ground-truth objects, R proposals, S sampled anchors or RoIs, D detections, M mask size,
K classes. Boxes of a batch are in pixels of the canvases, see `CentredCanvas`, until they are
detections.
"""

import importlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from typing import Any

import keras
import numpy as np
from keras import ops

from rcnn_keras.backbones import Backbone, build_backbone
from rcnn_keras.backbones.trunks import box_trunk, mask_trunk
from rcnn_keras.data.image_rule import MatterportImageRule
from rcnn_keras.layers import (
    AnchorGenerator,
    BestClassDetectionLayer,
    BoxHead,
    CentredCanvas,
    FeaturePyramid,
    JointProposalLayer,
    MaskHead,
    MaskLayer,
    PyramidCrop,
    RealRoIs,
    RPNHead,
)
from rcnn_keras.losses import (
    Losses,
    box_head_loss_terms,
    mask_head_loss,
    rpn_loss_terms,
)
from rcnn_keras.models.arguments import MATTERPORT, check_arguments, name_classes
from rcnn_keras.models.faster_rcnn import anchor_sampler
from rcnn_keras.models.mask_rcnn import MaskRCNN
from rcnn_keras.models.two_stage import Sampled, detection_layer, roi_sampler, weights_file
from rcnn_keras.ops import to_exclusive, to_inclusive
from rcnn_keras.ops.matching import IGNORED, POSITIVE
from rcnn_keras.ops.types import Kernels, Tensor

MEAN_PIXEL = (123.7, 116.8, 103.9)
SMOOTH_L1_BETA = 1.0
PIXEL_GAIN, BRANCH_GAIN = 1 / 64, 0.25  # of the first and of each block's last batch norm


@keras.saving.register_keras_serializable(package="rcnn_keras")
class MatterportMaskRCNN(MaskRCNN):
    """Mask R-CNN with the arithmetic of matterport/Mask_RCNN, by whose weights it detects the same.

    What differs from `MaskRCNN`:

    - images are resized by another rule and stand in the middle of a canvas, see
      `MatterportImageRule` and `CentredCanvas`; a mean is subtracted and no deviation divides;
    - the ResNet halves its maps in the first 1x1 convolutions and pads for the max pooling at the
      bottom and right alone; batch norm follows the dense layers and the mask head's convolutions;
    - anchors of all levels compete for the proposals, and one NMS thins them out;
    - RoIs are read at one sample a cell, from the level of the nearest whole number;
    - each RoI is of one class at the most, its most probable one;
    - boxes of `detect` are whole pixels, and masks are resized to them.

    `fit` trains it with matterport's losses, each the mean that the original has, on anchors and
    RoIs that this package samples. `predict` gives boxes in pixels of the resized images.

    Args:
        backbone: `"resnet50_fpn"` or `"resnet101_fpn"`.
        classes: K different names, without the background.
        num_classes: K where the names do not matter.
        resize_mode: `"square"`, `"pad64"` or `"none"`.
        min_dim: length in pixels to which an image's shorter side is enlarged.
        max_dim: most pixels of the longer side and the side of the canvas, with `"square"`.
        min_scale: least factor by which images are enlarged; 0 for none.
        norm: `"frozen_batch"` keeps statistics, gains and shifts of all batch norms, `"batch"`
            trains them, None has biases instead.
        backbone_width: factor of the ResNet's channels.
        backbone_weights: None or `"imagenet"`.
        frozen_stages: how many of the backbone's first stages are frozen.
        recompute_stages: as in `FasterRCNN`; default 2.
        fpn_channels: channels of the pyramid.
        anchor_sizes: square roots of the anchors' areas in pixels, one a level.
        aspect_ratios: heights over widths of the anchors, in the order of the weights.
        anchor_stride: positions from one anchor to the next.
        rpn_channels: of the RPN's 3x3 convolution.
        rpn_pre_nms_top_n: anchors of all levels kept before NMS.
        rpn_post_nms_top_n_train: proposals kept an image after NMS while training.
        rpn_post_nms_top_n_test: the same at inference.
        rpn_nms_thresh: IoU above which a weaker proposal is dropped.
        rpn_fg_iou_thresh: anchors from this IoU up are positive.
        rpn_bg_iou_thresh: anchors below this IoU are negative.
        rpn_batch_size_per_image: anchors sampled an image.
        rpn_positive_fraction: largest share of positives among them.
        rpn_reg_weights: factors of the RPN's deltas.
        pooled_size: cells of a RoI for the box head, down and across.
        mask_pooled_size: the same for the mask head; M is twice as many.
        box_units: width of the box head's dense layers.
        box_score_thresh: detections score at least this, 0..1.
        box_nms_thresh: IoU above which a weaker detection of the same class is dropped.
        box_detections_per_img: D.
        box_fg_iou_thresh: RoIs from this IoU up are foreground.
        box_bg_iou_thresh: RoIs below this IoU are background.
        box_batch_size_per_image: RoIs sampled an image.
        box_positive_fraction: largest share of foreground among them.
        bbox_reg_weights: factors of the second stage's deltas.
        image_mean: RGB mean in 0..255.
        value_range: as in `FasterRCNN`.
        kernels: as in `FasterRCNN`.
        seed: of the sampling of anchors and RoIs.
        name: the model's name.

    Raises:
        ValueError: for an argument out of its range, named with its value.

    Attributes:
        loss_weights: factors of the named losses, 1 for those that it does not have; compile the
            model after a change. Not saved.
    """

    mask_pasting = "matterport"
    fpn: FeaturePyramid

    def __init__(
        self,
        backbone: str = "resnet101_fpn",
        classes: Sequence[str] = (),
        *,
        num_classes: int | None = None,
        resize_mode: str = "square",
        min_dim: int = 800,
        max_dim: int = 1024,
        min_scale: float = 0.0,
        norm: str | None = "frozen_batch",
        backbone_width: float = 1.0,
        backbone_weights: str | None = None,
        frozen_stages: int | None = 0,
        recompute_stages: int | None = None,
        fpn_channels: int = 256,
        anchor_sizes: tuple[tuple[float, ...], ...] = ((32,), (64,), (128,), (256,), (512,)),
        aspect_ratios: tuple[float, ...] = (2.0, 1.0, 0.5),
        anchor_stride: int = 1,
        rpn_channels: int = 512,
        rpn_pre_nms_top_n: int = 6000,
        rpn_post_nms_top_n_train: int = 2000,
        rpn_post_nms_top_n_test: int = 1000,
        rpn_nms_thresh: float = 0.7,
        rpn_fg_iou_thresh: float = 0.7,
        rpn_bg_iou_thresh: float = 0.3,
        rpn_batch_size_per_image: int = 256,
        rpn_positive_fraction: float = 0.5,
        rpn_reg_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0),
        pooled_size: int = 7,
        mask_pooled_size: int = 14,
        box_units: int = 1024,
        box_score_thresh: float = 0.7,
        box_nms_thresh: float = 0.3,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_batch_size_per_image: int = 200,
        box_positive_fraction: float = 0.33,
        bbox_reg_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0),
        image_mean: tuple[float, ...] = MEAN_PIXEL,
        value_range: str | float | tuple[float, float] = "full",
        kernels: Kernels = "native",
        seed: int = 0,
        name: str | None = None,
    ):
        config = {k: v for k, v in locals().items() if k not in ("self", "name", "__class__")}
        check_arguments(config, MATTERPORT)
        name_classes(config)
        parts = self._build_backbone(config)
        self._build_rpn(parts, config)
        self._build_second_stage(parts, config, seed + 1)
        self._build_more(parts, config)
        self._finish(parts, config, name)
        self.loss_weights: Mapping[str, float] = {}

    def _build_backbone(self, config: dict[str, Any]) -> Backbone:
        norm, channels = config["norm"], config["fpn_channels"]
        parts = build_backbone(
            config["backbone"],
            weights=weights_file(config["backbone_weights"]),
            norm=norm,
            width=config["backbone_width"],
            stride_in_1x1=True,
            pool_at_end=True,
            fpn_channels=channels,
            seed=config["seed"] + 2,
        )
        size, mask_size = config["pooled_size"], config["mask_pooled_size"]
        parts = replace(
            parts,
            pooled_size=size,
            box_trunk=box_trunk(size, channels, config["box_units"], dense_norm=norm),
            mask_trunk=lambda: mask_trunk(mask_size, channels, channels, norm),
        )
        if norm == "frozen_batch":
            keep_scale(parts.model)
        if config["recompute_stages"] is None:
            config["recompute_stages"] = 2
        self._custom: dict[str, Any] = {}
        square = config["resize_mode"] == "square"
        self.image_rule = MatterportImageRule(
            config["resize_mode"], config["min_dim"], config["max_dim"], config["min_scale"]
        )
        self.min_size = self.max_size = None
        if config["resize_mode"] != "none":  # of files for images of one size
            self.min_size, self.max_size = config["min_dim"], config["max_dim"]
        if square:
            self.min_size = self.max_size
        self.antialias = False
        self.normalize = CentredCanvas(
            config["image_mean"],
            config["max_dim"] if square else None,
            config["kernels"],
            name="normalize",
        )
        self.backbone = parts.model
        self.backbone.name = "backbone"
        self.fpn = FeaturePyramid(channels, parts.map_strides, name="fpn")
        return parts

    def _build_rpn(self, parts: Backbone, config: dict[str, Any]) -> None:
        step, ratios = config["anchor_stride"], config["aspect_ratios"]
        self.anchor_generator = AnchorGenerator(
            config["anchor_sizes"],
            ratios,
            rounding=False,
            step=step,
            name="anchor_generator",
        )
        self.rpn_head = RPNHead(
            len(ratios),
            config["rpn_channels"],
            objectness="softmax",
            strides=step,
            name="rpn_head",
        )
        self.proposal_layer = JointProposalLayer(
            (config["rpn_pre_nms_top_n"],) * 2,
            (config["rpn_post_nms_top_n_train"], config["rpn_post_nms_top_n_test"]),
            config["rpn_nms_thresh"],
            kernels=config["kernels"],
            box_weights=config["rpn_reg_weights"],
            name="proposals",
        )
        self.anchor_sampler = anchor_sampler(config)

    def _build_second_stage(self, parts: Backbone, config: dict[str, Any], seed: int) -> None:
        self.roi_sampler = roi_sampler(config, seed)
        self.box_pooling = PyramidCrop(
            config["pooled_size"], parts.strides, config["kernels"], name="box_crop"
        )
        self.box_head = BoxHead(len(config["classes"]), parts.box_trunk, name="box_head")
        self.detection_layer = detection_layer(config, BestClassDetectionLayer)

    def _build_more(self, parts: Backbone, config: dict[str, Any]) -> None:
        kernels, size = config["kernels"], config["mask_pooled_size"]
        self.real_rois = RealRoIs(kernels, name="real_rois")
        self.mask_roi_align = PyramidCrop(size, parts.strides, kernels, name="mask_crop")
        self.mask_head = MaskHead(
            len(config["classes"]), parts.mask_trunk(), config["fpn_channels"], name="mask_head"
        )
        self.mask_layer = MaskLayer(kernels, name="masks")

    def save_weights(self, filepath: str | PathLike[str], *args: Any, **options: Any) -> None:
        """Save the weights as Keras does, or to a `.h5` file as `convert.matterport.save` does."""
        if _is_theirs(filepath):
            _converter().save(self, filepath)
        else:
            super().save_weights(filepath, *args, **options)

    def load_weights(self, filepath: str | PathLike[str], *args: Any, **options: Any) -> None:
        """Load what `save_weights` wrote, or another `.h5` file of matterport's.

        Raises:
            FileNotFoundError, ValueError: as `convert.matterport.load_into`, which takes `by_name`
                and `exclude`.
        """
        if _is_theirs(filepath):
            _converter().load_into(self, filepath, *args, **options)
        else:
            super().load_weights(filepath, *args, **options)

    def run_backbone(self, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
        """Run backbone and pyramid once, on canvases.

        Returns:
            What `TwoStageDetector` does, with the canvases as `images` and their sizes as
            `image_sizes`; `given_sizes`, the images' own; and `windows` `(B, 4)`.
        """
        given = inputs["image_sizes"]
        canvases, sizes, windows = self.normalize(inputs["images"], given)
        extracted = self.run_network(canvases, inputs, training)
        return extracted | {"image_sizes": sizes, "given_sizes": given, "windows": windows}

    def select_detections(
        self, extracted: dict[str, Any], logits: Tensor, deltas: Tensor
    ) -> dict[str, Any]:
        """Detect on the canvases, and return boxes in pixels of the images as they came in."""
        rois, count, windows = (extracted[k] for k in ("proposals", "num_proposals", "windows"))
        found = self.detection_layer(logits, deltas, rois, count, windows)
        found = self.draw_masks(extracted, found)
        corners = ops.tile(windows[:, None, :2], (1, 1, 2))
        boxes = ops.where(found["labels"][..., None] >= 0, found["boxes"] - corners, 0.0)
        return found | {"boxes": boxes}

    def losses_of(
        self, extracted: dict[str, Any], targets: dict[str, Any], training: bool
    ) -> Losses:
        """Sample anchors and RoIs, and return the five losses as `(sum, count)`."""
        corners = ops.tile(extracted["windows"][:, None, :2], (1, 1, 2))
        placed = targets | {"boxes": targets["boxes"] + corners}
        losses = super().losses_of(extracted, placed, training)
        return {
            name: (total * self.loss_weights.get(name, 1.0), count)
            for name, (total, count) in losses.items()
        }

    def sample_anchors(
        self, extracted: dict[str, Any], targets: dict[str, Any], step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Draw the anchors that the RPN's losses are of; see `FasterRCNN`."""
        indices, logits, deltas, box_targets, labels = super().sample_anchors(
            extracted, targets, step
        )
        factors = ops.array(self._config["rpn_reg_weights"], "float32")
        return indices, logits, deltas, box_targets * factors, labels

    def rpn_losses_of(
        self, logits: Tensor, deltas: Tensor, box_targets: Tensor, match_labels: Tensor
    ) -> Losses:
        """Return the RPN's two losses; that of boxes is a mean over all numbers of positives."""
        terms = rpn_loss_terms(logits, deltas, box_targets, match_labels, SMOOTH_L1_BETA)
        return {
            "rpn_objectness_loss": _mean(terms["rpn_objectness_loss"], match_labels != IGNORED),
            "rpn_box_loss": _mean(terms["rpn_box_loss"], match_labels == POSITIVE, 4),
        }

    def second_stage_losses(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        step: Tensor,
        training: bool,
    ) -> Losses:
        """Sample RoIs by boxes that end at the last pixel inside, and return the losses."""
        inclusive = targets | {"boxes": to_inclusive(targets["boxes"])}
        proposals, count = to_inclusive(extracted["proposals"]), extracted["num_proposals"]
        rois, *sampled = self.roi_sampler(proposals, count, inclusive, extracted["image_ids"], step)
        return self.roi_losses_of(
            extracted, targets, (to_exclusive(rois), *sampled), step, training
        )

    def roi_losses_of(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        step: Tensor,
        training: bool,
    ) -> Losses:
        """Return the losses of classes, boxes and masks; that of boxes as the RPN's."""
        predicted = self.predict_sampled(extracted, sampled, step, training)
        terms, classes = box_head_loss_terms(*predicted, SMOOTH_L1_BETA), predicted[-1]
        return {
            "class_loss": _mean(terms["class_loss"], classes != IGNORED),
            "box_loss": _mean(terms["box_loss"], classes > 0, 4),
        } | mask_head_loss(*self.draw_sampled(extracted, targets, sampled, training))

    def in_image(self, extracted: dict[str, Any], rois: Tensor, image: Tensor) -> Tensor:
        """Return RoIs on the canvases in pixels of the images; see `MaskRCNN`."""
        corners = ops.take(extracted["windows"][:, :2], image, axis=0)
        return rois - ops.tile(corners, (1, 2))


def keep_scale(resnet: keras.Model) -> None:
    """Give frozen batch norms gains by which random weights keep the scale of a signal.

    Their statistics say nothing yet, and pixels are not divided by their deviation: without this,
    the maps of an untrained network are thousands of times too large. Loaded weights replace them.
    """
    for layer in resnet.layers:
        gain = PIXEL_GAIN if layer.name == "bn1" else BRANCH_GAIN
        if layer.name == "bn1" or layer.name.endswith("_bn3"):
            layer.gamma.assign(np.full(layer.gamma.shape, gain, "float32"))


def _is_theirs(path: str | PathLike[str]) -> bool:
    """Return whether a file of weights has the name of one of Keras 2."""
    return str(path).endswith((".h5", ".hdf5")) and not str(path).endswith(".weights.h5")


def _converter() -> Any:
    """Return the reader and writer of files, which stands above and is fetched when asked for."""
    return importlib.import_module("rcnn_keras.convert.matterport")


def _mean(terms: Tensor, counted: Tensor, each: int = 1) -> tuple[Tensor, Tensor]:
    """Return the sum of a loss and the number of values that it is a mean over."""
    return ops.sum(terms), each * ops.sum(ops.cast(counted, "float32"))
