"""Keypoint R-CNN (Mask R-CNN, He et al. 2017, section 5): Faster R-CNN with a pose for each object.

B images, N ground-truth objects, D detections, n RoIs of the whole batch, P keypoints, M side of a
heat map, K classes.
"""

from collections.abc import Sequence
from typing import Any

import keras

from rcnn_keras.backbones import Backbone
from rcnn_keras.backbones.backbone import MASK_POOLED_SIZE
from rcnn_keras.data.keypoints import COCO_PERSON, Skeleton, flip_pairs_of, numbered_skeleton
from rcnn_keras.data.resampling import Resizing
from rcnn_keras.layers import KeypointHead, KeypointLayer, RealRoIs
from rcnn_keras.layers.keypoint_head import LAYERS
from rcnn_keras.losses import SMOOTH_L1_BETA, Losses, keypoint_head_loss
from rcnn_keras.models.arguments import KEYPOINT_RCNN
from rcnn_keras.models.custom_layers import check_keypoint_head, with_kernels_of
from rcnn_keras.models.faster_rcnn import FasterRCNN
from rcnn_keras.models.two_stage import Sampled
from rcnn_keras.ops import keypoint_targets, select_rows, take_rows
from rcnn_keras.ops.types import Kernels, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class KeypointRCNN(FasterRCNN):
    """Keypoint R-CNN; the arguments are those of `FasterRCNN`, and some more.

    The defaults are those of torchvision's `keypointrcnn_resnet50_fpn`, of COCO's persons. The
    keypoint branch runs on positive RoIs while training and on the final detections, with the boxes
    that they ended up with, at inference. Objects of all classes have the same P keypoints, each a
    heat map over the box, trained by the softmax over its M x M cells.

    Training targets have, beside boxes, labels and crowd, `"keypoints"` `(B, N, P, 3)`: x and y in
    pixels and COCO's visibility, 0 not labelled, 1 hidden, 2 in sight; `fit` on `Batches` sees to
    it. Detections have `"keypoints"` `(B, D, P, 3)`: x and y in pixels, and a score.

    Args:
        num_keypoints: P where the names do not matter: they are then `"keypoint_0"` and so on; 17
            are COCO's.
        keypoint_names: P different names, those of the data (`dataset.skeleton.names`); default
            COCO's 17 of a person.
        keypoint_flip_pairs: numbers, from 0, of the keypoints that change places when training
            mirrors an image; default those whose names differ in left and right alone.
        keypoint_edges: numbers of the keypoints that drawings connect; default COCO's for COCO's
            names, else none.
        keypoint_layers: channels of the branch's 3x3 convolutions.
        keypoint_scores: `"probability"` as Detectron2's, or `"logit"` as torchvision's, see
            `ops.decode_heatmaps`; where the keypoints are is the same.
        keypoint_head: a layer in place of `layers.KeypointHead`, which reads `keypoint_layers`. It
            is called with pooled features `(n, 14, 14, C)`, by RoIAlign whatever `roi_pooling` is
            for boxes, and, if its `call` has it, `training`; it returns logits `(n, M, M, P)`,
            float32.

    Attributes:
        skeleton: names, flip pairs and edges of the keypoints, a `data.Skeleton`.
    """

    loss_names = (*FasterRCNN.loss_names, "keypoint_loss")

    def __init__(
        self,
        backbone: str | keras.Model = "resnet50_fpn",
        classes: Sequence[str] = (),
        *,
        num_classes: int | None = None,
        min_size: int | tuple[int, ...] = (640, 672, 704, 736, 768, 800),
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
        num_keypoints: int | None = None,
        keypoint_names: tuple[str, ...] | None = None,
        keypoint_flip_pairs: tuple[tuple[int, int], ...] | None = None,
        keypoint_edges: tuple[tuple[int, int], ...] | None = None,
        keypoint_layers: tuple[int, ...] = LAYERS,
        keypoint_scores: str = "probability",
        keypoint_head: keras.layers.Layer | None = None,
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
        self._build(config, KEYPOINT_RCNN, name)

    def _build_more(self, parts: Backbone, config: dict[str, Any]) -> None:
        self.skeleton = complete_skeleton(config)
        self.real_rois = RealRoIs(config["kernels"], name="real_rois")
        self.keypoint_roi_align = self._roi_align(
            MASK_POOLED_SIZE, parts, config, "keypoint_roi_align"
        )
        count = len(self.skeleton)
        if config["keypoint_head"] is None:
            layers = config["keypoint_layers"]
            self.keypoint_head = KeypointHead(count, layers, name="keypoint_head")
        else:
            self.keypoint_head = with_kernels_of(config["keypoint_head"], config["kernels"])
            pooled = (MASK_POOLED_SIZE, MASK_POOLED_SIZE, parts.channels)
            check_keypoint_head(self.keypoint_head, pooled, count)
        self.keypoint_layer = KeypointLayer(
            config["keypoint_scores"], config["kernels"], name="keypoints"
        )

    def select_detections(
        self, extracted: dict[str, Any], logits: Tensor, deltas: Tensor
    ) -> dict[str, Any]:
        """Detect as Faster R-CNN does, and find each detection's keypoints."""
        found = super().select_detections(extracted, logits, deltas)
        rois, image = self.real_rois(found["boxes"], found["labels"])
        maps = self.keypoint_head(self.keypoint_roi_align(extracted["features"], rois, image))
        return found | {"keypoints": self.keypoint_layer(maps, rois, found["labels"])}

    def roi_losses_of(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        step: Tensor,
        training: bool,
    ) -> Losses:
        """Return the losses of classes, boxes and keypoints, the last on positive RoIs alone."""
        losses = super().roi_losses_of(extracted, targets, sampled, step, training)
        seen = self.look_at_sampled(extracted, targets, sampled, training)
        return losses | keypoint_head_loss(*seen)

    def look_at_sampled(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        training: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the keypoint head on sampled positives; return what `keypoint_head_loss` takes."""
        kernels = self._config["kernels"]
        rois, classes, _, matches = self.sampled_positives(sampled)
        truth = take_rows(targets["keypoints"], matches)
        image, rois, truth, real = select_rows(kernels, classes > 0, rois, truth, classes > 0)
        logits = self.keypoint_head(
            self.keypoint_roi_align(extracted["features"], rois, image), training=training
        )
        cells, valid = keypoint_targets(truth, rois, logits.shape[1])
        return logits, cells, valid & real[:, None]


def complete_skeleton(config: dict[str, Any]) -> Skeleton:
    """Return the keypoints that a configuration stands for, which gets names, pairs and edges."""
    names, count = config["keypoint_names"], config["num_keypoints"]
    if names is None:
        of_coco = count in (None, len(COCO_PERSON))
        names = (COCO_PERSON if of_coco else numbered_skeleton(count)).names
    pairs, edges = config["keypoint_flip_pairs"], config["keypoint_edges"]
    if edges is None:
        edges = COCO_PERSON.edges if tuple(names) == COCO_PERSON.names else ()
    skeleton = Skeleton(tuple(names), flip_pairs_of(names) if pairs is None else pairs, edges)
    config["num_keypoints"], config["keypoint_names"] = len(skeleton), skeleton.names
    config["keypoint_flip_pairs"], config["keypoint_edges"] = skeleton.flip_pairs, skeleton.edges
    return skeleton
