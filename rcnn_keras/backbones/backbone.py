"""A backbone by its name, with the second-stage trunk that goes with it."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import keras

from rcnn_keras.backbones.mobilenet_v3 import mobilenet_v3_large
from rcnn_keras.backbones.resnet import DEPTHS, resnet, resnet_c5
from rcnn_keras.backbones.trunks import box_trunk, mask_trunk
from rcnn_keras.backbones.vgg import vgg16, vgg16_fc
from rcnn_keras.backbones.zf import POOLED_SIZE as ZF_POOLED_SIZE
from rcnn_keras.backbones.zf import zf
from rcnn_keras.ops import recompute
from rcnn_keras.ops.types import Tensor


class Recomputed:
    """Calls a backbone so that the maps inside its first stages are not kept for the gradient.

    These are the largest maps of all and the cheapest to compute.

    Args:
        backbone: functional model from images to `{"c2": .., ...}`, one layer after another where
            the stages meet. Its layers are shared.
        stages: what the names of the layers of these stages begin with, at least one.
    """

    def __init__(self, backbone: keras.Model, stages: Sequence[Sequence[str]]) -> None:
        inside = [layer for layer in backbone.layers if is_of(layer, stages)]
        border, names = inside[-1].output, {layer.name for layer in inside}
        maps = backbone.output
        early = {k: x for k, x in maps.items() if x._keras_history.operation.name in names}
        late = {k: x for k, x in maps.items() if k not in early}
        self.first = keras.Model(backbone.input, early | {"border": border})
        self.rest = keras.Model(border, late) if late else None

    def __call__(self, images: Tensor, training: bool) -> dict[str, Tensor]:
        """Return the maps of `images` by their levels."""
        maps = recompute(lambda x: self.first(x, training=training), images)
        border = maps.pop("border")
        return maps | (self.rest(border, training=training) if self.rest else {})


def is_of(layer: keras.layers.Layer, stages: Sequence[Sequence[str]]) -> bool:
    """Whether a layer belongs to stages that are given by what the names of theirs begin with."""
    names = [name for stage in stages for name in stage]
    return any(f"{layer.name}_".startswith(f"{name}_") for name in names)


MOBILENET = "mobilenet_v3_large_fpn"

NAMES = (
    *(f"resnet{d}_fpn" for d in DEPTHS),
    *(f"resnet{d}" for d in DEPTHS),
    *(MOBILENET, "vgg16", "zf"),
)

RESNET_STAGES = (("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",))

VGG_STAGES = tuple((f"block{number}",) for number in range(1, 6))

ZF_STAGES = (("conv1",), ("conv2",), ("conv3", "conv4", "conv5"))

# A stage of MobileNetV3 begins where the map is halved, as torchvision counts them.
MOBILENET_STARTS = (0, 2, 4, 7, 13, 16, 17)

MOBILENET_STAGES = tuple(
    tuple(f"features_{number}" for number in range(first, stop))
    for first, stop in pairwise(MOBILENET_STARTS)
)

MASK_POOLED_SIZE = 14


def stages_of(name: str) -> tuple[tuple[str, ...], ...]:
    """Return what the names of the layers in each stage of a backbone begin with."""
    if name == "vgg16":
        return VGG_STAGES
    if name == "zf":
        return ZF_STAGES
    if name == MOBILENET:
        return MOBILENET_STAGES
    return RESNET_STAGES if name.endswith("_fpn") else RESNET_STAGES[:4]


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
        frozen_stages: how many of the first stages stand still when little data is fine-tuned on.
    """

    model: keras.Model
    pyramid: bool
    map_strides: tuple[int, ...]
    strides: tuple[int, ...]
    pooled_size: int
    box_trunk: keras.Model
    mask_trunk: Callable[[], keras.Model]
    frozen_stages: int


def build_backbone(
    name: str,
    *,
    norm: str | None = "batch",
    width: float = 1.0,
    stride_in_1x1: bool = False,
    fpn_channels: int = 256,
    box_units: int | None = None,
    box_convs: int = 0,
    box_ranks: Sequence[int] | None = None,
    head_norm: str | None = None,
    seed: int = 0,
) -> Backbone:
    """Build a backbone and the trunks of its heads.

    `resnetD_fpn` has RoIs pooled to 7x7 from a pyramid and two dense layers; `resnetD` alone is
    the C4 detector of the ResNet paper (14x14 from stride 16, then the fifth stage, which the mask
    head shares); `vgg16` and `zf` are the detectors of the Faster R-CNN paper (7x7 from conv5_3 and
    6x6 from conv5, then fc6 and fc7); `mobilenet_v3_large_fpn` is torchvision's, with a pyramid on
    two maps of stride 32.

    Args:
        name: one of `NAMES`.
        norm: kind of normalisation of a ResNet or MobileNet.
        width: factor of a ResNet's channels, see `resnet`; the others have none.
        stride_in_1x1: see `resnet`.
        fpn_channels: channels of the pyramid.
        box_units: width of the dense layers, 1024 after a pyramid and 4096 after VGG and ZF by
            default; a C4 head has none.
        box_convs: convolutions before them after a pyramid, see `box_trunk`.
        box_ranks: of the factors of the dense layers, see `dense`; None for whole layers.
        head_norm: kind of normalisation of the heads' convolutions.
        seed: of the dropout after VGG's and ZF's dense layers.

    Raises:
        ValueError: for another name, with the nearest.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(str(name), NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"backbone must be one of {', '.join(NAMES)}; received {name!r}{hint}")
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
    if not name.endswith("_fpn"):
        depth = int(name.removeprefix("resnet"))
        c5 = resnet_c5(depth, norm, stride_in_1x1, width, name="box_trunk")
        return Backbone(
            model=resnet(depth, norm, stride_in_1x1, 3, width),
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
    if name == MOBILENET:
        model, map_strides, strides = mobilenet_v3_large(norm), (32, 32), (32,)
        frozen_stages = 3
    else:
        depth = int(name.removeprefix("resnet").removesuffix("_fpn"))
        model, map_strides = resnet(depth, norm, stride_in_1x1, width=width), (4, 8, 16, 32)
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
    )
