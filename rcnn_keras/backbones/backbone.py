"""A backbone by its name, with the second-stage trunk that goes with it."""

import difflib
import importlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import keras

from rcnn_keras.backbones.applications import (
    APPLICATIONS,
    CAFFE_MEAN,
    CAFFE_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    PREPROCESSING,
    SOURCES,
    application_model,
    load_imagenet,
)
from rcnn_keras.backbones.efficientnet_lite import LITE_MEAN, LITE_STD, SCALES, efficientnet_lite
from rcnn_keras.backbones.feature_maps import Stages, border_of, feature_maps
from rcnn_keras.backbones.mobilenet_v3 import mobilenet_v3_large
from rcnn_keras.backbones.resnet import NETWORKS, resnet, resnet_c5
from rcnn_keras.backbones.trunks import box_trunk, mask_trunk
from rcnn_keras.backbones.vgg import ZF_POOLED_SIZE, vgg16, vgg16_fc, zf
from rcnn_keras.keras_internals import producer, sublayers
from rcnn_keras.layers.normalization import BatchNormalization
from rcnn_keras.ops import drawing_for, drawn_for, recompute
from rcnn_keras.ops.types import Tensor


class Recomputed:
    """Calls a backbone so that the maps inside its first stages are not kept for the gradient.

    These are the largest maps of all and the cheapest to compute.

    Args:
        backbone: functional model from images to `{"c2": .., ...}`. Its layers are shared.
        stages: names of the layers of these stages, at least one.

    Raises:
        ValueError: if more than one tensor leads from these stages to the rest, and if a layer in
            them does not do the same when it is run again.
    """

    def __init__(self, backbone: keras.Model, stages: Iterable[frozenset[str]]) -> None:
        names = frozenset().union(*stages)
        for layer in backbone.layers:
            if layer.name in names:
                _check_repeatable(layer)
        border = border_of(backbone, names)
        maps = backbone.output
        early = {k: x for k, x in maps.items() if producer(x).name in names}
        late = {k: x for k, x in maps.items() if k not in early}
        self.early = keras.Model(backbone.input, early | {"border": border})
        self.late = keras.Model(border, late) if late else None

    def __call__(self, images: Tensor, training: bool) -> dict[str, Tensor]:
        """Return the maps of `images` by their levels."""
        rows, step = drawn_for()

        def early(x: Tensor) -> dict[str, Tensor]:
            with drawing_for(rows, step):  # the second run is outside of the caller's block
                return self.early(x, training=training)

        maps = recompute(early, images)
        border = maps.pop("border")
        return maps | (self.late(border, training=training) if self.late else {})


def _check_repeatable(layer: keras.layers.Layer) -> None:
    """Raise ValueError for a layer whose second run in a step would differ from its first."""
    for part in (layer, *sublayers(layer, recursive=True)):
        if getattr(part, "seed_generator", None) is not None:
            raise ValueError(
                f"recompute_stages must be less for this backbone: its layer {part.name!r} "
                f"draws random numbers, others when it is run again"
            )
        trains = isinstance(part, keras.layers.BatchNormalization) and part.trainable
        if trains and not isinstance(part, BatchNormalization):
            raise ValueError(
                f"recompute_stages needs norm='frozen_batch' with this backbone: its batch norm "
                f"{part.name!r} would count every batch twice"
            )


MOBILENET = "mobilenet_v3_large_fpn"

LITES = {f"efficientnet_lite{number}": number for number in SCALES}

DILATED = ("resnet50_dc5", "resnet101_dc5")

NAMES = (
    *(f"{name}_fpn" for name in NETWORKS),
    *NETWORKS,
    *DILATED,
    *(f"{name}_fpn" for name in LITES),
    *LITES,
    *(MOBILENET, "vgg16", "zf"),
)

APPLICATION_NAMES = tuple(
    name for network in APPLICATIONS for name in (f"{network}_fpn", network) if name not in NAMES
)

RESNET_STAGES = (
    ("conv1", "bn1"),
    ("layer1",),
    ("layer2",),
    ("layer3",),
    ("layer4",),
)

VGG_STAGES = tuple((f"block{number}",) for number in range(1, 6))

ZF_STAGES = (("conv1",), ("conv2",), ("conv3", "conv4", "conv5"))

# A stage of MobileNetV3 begins where the map is halved, as torchvision counts them.
MOBILENET_STARTS = (0, 2, 4, 7, 13, 16, 17)

MOBILENET_STAGES = tuple(
    tuple(f"features_{number}" for number in range(first, stop))
    for first, stop in pairwise(MOBILENET_STARTS)
)

LITE_STAGES = (
    ("stem", "stage1"),
    ("stage2",),
    ("stage3",),
    ("stage4", "stage5"),
    ("stage6", "stage7"),
)

LITE_PREPROCESSING = (LITE_MEAN, LITE_STD, LITE_MEAN)

STRIDES = (4, 8, 16, 32)  # of the maps under a pyramid

MASK_POOLED_SIZE = 14


def network_of(name: str) -> str:
    """Return the network of a backbone, whose weights it has, whatever stands on it."""
    return name.removesuffix("_fpn").removesuffix("_dc5")


def stage_prefixes(name: str) -> tuple[tuple[str, ...], ...]:
    """Return what the names of the layers in each stage of our backbone `name` begin with."""
    if name == "vgg16":
        return VGG_STAGES
    if name == "zf":
        return ZF_STAGES
    if name == MOBILENET:
        return MOBILENET_STAGES
    stages = LITE_STAGES if name.removesuffix("_fpn") in LITES else RESNET_STAGES
    return stages if name.endswith(("_fpn", "_dc5")) else stages[:4]


def stages_of(name: str, model: keras.Model) -> Stages:
    """Return the names of the layers in each stage of our backbone `name`.

    What has another name, such as a pooling, is of the stage of the layer before it.
    """
    prefixes = stage_prefixes(name)
    stages: list[set[str]] = [set() for _ in prefixes]
    current = 0
    for layer in model.layers:
        for number, begins in enumerate(prefixes):
            if any(f"{layer.name}_".startswith(f"{begin}_") for begin in begins):
                current = number
        stages[current].add(layer.name)
    return tuple(map(frozenset, stages))


def num_stages(name: str) -> int:
    """Return how many stages the backbone of a name has, see `freeze_backbone`."""
    if name in NAMES:
        return len(stage_prefixes(name))
    application = APPLICATIONS[name.removesuffix("_fpn")]
    deepest = max(application.strides) if name.endswith("_fpn") else 16
    return application.num_stages - (deepest < max(application.strides))


def nearest_name(name: object) -> str:
    """Return the rule that a backbone's name breaks, with the nearest right name."""
    known = (*NAMES, *APPLICATION_NAMES)
    near = difflib.get_close_matches(str(name), known, 1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return (
        f"must be one of {', '.join(NAMES)}, a keras.Model, or a network of keras.applications, "
        f"with or without _fpn: {', '.join(APPLICATIONS)}{hint}"
    )


@dataclass(frozen=True)
class Backbone:
    """What a detector needs to know of its backbone.

    Attributes:
        model: functional model from normalised images to `{"c2": .., ...}`.
        pyramid: whether a feature pyramid goes on top.
        map_strides: pixels a position of each of the model's maps.
        strides: pixels a position of each map that RoIs are pooled from.
        pooled_size: S of the second stage.
        box_trunk: model from `(n, S, S, C)` to `(n, F)`.
        mask_trunk: builds the mask head's model from `(n, 14, 14, C)` to `(n, S', S', C')`.
        frozen_stages: how many of the first stages are frozen when little data is fine-tuned on.
        stages: names of the layers of each stage.
        preprocessing: RGB mean and deviation, and the colour that is zero after all preprocessing,
            that of the network's own layers included; with it images are padded.
        builtin: whether it is a network of this package, whose normalisation can be chosen.
        channels: of the maps that RoIs are pooled from.
    """

    model: keras.Model
    pyramid: bool
    map_strides: tuple[int, ...]
    strides: tuple[int, ...]
    pooled_size: int
    box_trunk: keras.Model
    mask_trunk: Callable[[], keras.Model]
    frozen_stages: int
    stages: Stages = ()
    preprocessing: tuple[tuple[float, ...], ...] = (IMAGENET_MEAN, IMAGENET_STD, IMAGENET_MEAN)
    builtin: bool = True
    channels: int = 0

    @property
    def level_strides(self) -> tuple[int, ...]:
        """Pixels a position of each map that RPN and second stage read.

        MobileNetV3 has two of one stride; a pyramid halves its last map once more.
        """
        if not self.pyramid:
            return self.strides
        return (*self.map_strides, 2 * self.map_strides[-1])


def build_backbone(
    backbone: str | keras.Model,
    *,
    weights: str | None = None,
    feature_pyramid: bool | None = None,
    norm: str | None = "batch",
    fpn_channels: int = 256,
    box_units: int | None = None,
    box_convs: int = 0,
    box_ranks: tuple[int, int] | None = None,
    head_norm: str | None = None,
    drop_rate: float = 0.0,
    **options: Any,
) -> Backbone:
    """Build a backbone and the trunks of its heads.

    `resnetD_fpn` has RoIs pooled to 7x7 from a pyramid and two dense layers; `resnetD` alone is the
    C4 detector of the ResNet paper (14x14 from stride 16, then the fifth stage, which the mask head
    shares); `resnetD_dc5` has RoIs pooled to 7x7 from a dilated fifth stage of stride 16 and two
    dense layers; `vgg16` and `zf` are the detectors of the Faster R-CNN paper (7x7 from conv5_3 and
    6x6 from conv5, then fc6 and fc7); `mobilenet_v3_large_fpn` is torchvision's, with a pyramid on
    two maps of stride 32. EfficientNet-Lite and all others have 7x7 features and two dense layers.

    Args:
        backbone: one of `NAMES` or of `APPLICATION_NAMES`, or a model, see `feature_maps`.
        weights: None for random ones, `"imagenet"`, or the path of torchvision's file for the same
            network.
        feature_pyramid: whether a pyramid goes on top of a model's maps; default where it has
            several. A name says it by `_fpn`.
        norm: kind of normalisation. A network that is not of this package keeps its own:
            `"batch"` leaves it as it is, `"frozen_batch"` freezes its batch norm.
        fpn_channels: channels of the pyramid.
        box_units: width of the dense layers, 4096 after VGG-16 and ZF and 1024 after others by
            default; a C4 head has none.
        box_convs: convolutions before them after a pyramid, see `box_trunk`.
        box_ranks: of the factors of the dense layers, see `dense`; None for whole layers.
        head_norm: kind of normalisation of the heads' convolutions.
        drop_rate: of EfficientNet-Lite's stochastic depth, see `efficientnet_lite`.
        **options: of networks of this package: `width`, `stride_in_1x1` and `pool_at_end`, see
            `resnet`, and `seed` of what is dropped while training.

    Raises:
        ValueError: for another name, with the nearest, and for a model that `feature_maps` or the
            arguments do not allow.
        OSError: if weights cannot be fetched or read.
        ImportError: if they come in a package that is not installed.
    """
    if isinstance(backbone, str) and backbone in NAMES:
        parts = _builtin_backbone(
            backbone,
            norm=norm,
            fpn_channels=fpn_channels,
            box_units=box_units,
            box_convs=box_convs,
            box_ranks=box_ranks,
            head_norm=head_norm,
            drop_rate=drop_rate,
            **options,
        )
        last = parts.model.output[max(parts.model.output)].shape[-1]
        parts = replace(
            parts,
            stages=stages_of(backbone, parts.model),
            channels=fpn_channels if parts.pyramid else last,
        )
        network = network_of(backbone)
        if weights == "imagenet" and network in SOURCES:
            load_imagenet(parts.model, parts.box_trunk, network)
            parts = replace(parts, preprocessing=(CAFFE_MEAN, CAFFE_STD, CAFFE_MEAN))
        elif weights is not None:
            # Reading other projects' files stands above and is fetched when asked for.
            convert = importlib.import_module("rcnn_keras.convert.backbone_weights")
            convert.load_backbone_weights(parts.model, parts.box_trunk, network, weights)
        return parts
    if isinstance(backbone, str):
        if backbone not in APPLICATION_NAMES:
            raise ValueError(f"backbone {nearest_name(backbone)}; received {backbone!r}")
        maps = feature_maps(application_model(backbone, weights))
        kind = APPLICATIONS[backbone.removesuffix("_fpn")].preprocessing
        pyramid = backbone.endswith("_fpn")
    else:
        if not isinstance(backbone, keras.Model):
            raise ValueError(f"backbone {nearest_name(backbone)}; received {backbone!r}")
        maps = feature_maps(backbone)
        kind = "inside" if maps.normalizes else "torch"
        pyramid = len(maps.strides) > 1 if feature_pyramid is None else feature_pyramid
    if not pyramid and len(set(maps.channels)) > 1:
        raise ValueError(
            f"feature_pyramid=False needs maps of equal channels, which the heads share; backbone "
            f"{maps.model.name!r} has {', '.join(map(str, maps.channels))}"
        )
    if norm == "frozen_batch":
        freeze_norms(maps.model)
    channels = fpn_channels if pyramid else maps.channels[0]
    return Backbone(
        model=maps.model,
        pyramid=pyramid,
        map_strides=maps.strides,
        strides=maps.strides,
        pooled_size=7,
        box_trunk=box_trunk(7, channels, box_units or 1024, box_convs, head_norm, box_ranks),
        mask_trunk=lambda: mask_trunk(MASK_POOLED_SIZE, channels, fpn_channels, head_norm),
        frozen_stages=min(2, len(maps.stages)),  # as of a ResNet
        stages=maps.stages,
        preprocessing=PREPROCESSING[kind],
        builtin=False,
        channels=channels,
    )


def freeze_norms(model: keras.Model) -> None:
    """Let the batch norms of a model keep their statistics, gains and shifts in training."""
    for layer in sublayers(model, recursive=True):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def _builtin_backbone(
    name: str,
    *,
    norm: str | None = "batch",
    width: float = 1.0,
    stride_in_1x1: bool = False,
    pool_at_end: bool = False,
    fpn_channels: int = 256,
    box_units: int | None = None,
    box_convs: int = 0,
    box_ranks: tuple[int, int] | None = None,
    head_norm: str | None = None,
    drop_rate: float = 0.0,
    seed: int = 0,
) -> Backbone:
    if name == "vgg16":
        return Backbone(
            model=vgg16(),
            pyramid=False,
            map_strides=(16,),
            strides=(16,),
            pooled_size=7,
            box_trunk=vgg16_fc(box_units or 4096, ranks=box_ranks, name="box_trunk", seed=seed),
            mask_trunk=lambda: mask_trunk(MASK_POOLED_SIZE, 512, 256, head_norm),
            frozen_stages=2,  # as in Fast R-CNN, 4.5
        )
    if name == "zf":
        size = ZF_POOLED_SIZE
        return Backbone(
            model=zf(),
            pyramid=False,
            map_strides=(16,),
            strides=(16,),
            pooled_size=size,
            box_trunk=vgg16_fc(
                box_units or 4096,
                ranks=box_ranks,
                name="box_trunk",
                pooled=(size, size, 256),
                seed=seed,
            ),
            mask_trunk=lambda: mask_trunk(MASK_POOLED_SIZE, 256, 256, head_norm),
            frozen_stages=0,  # as in Faster R-CNN, 3.3
        )
    if name in LITES:
        model = efficientnet_lite(LITES[name], norm, drop_rate=drop_rate, seed=seed)
        channels = model.output["c4"].shape[-1]
        maps = {level: model.output[level] for level in ("c2", "c3", "c4")}
        return Backbone(
            model=keras.Model(model.input, maps, name=name),
            pyramid=False,
            map_strides=(4, 8, 16),
            strides=(16,),
            pooled_size=7,
            box_trunk=box_trunk(7, channels, box_units or 1024, box_convs, head_norm, box_ranks),
            mask_trunk=lambda: mask_trunk(MASK_POOLED_SIZE, channels, 256, head_norm),
            frozen_stages=2,
            preprocessing=LITE_PREPROCESSING,
        )
    if name in DILATED:
        depth = int(name.removeprefix("resnet").removesuffix("_dc5"))
        model = resnet(depth, norm, stride_in_1x1, width=width, dilated=True)
        channels = model.output["c5"].shape[-1]
        return Backbone(
            model=model,
            pyramid=False,
            map_strides=(4, 8, 16, 16),
            strides=(16,),
            pooled_size=7,
            box_trunk=box_trunk(7, channels, box_units or 1024, box_convs, head_norm, box_ranks),
            mask_trunk=lambda: mask_trunk(MASK_POOLED_SIZE, channels, 256, head_norm),
            frozen_stages=2,
        )
    if not name.endswith("_fpn"):
        depth, groups, per_group = NETWORKS[name]
        grouped: dict[str, Any] = {"groups": groups, "width_per_group": per_group}
        c5 = resnet_c5(depth, norm, stride_in_1x1, width, name="box_trunk", **grouped)
        return Backbone(
            model=resnet(depth, norm, stride_in_1x1, 3, width, **grouped),
            pyramid=False,
            map_strides=(4, 8, 16),
            strides=(16,),
            pooled_size=MASK_POOLED_SIZE,
            box_trunk=c5,
            mask_trunk=lambda: keras.Model(c5.input, c5.get_layer("mean").input, name="mask_trunk"),
            frozen_stages=2,  # as in torchvision
        )
    map_strides: tuple[int, ...]
    strides: tuple[int, ...]
    preprocessing: tuple[tuple[float, ...], ...] = (IMAGENET_MEAN, IMAGENET_STD, IMAGENET_MEAN)
    if name == MOBILENET:
        model = mobilenet_v3_large(norm)
        map_strides, strides = (32, 32), (32,)
        frozen_stages = 3
    elif name.removesuffix("_fpn") in LITES:
        number = LITES[name.removesuffix("_fpn")]
        model, map_strides = (
            efficientnet_lite(number, norm, drop_rate=drop_rate, seed=seed),
            STRIDES,
        )
        strides, frozen_stages, preprocessing = STRIDES, 2, LITE_PREPROCESSING
    else:
        depth, groups, per_group = NETWORKS[name.removesuffix("_fpn")]
        grouped = {"groups": groups, "width_per_group": per_group}
        model = resnet(depth, norm, stride_in_1x1, width=width, pool_at_end=pool_at_end, **grouped)
        map_strides = STRIDES
        strides, frozen_stages = map_strides, 2
    return Backbone(
        model=model,
        pyramid=True,
        map_strides=map_strides,
        strides=strides,
        pooled_size=7,
        box_trunk=box_trunk(7, fpn_channels, box_units or 1024, box_convs, head_norm, box_ranks),
        mask_trunk=lambda: mask_trunk(MASK_POOLED_SIZE, fpn_channels, fpn_channels, head_norm),
        frozen_stages=frozen_stages,
        preprocessing=preprocessing,
    )
