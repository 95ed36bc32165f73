"""MobileNetV3-Large (Howard et al. 2019) as a functional model from normalised images to features.

Layers carry the names of torchvision's modules: `features_4_block_1_conv` and `.._norm` stand for
`features.4.block.1.0` and `.1`, `features_4_block_2_fc1` for `features.4.block.2.fc1`.
"""

import keras
from keras import layers

from rcnn_keras.layers.normalization import EPSILON, normalization
from rcnn_keras.ops.types import Tensor

# Table 1 of the paper: kernel, expanded channels, channels, squeeze-and-excite, activation, stride.
BLOCKS = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hard_swish", 2),
    (3, 200, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 184, 80, False, "hard_swish", 1),
    (3, 480, 112, True, "hard_swish", 1),
    (3, 672, 112, True, "hard_swish", 1),
    (5, 672, 160, True, "hard_swish", 2),
    (5, 960, 160, True, "hard_swish", 1),
    (5, 960, 160, True, "hard_swish", 1),
)
C4_BLOCK = 13  # the last one that halves the map


def mobilenet_v3_large(norm: str | None = "batch") -> keras.Model:
    """Return MobileNetV3-Large without its classifier.

    Args:
        norm: `"batch"`, `"frozen_batch"` or None, see `layers.normalization`; None gives the
            convolutions biases.

    Returns:
        Functional model from `(B, H, W, 3)` to `{"c4": .., "c5": ..}`, both of stride 32: the 160
        channels of the last block that halves the map, and the 960 of the last convolution. They
        are the two maps that torchvision's detectors read.

    Raises:
        ValueError: for `norm="group"`, as most of the layers' channels do not divide by 32, and
            for an unknown kind.
    """
    if norm == "group":
        raise ValueError(
            "MobileNetV3 has no norm='group': its 16, 24, 40 .. channels do not divide into 32 "
            "groups; use 'batch' or 'frozen_batch'"
        )
    inputs = keras.Input((None, None, 3), name="images")
    x = conv_norm(inputs, 16, 3, 2, norm, "hard_swish", "features_0")
    outputs = {}
    for number, block in enumerate(BLOCKS, start=1):
        x = _inverted_residual(x, *block, norm, f"features_{number}")
        if number == C4_BLOCK:
            outputs["c4"] = x
    outputs["c5"] = conv_norm(x, 960, 1, 1, norm, "hard_swish", f"features_{len(BLOCKS) + 1}")
    return keras.Model(inputs, outputs, name="mobilenet_v3_large")


def _inverted_residual(
    x: Tensor,
    size: int,
    expanded: int,
    channels: int,
    squeeze: bool,
    activation: str,
    stride: int,
    norm: str | None,
    name: str,
) -> Tensor:
    """Widen, filter each channel, weigh the channels and narrow, beside a shortcut (figure 4)."""
    parts = (f"{name}_block_{k}" for k in range(4))
    y = x
    if expanded != x.shape[-1]:
        y = conv_norm(y, expanded, 1, 1, norm, activation, next(parts))
    y = conv_norm(y, None, size, stride, norm, activation, next(parts))
    if squeeze:
        y = _squeeze_excite(y, next(parts))
    y = conv_norm(y, channels, 1, 1, norm, None, next(parts))
    if stride == 1 and x.shape[-1] == channels:
        y = layers.Add(name=f"{name}_add")([y, x])
    return y


def _squeeze_excite(x: Tensor, name: str) -> Tensor:
    """Weigh each channel by what the mean over the map says (Hu et al. 2018)."""
    channels = x.shape[-1]
    y = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_avgpool")(x)
    squeezed = divisible(channels // 4)
    y = layers.Conv2D(squeezed, 1, activation="relu", name=f"{name}_fc1")(y)
    y = layers.Conv2D(channels, 1, activation="hard_sigmoid", name=f"{name}_fc2")(y)
    return layers.Multiply(name=f"{name}_scale")([x, y])


def divisible(channels: float) -> int:
    """Return the nearest multiple of 8, or the next where that would lose more than a tenth."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def conv_norm(
    x: Tensor,
    channels: int | None,
    size: int,
    stride: int,
    norm: str | None,
    activation: str | None,
    name: str,
    *,
    symmetric: bool = True,
    epsilon: float = EPSILON,
) -> Tensor:
    """Convolve, or filter each channel alone where `channels` is None; normalise and activate.

    Args:
        x: the map.
        channels: of the result, None for one filter a channel.
        size: of the kernel.
        stride: its stride.
        norm: kind of normalisation, see `layers.normalization`.
        activation: Keras' name of it, or None.
        name: what the names of the layers begin with.
        symmetric: pad a strided convolution by as much on all sides, as torchvision does; otherwise
            as TensorFlow's `"same"`, by the size of the map.
        epsilon: of the normalisation.
    """
    padding = "same"
    if stride > 1 and symmetric:  # "same" would pad the bottom and right alone
        x = layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
        padding = "valid"
    options = {
        "strides": stride,
        "padding": padding,
        "use_bias": norm is None,
        "name": f"{name}_conv",
    }
    if channels is None:
        # The fan out of a depthwise kernel (h, w, C, 1) is what Keras takes for its fan in.
        x = layers.DepthwiseConv2D(size, depthwise_initializer=_he("fan_in"), **options)(x)
    else:
        x = layers.Conv2D(channels, size, kernel_initializer=_he("fan_out"), **options)(x)
    x = normalization(norm, f"{name}_norm", epsilon=epsilon)(x)
    return layers.Activation(activation, name=f"{name}_{activation}")(x) if activation else x


def _he(mode: str) -> keras.initializers.Initializer:
    return keras.initializers.VarianceScaling(2.0, mode, "untruncated_normal")
