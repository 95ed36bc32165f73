"""The networks that R-CNN runs on warped regions: AlexNet and VGG-16, by name."""

from collections.abc import Sequence

import keras
from keras import layers, ops

from rcnn_keras.backbones.trunks import dropped_dense
from rcnn_keras.backbones.vgg import vgg16, vgg16_fc
from rcnn_keras.layers import LocalResponseNorm
from rcnn_keras.ops.types import Tensor

CHANNELS = (96, 256, 384, 384, 256)


def alexnet(
    crop_size: int = 227,
    channels: Sequence[int] = CHANNELS,
    units: int = 4096,
    dropout: float = 0.5,
) -> keras.Model:
    """Return AlexNet up to fc7, as the Caffe model behind R-CNN has it.

    The second, fourth and fifth convolution have two groups, each of which sees half of the
    channels, as the paper spread them over two GPUs; they are two layers here, `conv2_1` and
    `conv2_2`. Normalisation follows pooling, as in Caffe's model; in the paper it precedes it.

    Args:
        crop_size: side S of the square input in pixels, at least 67.
        channels: of the five convolutions, even.
        units: width of fc6 and fc7.
        dropout: share of their units dropped while training.

    Returns:
        Functional model from `(n, S, S, 3)` to `{"pool5" (n, 6, 6, 256), "fc7" (n, 4096)}`, for
        the defaults.
    """
    inputs = keras.Input((crop_size, crop_size, 3), name="crops")
    x = _conv(inputs, channels[0], 11, "conv1", strides=4, padding="valid")
    x = layers.MaxPooling2D(3, strides=2, name="pool1")(x)
    x = LocalResponseNorm(name="norm1")(x)
    x = _grouped_conv(x, channels[1], 5, "conv2")
    x = layers.MaxPooling2D(3, strides=2, name="pool2")(x)
    x = LocalResponseNorm(name="norm2")(x)
    x = _conv(x, channels[2], 3, "conv3")
    x = _grouped_conv(x, channels[3], 3, "conv4")
    x = _grouped_conv(x, channels[4], 3, "conv5")
    pool5 = layers.MaxPooling2D(3, strides=2, name="pool5")(x)
    x = layers.Flatten(name="flatten")(pool5)
    fc7 = dropped_dense(x, units, dropout)
    return keras.Model(inputs, {"pool5": pool5, "fc7": fc7}, name="alexnet")


def _conv(
    x: Tensor, channels: int, size: int, name: str, strides: int = 1, padding: str = "same"
) -> Tensor:
    return layers.Conv2D(
        channels,
        size,
        strides=strides,
        padding=padding,
        activation="relu",
        kernel_initializer="he_normal",
        name=name,
    )(x)


def _grouped_conv(x: Tensor, channels: int, size: int, name: str) -> Tensor:
    """Two convolutions side by side: on CPUs TensorFlow has a grouped one only through XLA."""
    halves = ops.split(x, 2, axis=-1)
    parts = [
        _conv(half, channels // 2, size, f"{name}_{k}") for k, half in enumerate(halves, start=1)
    ]
    return layers.Concatenate(name=name)(parts)


CROP_SIZES = {"alexnet": 227, "vgg16": 224}  # side of the crop that each was made for

SMALLEST_CROP = 67  # that leaves AlexNet's pool5 a position


def crop_network(
    name: str,
    *,
    crop_size: int | None = None,
    channels: Sequence[int] | None = None,
    units: int = 4096,
) -> keras.Model:
    """Build a network from crops to R-CNN's two kinds of features.

    Args:
        name: `"alexnet"` or `"vgg16"`.
        crop_size: side S of the crops in pixels; default that of the papers. VGG-16 has no other.
        channels: of AlexNet's five convolutions, see `alexnet`. VGG-16 has its own.
        units: width of fc6 and fc7.

    Returns:
        Functional model from `(n, S, S, 3)` to `{"pool5" (n, s, s, C), "fc7" (n, units)}`, where
        s x s x C is 6 x 6 x 256 for AlexNet and 7 x 7 x 512 for VGG-16.
    """
    crop_size = crop_size or CROP_SIZES[name]
    if name == "alexnet":
        return alexnet(crop_size, CHANNELS if channels is None else channels, units)
    inputs = keras.Input((crop_size, crop_size, 3), name="crops")
    pool5 = layers.MaxPooling2D(2, strides=2, name="pool5")(vgg16()(inputs)["c4"])
    fc7 = vgg16_fc(units, name="box_trunk")(pool5)
    return keras.Model(inputs, {"pool5": pool5, "fc7": fc7}, name="vgg16_crops")
