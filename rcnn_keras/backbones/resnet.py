"""ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017): normalised images to C2..C5.

Layers carry the names of torchvision's modules, `layer1_0_conv1` for `layer1.0.conv1`.
"""

from dataclasses import dataclass

import keras
from keras import layers

from rcnn_keras.layers.grouped_conv import GroupedConv2D
from rcnn_keras.layers.normalization import normalization
from rcnn_keras.ops.types import Tensor

DEPTHS = {
    18: ("basic", (2, 2, 2, 2)),
    34: ("basic", (3, 4, 6, 3)),
    50: ("bottleneck", (3, 4, 6, 3)),
    101: ("bottleneck", (3, 4, 23, 3)),
}
# By name: depth, groups of channels in the 3x3 convolutions, channels a group at first.
NETWORKS = {f"resnet{depth}": (depth, 1, 64) for depth in DEPTHS} | {
    "resnext50_32x4d": (50, 32, 4),
    "resnext101_32x8d": (101, 32, 8),
}
STEM_CHANNELS = 64
STAGE_CHANNELS = (64, 128, 256, 512)


@dataclass(frozen=True)
class _Design:
    """What all blocks of a network share; the arguments of `resnet`."""

    depth: int
    norm: str | None
    stride_in_1x1: bool
    width: float
    groups: int
    width_per_group: int
    dilated: bool = False

    def __post_init__(self) -> None:
        if self.depth not in DEPTHS:
            raise ValueError(
                f"ResNet's depth must be one of {sorted(DEPTHS)}; received {self.depth!r}"
            )
        check_width(self.width, self.norm, self.width_per_group)

    @property
    def is_basic(self) -> bool:
        """Whether a block has two 3x3 convolutions, and not a bottleneck of three."""
        return DEPTHS[self.depth][0] == "basic"


def resnet(
    depth: int,
    norm: str | None = "batch",
    stride_in_1x1: bool = False,
    stages: int = 4,
    width: float = 1.0,
    pool_at_end: bool = False,
    *,
    groups: int = 1,
    width_per_group: int = 64,
    dilated: bool = False,
) -> keras.Model:
    """Return a ResNet or ResNeXt without its classifier.

    Args:
        depth: 18, 34, 50 or 101.
        norm: kind of normalisation, see `layers.normalization`.
        stride_in_1x1: halve the map in a bottleneck's first 1x1 convolution, as the first paper
            did, and not in its 3x3 convolution.
        stages: how many of the four stages to build, 3 for a C4 detector.
        width: factor of every layer's channels (Zagoruyko and Komodakis 2016 widen; below 1 it
            narrows), a multiple of 1/64.
        groups: of the channels of a bottleneck's 3x3 convolution, 32 in ResNeXt.
        width_per_group: channels of such a group in the first stage; twice as many in the next.
        dilated: the last stage keeps the map of the one before, and its 3x3 convolutions read every
            second position (Dilated-C5); of bottlenecks alone.
        pool_at_end: pad for the max pooling at the bottom and right alone, as TensorFlow does for
            maps of even sizes, and not on all sides.

    Returns:
        Functional model from `(B, H, W, 3)` to `{"c2": .., "c5": ..}` of strides 4, 8, 16, 32; or
        16 twice if dilated.

    Raises:
        ValueError: for another depth, and for a width that gives no whole channels, or with group
            norm no whole groups of 32.
    """
    design = _Design(depth, norm, stride_in_1x1, width, groups, width_per_group, dilated)
    inputs = keras.Input((None, None, 3), name="images")
    x = _conv(_padded(inputs, 7, 2, "conv1"), int(STEM_CHANNELS * width), 7, 2, norm, "conv1")
    x = normalization(norm, "bn1")(x)
    border = ((0, 1), (0, 1)) if pool_at_end else 1
    x = layers.ZeroPadding2D(border, name="maxpool_pad")(x)
    x = layers.Activation("relu", name="relu")(x)
    x = layers.MaxPooling2D(3, strides=2, name="maxpool")(x)
    outputs = {}
    for stage in range(1, stages + 1):
        x = _stage(x, design, stage)
        outputs[f"c{stage + 1}"] = x
    return keras.Model(inputs, outputs, name=f"resnet{depth}")


def resnet_c5(
    depth: int,
    norm: str | None = "batch",
    stride_in_1x1: bool = False,
    width: float = 1.0,
    name: str | None = None,
    *,
    groups: int = 1,
    width_per_group: int = 64,
) -> keras.Model:
    """Return the last stage and the mean over its map: the second stage of a C4 detector.

    Args:
        depth: as in `resnet`.
        norm: as in `resnet`.
        stride_in_1x1: as in `resnet`.
        width: as in `resnet`.
        name: the model's name.
        groups: as in `resnet`.
        width_per_group: as in `resnet`.

    Returns:
        Functional model from `(n, S, S, C4 channels)` to `(n, C5 channels)`.
    """
    design = _Design(depth, norm, stride_in_1x1, width, groups, width_per_group)
    channels = int((256 if design.is_basic else 1024) * width)
    inputs = keras.Input((None, None, channels), name="pooled")
    x = _stage(inputs, design, 4)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(inputs, x, name=name)


def check_width(width: float, norm: str | None, width_per_group: int = 64) -> None:
    """Raise ValueError for a width of which `width_rule` has something to say."""
    if rule := width_rule(width, norm, width_per_group):
        raise ValueError(f"ResNet's width {rule}; received {width!r}")


def width_rule(width: float, norm: str | None, width_per_group: int = 64) -> str | None:
    """Return the rule that a width breaks, or None: channels and group norm's groups are whole."""
    least = 32 / STEM_CHANNELS if norm == "group" else 1 / width_per_group
    if width > 0 and width % least == 0:
        return None
    return (
        "must be a multiple of 1/2 above 0 with norm='group', whose 32 groups are whole"
        if norm == "group"
        else f"must be a multiple of 1/{width_per_group} above 0, which gives whole channels"
    )


def _stage(x: Tensor, design: _Design, stage: int) -> Tensor:
    channels = STAGE_CHANNELS[stage - 1]
    dilated = design.dilated and stage == 4
    for block in range(DEPTHS[design.depth][1][stage - 1]):
        stride = 2 if block == 0 and stage > 1 and not dilated else 1
        name = f"layer{stage}_{block}"
        if design.is_basic:
            x = _basic(x, int(channels * design.width), stride, design.norm, name)
        else:
            x = _bottleneck(x, design, channels, stride, 2 if dilated else 1, name)
    return x


def _basic(x: Tensor, channels: int, stride: int, norm: str | None, name: str) -> Tensor:
    """Two 3x3 convolutions beside a shortcut."""
    y = _padded(x, 3, stride, f"{name}_conv1")
    y = _conv_norm(y, channels, 3, stride, norm, f"{name}_conv1", f"{name}_bn1")
    y = layers.Activation("relu", name=f"{name}_relu1")(y)
    y = _conv_norm(y, channels, 3, 1, norm, f"{name}_conv2", f"{name}_bn2")
    return _join(x, y, channels, stride, norm, name)


def _bottleneck(
    x: Tensor, design: _Design, channels: int, stride: int, dilation: int, name: str
) -> Tensor:
    """1x1, 3x3 and 1x1 convolutions beside a shortcut."""
    norm, groups = design.norm, design.groups
    width = int(channels * design.width * design.width_per_group / 64) * groups
    channels = int(channels * design.width) * 4
    first, second = (stride, 1) if design.stride_in_1x1 else (1, stride)
    y = _conv_norm(x, width, 1, first, norm, f"{name}_conv1", f"{name}_bn1")
    y = _padded(y, 3, second, f"{name}_conv2")
    y = layers.Activation("relu", name=f"{name}_relu1")(y)
    y = _conv(y, width, 3, second, norm, f"{name}_conv2", groups, dilation)
    y = normalization(norm, f"{name}_bn2")(y)
    y = layers.Activation("relu", name=f"{name}_relu2")(y)
    y = _conv_norm(y, channels, 1, 1, norm, f"{name}_conv3", f"{name}_bn3")
    return _join(x, y, channels, stride, norm, name)


def _join(x: Tensor, y: Tensor, channels: int, stride: int, norm: str | None, name: str) -> Tensor:
    if stride != 1 or x.shape[-1] != channels:
        x = _conv_norm(
            x, channels, 1, stride, norm, f"{name}_downsample_conv", f"{name}_downsample_bn"
        )
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.Activation("relu", name=f"{name}_relu")(x)


def _conv_norm(
    x: Tensor,
    channels: int,
    size: int,
    stride: int,
    norm: str | None,
    conv_name: str,
    norm_name: str,
) -> Tensor:
    return normalization(norm, norm_name)(_conv(x, channels, size, stride, norm, conv_name))


def _padded(x: Tensor, size: int, stride: int, name: str) -> Tensor:
    """Pad for what halves the map; "same" would pad the bottom and right alone.

    Padding comes before the ReLU, which leaves zeros as they are: its output and the input of what
    follows, both of which the gradient needs, are then one tensor.
    """
    if stride == 1:
        return x
    return layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)


def _conv(
    x: Tensor,
    channels: int,
    size: int,
    stride: int,
    norm: str | None,
    name: str,
    groups: int = 1,
    dilation: int = 1,
) -> Tensor:
    options = {
        "strides": stride,
        "padding": "same" if stride == 1 else "valid",
        "use_bias": norm is None,
        "kernel_initializer": keras.initializers.VarianceScaling(
            2.0, "fan_out", "untruncated_normal"
        ),
        "name": name,
    }
    if groups > 1:
        return GroupedConv2D(channels, size, groups, **options)(x)
    return layers.Conv2D(channels, size, dilation_rate=dilation, **options)(x)
