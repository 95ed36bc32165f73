"""What all detectors but R-CNN share: a backbone, and a second stage that classifies RoIs.

B images, R proposals, S sampled RoIs, D detections, K classes.
"""

import importlib
import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from rcnn_keras.backbones import Backbone, build_backbone
from rcnn_keras.backbones.applications import IMAGENET_MEAN, IMAGENET_STD
from rcnn_keras.backbones.backbone import Recomputed, freeze_norms
from rcnn_keras.data.resampling import Detectron2ImageRule
from rcnn_keras.layers import (
    BoxHead,
    DetectionLayer,
    FeaturePyramid,
    ImageNormalization,
    RoIAlign,
    RoIPool,
    RoISampler,
)
from rcnn_keras.losses import Losses, box_head_losses
from rcnn_keras.models.custom_layers import (
    LAYER_ARGUMENTS,
    check_box_head,
    check_pooling,
    with_kernels_of,
)
from rcnn_keras.models.detector import Detector
from rcnn_keras.ops import drawing_for, select_rows
from rcnn_keras.ops.matching import IGNORED
from rcnn_keras.ops.types import Tensor
from rcnn_keras.preset_table import PRESETS

MAX_ROIS = 2**16  # sampled of an image
SIZE_DIVISOR = 32  # of the images' height and width

Sampled = tuple[Tensor, Tensor, Tensor, Tensor]

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "TwoStageDetector"]


class TwoStageDetector(Detector):
    """A detector that computes features once an image and classifies proposals on them.

    A subclass calls `_build_backbone`, builds what finds its proposals, then `_build_second_stage`
    and `_finish`, all with its constructor's arguments by name.
    """

    def _build_backbone(self, config: dict[str, Any]) -> Backbone:
        """Build backbone and pyramid, and fill in the mean and deviation of its weights."""
        # Before anything is built, and as a saved model's JSON gives them back.
        self._custom = {
            place: _plain(keras.saving.serialize_keras_object(config[place]))
            for place in ("backbone", *LAYER_ARGUMENTS)
            if isinstance(config.get(place), keras.layers.Layer)
        }
        parts = build_backbone(
            config["backbone"],
            weights=weights_file(config["backbone_weights"]),
            feature_pyramid=config["feature_pyramid"],
            norm=config["norm"],
            width=config["backbone_width"],
            stride_in_1x1=config["stride_in_1x1"],
            fpn_channels=config["fpn_channels"],
            box_units=config["box_units"],
            box_convs=config.get("box_convs", 0),
            box_ranks=config.get("box_ranks"),
            head_norm=config["head_norm"],
            drop_rate=config["stochastic_depth"],
            seed=config["seed"] + 2,  # the samplers' come before
        )
        mean, std, colour = parts.preprocessing
        config["image_mean"] = mean if config["image_mean"] is None else config["image_mean"]
        config["image_std"] = std if config["image_std"] is None else config["image_std"]
        padding: tuple[float, ...] = (0.0, 0.0, 0.0)
        if (tuple(config["image_mean"]), tuple(config["image_std"])) == (mean, std):
            # Not zero where the network itself also normalises.
            padding = tuple((c - m) / s for c, m, s in zip(colour, mean, std, strict=True))
        if config["recompute_stages"] is None:
            config["recompute_stages"] = min(2, len(parts.stages)) if parts.builtin else 0

        sizes = config["min_size"]
        self.min_sizes = tuple(sizes) if isinstance(sizes, Sequence) else (sizes,)
        self.min_size, self.max_size = self.min_sizes[-1], config["max_size"]
        self.antialias = config["antialias"]
        if config.get("resizing") == "detectron2":
            self.image_rule = Detectron2ImageRule((self.min_size,), self.max_size)
            self.training_rule = Detectron2ImageRule(self.min_sizes, self.max_size)
        divisor = config.get("size_divisor")
        check_divisor(divisor, parts)
        self.normalize = ImageNormalization(
            config["image_mean"],
            config["image_std"],
            divisor or max(SIZE_DIVISOR, *parts.map_strides),
            padding,
            cut=divisor is not None and config["kernels"] == "native",
            name="normalize",
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
        self.roi_sampler = roi_sampler(config, seed)
        kernels, box_head = config["kernels"], config["box_head"]
        num_classes = len(config["classes"])
        pooled = self._build_pooling(parts, config, any_size=box_head is not None)
        if box_head is None:
            self.box_head = BoxHead(num_classes, parts.box_trunk, name="box_head")
        else:
            self.box_head = with_kernels_of(box_head, kernels)
            check_box_head(self.box_head, pooled, num_classes)
        self.detection_layer = detection_layer(config)

    def _build_pooling(
        self, parts: Backbone, config: dict[str, Any], *, any_size: bool = False
    ) -> tuple[int, ...]:
        """Build the pooling of the box head, or take the layer given; return `(S, S, C)`."""
        size, kernels, pooling = parts.pooled_size, config["kernels"], config["roi_pooling"]
        if isinstance(pooling, keras.layers.Layer):
            self.box_pooling = with_kernels_of(pooling, kernels)
            needed = None if any_size else size
            return check_pooling(self.box_pooling, parts.level_strides, parts.channels, needed)
        if pooling == "pool":
            self.box_pooling = RoIPool(size, parts.strides[0], kernels, name="box_roi_pool")
        else:
            self.box_pooling = self._roi_align(size, parts, config, "box_roi_align")
        return size, size, parts.channels

    def _roi_align(self, size: int, parts: Backbone, config: dict[str, Any], name: str) -> RoIAlign:
        return RoIAlign(
            size,
            parts.strides,
            config["roi_sampling_ratio"],
            config["kernels"],
            config["roi_aligned"],
            name=name,
        )

    def _finish(self, parts: Backbone, config: dict[str, Any], name: str | None) -> None:
        """Connect the layers, and freeze and recompute the first stages of the backbone."""
        self._num_maps = len(parts.strides)
        self._stages, self._default_frozen = parts.stages, parts.frozen_stages
        # Layers that are frozen in the model that was given stay frozen.
        self._trained = {layer.name: layer.trainable for layer in self.backbone.layers}
        self._norms_frozen = config["norm"] == "frozen_batch" and not parts.builtin
        self.has_builtin_backbone = parts.builtin
        stages = self._stages[: config["recompute_stages"]]
        if config["recompute_stages"] > len(self._stages):
            raise ValueError(
                f"recompute_stages must be at most {len(self._stages)} for this backbone; "
                f"received {config['recompute_stages']!r}"
            )
        self._connect({k: v for k, v in config.items() if k not in self._custom}, name)
        self._config |= self._custom
        self.freeze_backbone(config["frozen_stages"])
        self._recomputed = Recomputed(self.backbone, stages) if stages else None

    def freeze_backbone(self, stages: int | None) -> None:
        """Freeze the first stages of the backbone, and unfreeze the others.

        A stage begins where the map is halved: a ResNet has its stem and four more, VGG-16 five
        blocks, MobileNetV3 six, ZF three; those of other backbones are read from the graph. Batch
        norm in a frozen stage keeps its statistics. Compile the model after it.

        Args:
            stages: how many, as `frozen_stages` of the constructor; 0 trains all. None is the
                backbone's standard number, which suits a few hundred images: 2 of a ResNet
                (torchvision's choice) and of VGG-16 (that of the Fast R-CNN paper), 3 of
                MobileNetV3 (torchvision's), none of ZF (the paper's), 2 of others.

        Raises:
            ValueError: if the backbone has fewer stages.
        """
        stages = self._default_frozen if stages is None else stages
        if stages not in range(len(self._stages) + 1):
            named = self._config["backbone"]
            named = named if isinstance(named, str) else "this backbone"
            raise ValueError(
                f"stages must be in 0..{len(self._stages)} for {named}; received {stages!r}"
            )
        frozen = frozenset().union(*self._stages[: int(stages)])
        for layer in self.backbone.layers:
            trained = self._trained[layer.name] and layer.name not in frozen
            if layer.trainable != trained:  # which goes down to all layers inside
                layer.trainable = trained
        if self._norms_frozen:
            freeze_norms(self.backbone)
        self._config["frozen_stages"] = int(stages)

    @property
    def backbone_stages(self) -> list[list[keras.layers.Layer]]:
        """The layers of each stage of the backbone, see `freeze_backbone`."""
        layers = {layer.name: layer for layer in self.backbone.layers}
        return [[layers[name] for name in sorted(stage)] for stage in self._stages]

    @property
    def box_heads(self) -> list[keras.layers.Layer]:
        """The box heads, in the order of their stages: one, but in a cascade."""
        return [self.box_head]

    @property
    def custom_layers(self) -> dict[str, keras.layers.Layer]:
        """The layers that the user gave, by the argument; and a backbone from outside."""
        given = [name for name in LAYER_ARGUMENTS if name in self._custom]
        layers = {n: self.box_pooling if n == "roi_pooling" else getattr(self, n) for n in given}
        return layers if self.has_builtin_backbone else {"backbone": self.backbone} | layers

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, models and layers as Keras serializes them."""
        # Without what Keras wraps attributes of a layer in, which refers to its layers.
        config = super().get_config()
        return config | {place: _plain(config[place]) for place in self._custom}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Detector":
        """Rebuild the model, its backbone and layers that came as objects included."""
        given = {
            p: config[p] for p in ("backbone", *LAYER_ARGUMENTS) if isinstance(config.get(p), dict)
        }
        layers = {
            # Copies, as Keras takes a functional model's configuration to pieces.
            p: keras.saving.deserialize_keras_object(_plain(v), custom_objects=custom_objects)
            for p, v in given.items()
        }
        model = super().from_config(config | layers, custom_objects)
        model._config |= _plain(given)  # Keras writes a layer that was read in another way
        return model

    def compile(self, *args: Any, jit_compile: bool | str = "auto", **options: Any) -> None:
        """Compile as `Detector` does; `jit_compile="auto"` leaves XLA out, also on a GPU.

        The losses gather what they sampled, whose number XLA has to know beforehand. XLA also drops
        the checks for values that are not finite.
        """
        super().compile(*args, jit_compile=jit_compile != "auto" and jit_compile, **options)

    def run_backbone(self, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
        """Run backbone and pyramid once.

        Returns:
            `images`, normalised; `features`, a list of maps, finest first; and the inputs' sizes
            and ids.
        """
        images = self.normalize(inputs["images"], inputs["image_sizes"])
        return self.run_network(images, inputs, training)

    def run_network(self, images: Tensor, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
        """Do what `run_backbone` does, on images that are normalised."""
        backbone = self.backbone
        if training and self._config["recompute_stages"] > self._config["frozen_stages"]:
            backbone = self._recomputed
        # A model that was never compiled has no optimizer, and no step.
        optimizer = getattr(self, "optimizer", None)
        step = optimizer.iterations if training and optimizer else 0
        with drawing_for(inputs.get("image_ids"), step):
            maps = backbone(images, training=training)
        features = [maps[level] for level in sorted(maps)]
        features = (
            self.fpn(features, training=training) if self.fpn else features[-self._num_maps :]
        )
        return {
            "images": images,
            "features": features,
            "image_sizes": inputs["image_sizes"],
            "image_ids": inputs.get("image_ids"),
        }

    def predict_boxes(self, extracted: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Return class logits `(B, R, K + 1)` and deltas `(B, R, K, 4)` of the proposals."""
        return self.box_head(self.box_pooling(extracted["features"], extracted["proposals"]))

    def detections_of(self, extracted: dict[str, Any]) -> dict[str, Any]:
        """Classify and refine the proposals, and keep the best detections."""
        refined = self.refine_proposals(extracted)
        return self.select_detections(refined, *self.predict_boxes(refined))

    def second_stage_losses(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        step: Tensor,
        training: bool,
    ) -> Losses:
        """Sample RoIs among proposals and ground truth, and return the second stage's losses."""
        proposals, count = extracted["proposals"], extracted["num_proposals"]
        sampled = self.roi_sampler(proposals, count, targets, extracted["image_ids"], step)
        return self.roi_losses_of(extracted, targets, sampled, step, training)

    def roi_losses_of(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        step: Tensor,
        training: bool,
    ) -> Losses:
        """Return the second stage's losses on the RoIs that `RoISampler` drew."""
        beta = self._config["box_smooth_l1_beta"]
        losses: Losses = {}
        stages = self.sampled_stages(extracted, targets, sampled, step, training)
        for number, (_, predicted) in enumerate(stages):
            suffix = self.loss_suffix(number)
            of_stage = box_head_losses(*predicted, beta)
            losses |= {f"{name}{suffix}": loss for name, loss in of_stage.items()}
        return losses

    def loss_suffix(self, stage: int) -> str:
        """Return what is added to the names of a stage's losses; nothing where there is one."""
        return ""

    def sampled_stages(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        step: Tensor,
        training: bool,
    ) -> list[tuple[Sampled, Sampled]]:
        """Run the box heads on sampled RoIs.

        Returns:
            For each stage, of which only a cascade has several, the RoIs that it is trained on, as
            `RoISampler` returns them, and what `predict_sampled` says of them.
        """
        return [(sampled, self.predict_sampled(extracted, sampled, step, training))]

    def sampled_positives(self, sampled: Sampled) -> Sampled:
        """Return the sampled RoIs among which all positives are: they come first."""
        sampler = self.roi_sampler
        most = max(int(sampler.batch_size_per_image * sampler.positive_fraction), 1)
        rois, classes, box_targets, matches = (x[:, :most] for x in sampled)
        return rois, classes, box_targets, matches

    def predict_sampled(
        self,
        extracted: dict[str, Any],
        sampled: Sampled,
        step: Tensor,
        training: bool,
        stage: int = 0,
    ) -> Sampled:
        """Run a stage's box head on sampled RoIs, and return what `box_head_losses` takes.

        Padding is left out beforehand, so that it does not count in a batch norm of the head.
        Portable kernels leave it in, as XLA must know how many RoIs there are.
        """
        rois, classes, box_targets, _ = sampled
        # What dropout drops of a RoI depends on its image and its place among those of the image.
        places = extracted["image_ids"][:, None] * MAX_ROIS + np.arange(rois.shape[1])
        image, rois, classes, box_targets, places = select_rows(
            self._config["kernels"], classes != IGNORED, rois, classes, box_targets, places
        )
        pooled = self.pool_sampled(extracted["features"], rois, image)
        with drawing_for(places, step):
            logits, deltas = self.box_heads[stage](pooled[None], training=training)
        return logits, deltas, box_targets[None], classes[None]

    def pool_sampled(self, features: list[Tensor], rois: Tensor, image: Tensor) -> Tensor:
        """Pool what the box head is trained on: `(n, 4)` RoIs to `(n, S, S, C)`."""
        return self.box_pooling(features, rois, image)


def roi_sampler(config: dict[str, Any], seed: int) -> RoISampler:
    """Build the sampler that a detector's arguments describe."""
    sampler = RoISampler(
        config["box_fg_iou_thresh"],
        config["box_bg_iou_thresh"],
        config["box_batch_size_per_image"],
        config["box_positive_fraction"],
        config["bbox_reg_weights"],
        seed,
        config.get("box_bg_iou_low_thresh", 0.0),
        name="roi_sampler",
    )
    sampler.built = True  # it runs in the losses only, not in the graph
    return sampler


def detection_layer(
    config: dict[str, Any], kind: type[DetectionLayer] = DetectionLayer
) -> DetectionLayer:
    """Build the layer of the last step that a detector's arguments describe."""
    return kind(
        config["box_score_thresh"],
        config["box_nms_thresh"],
        config["box_detections_per_img"],
        config["bbox_reg_weights"],
        kernels=config["kernels"],
        name="detections",
    )


def check_divisor(divisor: int | None, parts: Backbone) -> None:
    """Raise ValueError if a pyramid's maps would not be halves of each other."""
    coarsest = parts.map_strides[-1]
    if divisor is not None and parts.pyramid and divisor % coarsest:
        raise ValueError(
            f"size_divisor must be None or a multiple of {coarsest}, the coarsest stride under the "
            f"pyramid; received {divisor!r}"
        )


def weights_file(weights: str | None) -> str | None:
    """Return the path of a preset's file, fetched if it is missing; other weights as they are."""
    if weights not in PRESETS:
        return weights
    # Presets stand above the models and are fetched when asked for.
    return str(importlib.import_module("rcnn_keras.presets").fetch(weights))


def _plain(value: Any) -> Any:
    """Return a copy of what JSON can hold, as JSON gives it back."""
    return json.loads(json.dumps(value))
