"""What Fast, Faster and Mask R-CNN share: a backbone, and a second stage that judges RoIs.

B images, R proposals, S sampled RoIs, D detections, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rcnn_keras.backbones import Backbone, build_backbone
from rcnn_keras.backbones.backbone import Recomputed, is_of, stages_of
from rcnn_keras.backbones.imagenet import CAFFE_MEAN, CAFFE_STD, load_imagenet
from rcnn_keras.layers import (
    BoxHead,
    DetectionLayer,
    FeaturePyramid,
    ImageNormalization,
    RoIAlign,
    RoIPool,
    RoISampler,
)
from rcnn_keras.losses import box_head_losses
from rcnn_keras.models.detector import Detector
from rcnn_keras.ops import drawing_for, select_rows
from rcnn_keras.ops.matching import IGNORED

MOST_ROIS = 2**16  # sampled of an image
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class TwoStageDetector(Detector):
    """A detector that computes features once an image and judges proposals on them.

    A subclass calls `_build_backbone`, builds what finds its proposals, then `_build_second_stage`
    and `_finish`, all with its constructor's arguments by name.
    """

    def _build_backbone(self, config: dict[str, Any]) -> Backbone:
        """Build backbone and pyramid, and fill in the mean and deviation of its weights."""
        backbone = config["backbone"]
        parts = build_backbone(
            backbone,
            norm=config["norm"],
            width=config["backbone_width"],
            stride_in_1x1=config["stride_in_1x1"],
            fpn_channels=config["fpn_channels"],
            box_units=config["box_units"],
            box_convs=config.get("box_convs", 0),
            box_ranks=config.get("box_ranks"),
            head_norm=config["head_norm"],
            seed=config["seed"] + 2,  # the samplers' come before
        )
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if config["backbone_weights"] == "imagenet":
            load_imagenet(parts.model, parts.box_trunk, backbone.removesuffix("_fpn"))
            mean, std = CAFFE_MEAN, CAFFE_STD
        config["image_mean"] = mean if config["image_mean"] is None else config["image_mean"]
        config["image_std"] = std if config["image_std"] is None else config["image_std"]

        sizes = config["min_size"]
        self.min_sizes = tuple(sizes) if isinstance(sizes, Sequence) else (sizes,)
        self.min_size, self.max_size = self.min_sizes[-1], config["max_size"]
        self.antialias = config["antialias"]
        self.normalize = ImageNormalization(
            config["image_mean"], config["image_std"], name="normalize"
        )
        self.backbone = parts.model
        self.backbone.name = "backbone"
        self.fpn = None
        if parts.pyramid:
            self.fpn = FeaturePyramid(
                config["fpn_channels"],
                parts.map_strides,
                config["head_norm"],
                config.get("winograd", False),
                name="fpn",
            )
        return parts

    def _build_second_stage(self, parts: Backbone, config: dict[str, Any], seed: int) -> None:
        """Build the layers from proposals to detections."""
        self.roi_sampler = RoISampler(
            config["box_fg_iou_thresh"],
            config["box_bg_iou_thresh"],
            config["box_batch_size_per_image"],
            config["box_positive_fraction"],
            config["bbox_reg_weights"],
            seed,
            config.get("box_bg_iou_low_thresh", 0.0),
            name="roi_sampler",
        )
        self.roi_sampler.built = True  # it runs in the losses only, not in the graph
        size, kernels = parts.pooled_size, config["kernels"]
        if config.get("roi_pooling", "align") == "align":
            self.box_pooling = RoIAlign(size, parts.strides, kernels=kernels, name="box_roi_align")
        else:
            self.box_pooling = RoIPool(size, parts.strides[0], kernels, name="box_roi_pool")
        self.box_head = BoxHead(len(config["classes"]), parts.box_trunk, name="box_head")
        self.detection_layer = DetectionLayer(
            config["box_score_thresh"],
            config["box_nms_thresh"],
            config["box_detections_per_img"],
            config["bbox_reg_weights"],
            kernels=kernels,
            name="detections",
        )

    def _finish(self, parts: Backbone, config: dict[str, Any], name: str | None) -> None:
        """Connect the layers, and see to the stages of the backbone that training treats apart."""
        self._connect(config, name)
        self._stages, self._default_frozen = stages_of(config["backbone"]), parts.frozen_stages
        self.freeze_backbone(config["frozen_stages"])
        stages = self._stages[: config["recompute_stages"]]
        self._recomputed = Recomputed(self.backbone, stages) if stages else None

    def freeze_backbone(self, stages: int | None = None) -> None:
        """Let the first stages of the backbone stand still in training; to be called anew to thaw.

        A stage begins where the map is halved: a ResNet has its stem and four more, VGG-16 five
        blocks, MobileNetV3 six, ZF three. Batch norm in a frozen stage keeps its statistics.
        Compile the model after it.

        Args:
            stages: how many; by default what suits a few hundred images: 2 of a ResNet
                (torchvision's choice) and of VGG-16 (that of the Fast R-CNN paper), 3 of
                MobileNetV3 (torchvision's), none of ZF (the paper's). 0 trains all.

        Raises:
            ValueError: if the backbone has fewer stages.
        """
        stages = self._default_frozen if stages is None else stages
        if stages not in range(len(self._stages) + 1):
            raise ValueError(
                f"stages must be in 0..{len(self._stages)} for {self._config['backbone']}; "
                f"received {stages!r}"
            )
        for layer in self.backbone.layers:
            layer.trainable = not is_of(layer, self._stages[: int(stages)])
        self._config["frozen_stages"] = int(stages)

    def compile(self, *args: Any, jit_compile: bool | str = "auto", **options: Any) -> None:
        """Compile as `Detector` does; `jit_compile="auto"` leaves XLA out, also on a GPU.

        The losses gather what they sampled, whose number XLA has to know beforehand. XLA also drops
        the checks for values that are not finite.
        """
        super().compile(*args, jit_compile=jit_compile != "auto" and jit_compile, **options)

    def features_of(self, inputs: dict, training: bool) -> dict[str, Any]:
        """Run backbone and pyramid once.

        Returns:
            `images`, normalised; `features`, a list of maps, finest first; and the inputs' sizes
            and ids.
        """
        sizes = inputs["image_sizes"]
        images = self.normalize(inputs["images"], sizes)
        backbone = self.backbone
        if training and self._config["recompute_stages"] > self._config["frozen_stages"]:
            backbone = self._recomputed
        maps = backbone(images, training=training)
        features = [maps[level] for level in sorted(maps)]
        features = self.fpn(features, training=training) if self.fpn else features[-1:]
        return {
            "images": images,
            "features": features,
            "image_sizes": sizes,
            "image_ids": inputs.get("image_ids"),
        }

    def judge(self, first: dict) -> tuple:
        """Return class logits `(B, R, K + 1)` and deltas `(B, R, K, 4)` of the proposals."""
        return self.box_head(self.box_pooling(first["features"], first["proposals"]))

    def second_stage(self, first: dict) -> dict:
        """Classify and refine the proposals, and keep the best detections."""
        rois, count = first["proposals"], first["num_proposals"]
        logits, deltas = self.judge(first)
        return self.detection_layer(logits, deltas, rois, count, first["image_sizes"])

    def second_stage_losses(self, first, targets, step, training) -> dict[str, tuple]:
        """Sample RoIs among proposals and ground truth, and return the second stage's losses."""
        proposals, count = first["proposals"], first["num_proposals"]
        sampled = self.roi_sampler(proposals, count, targets, first["image_ids"], step)
        return self.roi_losses_of(first, targets, sampled, step, training)

    def roi_losses_of(self, first, targets, sampled, step, training) -> dict[str, tuple]:
        """Return the second stage's losses on the RoIs that `RoISampler` drew.

        Padding is left out beforehand, lest it count in a batch norm of the head. Portable kernels
        leave it in, as XLA must know how many RoIs there are.
        """
        rois, classes, goals, _ = sampled
        # What dropout drops of a RoI depends on its image and its place among those of the image.
        places = first["image_ids"][:, None] * MOST_ROIS + np.arange(rois.shape[1])
        image, rois, classes, goals, places = select_rows(
            self._config["kernels"], classes != IGNORED, rois, classes, goals, places
        )
        pooled = self.box_pooling(first["features"], rois, image)
        with drawing_for(places, step):
            logits, deltas = self.box_head(pooled[None], training=training)
        beta = self._config["box_smooth_l1_beta"]
        return box_head_losses(logits, deltas, goals[None], classes[None], beta)
