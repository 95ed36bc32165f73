"""EfficientNet-Lite, the EfficientNet for phones, as a functional model from images to features.

EfficientNet (Tan and Le 2019) without squeeze-and-excite, with ReLU6 in place of swish and a first
and a last stage that do not grow with the network, so that it quantizes well
(https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite).
"""

import math
from functools import partial
from typing import NamedTuple

import keras
from keras import layers

from rcnn_keras.backbones.mobilenet_v3 import conv_norm, divisible
from rcnn_keras.layers.stochastic_depth import StochasticDepth
from rcnn_keras.ops.types import Tensor

# Table 1 of the paper: blocks, kernel, stride, expansion and channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM_CHANNELS, TOP_CHANNELS = 32, 1280
LEVELS = {2: "c2", 3: "c3", 5: "c4", 7: "c5"}  # the last stage of each stride
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}  # of the widths and of the depths
EPSILON = 1e-3  # of the batch norm that the weights were trained with
LITE_MEAN, LITE_STD = (127.0,) * 3, (128.0,) * 3

_convolve = partial(conv_norm, symmetric=False, epsilon=EPSILON)


class Block(NamedTuple):
    """An inverted residual block: its name and stage, and the numbers of `STAGES`."""

    name: str
    stage: int
    size: int
    stride: int
    expansion: int
    channels: int


def efficientnet_lite(
    number: int,
    norm: str | None = "batch",
    *,
    drop_rate: float = 0.0,
    seed: int = 0,
    num_logits: int | None = None,
) -> keras.Model:
    """Return EfficientNet-Lite0, 1 or 2.

    Strided convolutions are padded as TensorFlow's `"same"`: at the bottom and right by as much as
    at the top and left or by one more, by the size of the image.

    Args:
        number: 0, 1 or 2.
        norm: `"batch"`, `"frozen_batch"` or None, see `layers.normalization`; None gives the
            convolutions biases.
        drop_rate: probability of the last block's `StochasticDepth`; that of the others grows
            linearly from 0 to it. The weights were trained with 0.2.
        seed: of stochastic depth; each block takes the next.
        num_logits: outputs of a classifier on top, 1000 for the weights of ImageNet.

    Returns:
        Functional model from `(B, H, W, 3)`, less `LITE_MEAN` and over `LITE_STD`, to
        `{"c2": .., "c3": .., "c4": .., "c5": ..}` of stride 4, 8, 16 and 32: the output of the last
        block of each stride, without activation. With `num_logits` also `"logits"`.

    Raises:
        ValueError: for `norm="group"`, as most of the layers' channels do not divide by 32, and
            for an unknown kind.
    """
    if norm == "group":
        raise ValueError(
            "EfficientNet-Lite has no norm='group': its 16, 24, 40 .. channels do not divide into "
            "32 groups; use 'batch' or 'frozen_batch'"
        )
    width, depth = SCALES[number]
    blocks = _blocks(width, depth)
    inputs = keras.Input((None, None, 3), name="images")
    x = _convolve(inputs, STEM_CHANNELS, 3, 2, norm, "relu6", "stem")
    outputs = {}
    for place, block in enumerate(blocks):
        rate = drop_rate * place / len(blocks)
        x = _inverted_residual(x, block, norm, rate, seed + place)
        if block.stage in LEVELS:
            outputs[LEVELS[block.stage]] = x
    if num_logits is not None:
        x = _convolve(x, TOP_CHANNELS, 1, 1, norm, "relu6", "top")
        x = layers.GlobalAveragePooling2D(name="mean")(x)
        outputs["logits"] = layers.Dense(num_logits, name="logits")(x)
    return keras.Model(inputs, outputs, name=f"efficientnet_lite{number}")


def block_names(number: int) -> list[str]:
    """Return the names of the blocks, `stage1_0` and so on, from the image upwards."""
    return [block.name for block in _blocks(*SCALES[number])]


def _blocks(width: float, depth: float) -> list[Block]:
    """Return the blocks of a network, from the image upwards."""
    blocks = []
    for stage, (count, size, stride, expansion, channels) in enumerate(STAGES, start=1):
        if 1 < stage < len(STAGES):
            count = math.ceil(depth * count)
        for number in range(count):
            step = stride if number == 0 else 1
            scaled = divisible(channels * width)
            blocks.append(Block(f"stage{stage}_{number}", stage, size, step, expansion, scaled))
    return blocks


def _inverted_residual(
    x: Tensor, block: Block, norm: str | None, drop_rate: float, seed: int
) -> Tensor:
    """Widen, filter each channel and narrow, beside a shortcut (MobileNetV2, figure 4)."""
    y, name = x, block.name
    if block.expansion != 1:
        y = _convolve(y, block.expansion * x.shape[-1], 1, 1, norm, "relu6", f"{name}_expand")
    y = _convolve(y, None, block.size, block.stride, norm, "relu6", f"{name}_depthwise")
    y = _convolve(y, block.channels, 1, 1, norm, None, f"{name}_project")
    if block.stride == 1 and x.shape[-1] == block.channels:
        if drop_rate:
            y = StochasticDepth(drop_rate, seed, name=f"{name}_drop")(y)
        y = layers.Add(name=f"{name}_add")([y, x])
    return y
