"""Cascade R-CNN (Cai and Vasconcelos 2018): box heads one after the other, each stricter.

B images, R proposals, S sampled RoIs, D detections, K classes.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.backbones import Backbone
from rcnn_keras.backbones.trunks import copy_trunk
from rcnn_keras.data.resampling import Resizing
from rcnn_keras.layers import (
    BoxHead,
    BoxRefinement,
    MeanLogits,
    RoIMatcher,
)
from rcnn_keras.losses import SMOOTH_L1_BETA, Losses, mask_head_loss
from rcnn_keras.models.arguments import CASCADE_RCNN
from rcnn_keras.models.faster_rcnn import FasterRCNN
from rcnn_keras.models.mask_branch import MaskBranch
from rcnn_keras.models.two_stage import Sampled, detection_layer, roi_sampler
from rcnn_keras.ops import unselect_rows
from rcnn_keras.ops.matching import IGNORED
from rcnn_keras.ops.types import Kernels, Tensor

FG_IOU_THRESH = (0.5, 0.6, 0.7)
BBOX_REG_WEIGHTS = (
    (10.0, 10.0, 5.0, 5.0),
    (20.0, 20.0, 10.0, 10.0),
    (30.0, 30.0, 15.0, 15.0),
)


def stage_losses(stages: int, *, masks: bool = False) -> tuple[str, ...]:
    """Return the names of a cascade's losses."""
    rpn, second = FasterRCNN.loss_names[:2], FasterRCNN.loss_names[2:]
    names = (f"{name}_{stage}" for stage in range(1, stages + 1) for name in second)
    return (*rpn, *names, *(("mask_loss",) if masks else ()))


@keras.saving.register_keras_serializable(package="rcnn_keras")
class CascadeRCNN(MaskBranch):
    """Cascade R-CNN, with masks or without; arguments that are not named here are `FasterRCNN`'s.

    Several box heads stand one after the other, three by default. The first reads the proposals,
    each of the others the boxes of the one before; each is trained to a higher IoU than the one
    before and so refines boxes that are good already. The deltas are those of one box for all
    classes.

    While training, RoIs are sampled once, for the first stage. Later stages read all of its boxes,
    clipped to the image and without a gradient, and label them again by their own IoU; boxes
    without an area are left out. The gradient of each stage into the features is divided by the
    number of stages. At inference scores are the mean of the stages' probabilities, each of its own
    boxes, and boxes are those of the last stage.

    With `masks` the mask head of `MaskRCNN` is trained on the positives of the first stage, and
    runs on the final boxes. Targets and detections are then those of `MaskRCNN`, otherwise those of
    `FasterRCNN`.

    Args:
        masks: whether there is a mask branch.
        mask_head: with `masks`, a layer in place of `layers.MaskHead`, as in `MaskRCNN`.
        cascade_fg_iou_thresh: of each stage, the IoU from which RoIs are foreground; below it they
            are background. So many stages there are.
        cascade_bbox_reg_weights: of each stage, the factors of its deltas.

    Attributes:
        box_heads: the `layers.BoxHead` of each stage, `box_head_1` and so on.
    """

    loss_names = stage_losses(len(FG_IOU_THRESH))

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
        box_units: int | None = None,
        box_convs: int = 0,
        masks: bool = False,
        mask_head: keras.layers.Layer | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.5,
        box_detections_per_img: int = 100,
        box_batch_size_per_image: int = 512,
        box_positive_fraction: float = 0.25,
        cascade_fg_iou_thresh: tuple[float, ...] = FG_IOU_THRESH,
        cascade_bbox_reg_weights: tuple[tuple[float, ...], ...] = BBOX_REG_WEIGHTS,
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
        self._build(config, CASCADE_RCNN, name)

    def _build_second_stage(self, parts: Backbone, config: dict[str, Any], seed: int) -> None:
        """Build a box head a stage, and what is between them."""
        thresholds, weights = config["cascade_fg_iou_thresh"], config["cascade_bbox_reg_weights"]
        num_classes, stages = len(config["classes"]), range(1, len(thresholds) + 1)
        first = dict.fromkeys(("box_fg_iou_thresh", "box_bg_iou_thresh"), thresholds[0])
        self.roi_sampler = roi_sampler(config | first | {"bbox_reg_weights": weights[0]}, seed)
        self.roi_matchers = [
            RoIMatcher(thresholds[stage], weights[stage], name=f"roi_matcher_{stage + 1}")
            for stage in stages[:-1]
        ]
        for matcher in self.roi_matchers:
            matcher.built = True  # as that of the sampler
        self._build_pooling(parts, config)
        # What ImageNet's weights have beyond the maps is in the trunk of a single map.
        pretrained = config["backbone_weights"] is not None and not parts.pyramid
        trunk = parts.box_trunk
        trunks = [trunk, *(copy_trunk(trunk, n, weights=pretrained) for n in stages[:-1])]
        self._box_heads = [
            BoxHead(num_classes, trunk, class_agnostic=True, name=f"box_head_{stage}")
            for stage, trunk in zip(stages, trunks, strict=True)
        ]
        self.box_refinements = [
            BoxRefinement(weights[stage - 1], name=f"refined_boxes_{stage}")
            for stage in stages[:-1]
        ]
        self.mean_logits = MeanLogits(name="mean_logits")
        self.detection_layer = detection_layer(config | {"bbox_reg_weights": weights[-1]})
        self.loss_names = stage_losses(len(stages), masks=config["masks"])

    def _build_more(self, parts: Backbone, config: dict[str, Any]) -> None:
        self._draws_masks = config["masks"]
        if self._draws_masks:
            self._build_masks(parts, config)

    @property
    def box_heads(self) -> list[keras.layers.Layer]:
        """The box head of each stage."""
        return list(self._box_heads)

    def refine_proposals(self, extracted: dict[str, Any]) -> dict[str, Any]:
        """Run all stages but the last: each moves the boxes that the next one reads.

        Returns:
            `extracted` with the boxes of the last stage but one as `proposals`, `(B, R, 4)`; and of
            these stages `stage_boxes`, a list of `(B, R, 4)`, and `stage_logits`, a list of
            `(B, R, K + 1)`.
        """
        features, sizes = extracted["features"], extracted["image_sizes"]
        rois, stage_boxes, stage_logits = extracted["proposals"], [], []
        for head, refine in zip(self._box_heads[:-1], self.box_refinements, strict=True):
            logits, deltas = head(self.box_pooling(features, rois))
            stage_logits.append(logits)
            rois = refine(deltas, rois, sizes)
            stage_boxes.append(rois)
        stages = {"stage_boxes": stage_boxes, "stage_logits": stage_logits}
        return extracted | {"proposals": rois} | stages

    def predict_boxes(self, extracted: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Run the last stage on what `refine_proposals` returned.

        Returns:
            `logits` `(B, R, K + 1)`, whose softmax is the mean of all stages' probabilities, and
            the last stage's `deltas` `(B, R, 1, 4)`.
        """
        pooled = self.box_pooling(extracted["features"], extracted["proposals"])
        logits, deltas = self._box_heads[-1](pooled)
        return self.mean_logits([*extracted["stage_logits"], logits]), deltas

    def select_detections(
        self, extracted: dict[str, Any], logits: Tensor, deltas: Tensor
    ) -> dict[str, Any]:
        """Detect as Faster R-CNN does, and draw each detection's mask if there are masks."""
        found = super().select_detections(extracted, logits, deltas)
        return self.draw_masks(extracted, found) if self._draws_masks else found

    def roi_losses_of(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        step: Tensor,
        training: bool,
    ) -> Losses:
        """Return two losses a stage, `class_loss_1` and `box_loss_1` and so on, and the masks'."""
        losses = super().roi_losses_of(extracted, targets, sampled, step, training)
        if not self._draws_masks:
            return losses
        return losses | mask_head_loss(*self.draw_sampled(extracted, targets, sampled, training))

    def loss_suffix(self, stage: int) -> str:
        """Return the number of a stage, from 1."""
        return f"_{stage + 1}"

    def sampled_stages(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        step: Tensor,
        training: bool,
    ) -> list[tuple[Sampled, Sampled]]:
        """Run all stages on the first one's RoIs, which each stage moves for the next."""
        stages = []
        for stage, (refine, matcher) in enumerate(
            zip(self.box_refinements, self.roi_matchers, strict=True)
        ):
            predicted = self.predict_sampled(extracted, sampled, step, training, stage)
            stages.append((sampled, predicted))
            rois, classes, _, _ = sampled
            real = classes != IGNORED
            deltas = unselect_rows(self._config["kernels"], real, predicted[1][0])
            rois = refine(deltas, rois, extracted["image_sizes"])
            classes, box_targets, matches = matcher(rois, real, targets)
            sampled = rois, classes, box_targets, matches
        last = self.predict_sampled(extracted, sampled, step, training, len(stages))
        return [*stages, (sampled, last)]

    def pool_sampled(self, features: list[Tensor], rois: Tensor, image: Tensor) -> Tensor:
        """Pool for a stage, whose gradient into the features is its share of the cascade's."""
        pooled = super().pool_sampled(features, rois, image)
        fixed = ops.stop_gradient(pooled)
        return fixed + (pooled - fixed) / len(self._box_heads)
