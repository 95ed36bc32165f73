"""VGG-16 and ZF (Zeiler and Fergus 2014), the deep and the fast network of Faster R-CNN."""

from collections.abc import Sequence

import keras
from keras import layers

from rcnn_keras.backbones.trunks import dropped_dense
from rcnn_keras.layers.local_response_norm import LocalResponseNorm

BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


def vgg16() -> keras.Model:
    """Return VGG-16's convolutions without the last pooling.

    Returns:
        Functional model from `(B, H, W, 3)` to `{"c4": ..}`, conv5_3's map of stride 16. Layers
        carry keras.applications' names, `block5_conv3`.
    """
    inputs = x = keras.Input((None, None, 3), name="images")
    for block, (channels, repeats) in enumerate(BLOCKS, start=1):
        if block > 1:
            x = layers.MaxPooling2D(2, strides=2, name=f"block{block - 1}_pool")(x)
        for k in range(1, repeats + 1):
            x = layers.Conv2D(
                channels,
                3,
                padding="same",
                activation="relu",
                kernel_initializer="he_normal",
                name=f"block{block}_conv{k}",
            )(x)
    return keras.Model(inputs, {"c4": x}, name="vgg16")


def vgg16_fc(
    units: int = 4096,
    dropout: float = 0.5,
    ranks: Sequence[int] | None = None,
    name: str | None = None,
    pooled: tuple[int, int, int] = (7, 7, 512),
    seed: int = 0,
) -> keras.Model:
    """Return fc6 and fc7 with their dropout: the second stage of the papers' detectors.

    Args:
        units: width of both layers.
        dropout: share of units dropped while training.
        ranks: of the layers' factors, see `dense`; None for whole layers.
        name: the model's name.
        pooled: shape of a RoI's features, `(S, S, C)`.
        seed: of what fc6 drops, and one more of what fc7 does.

    Returns:
        Functional model from `(n, S, S, C)` to `(n, units)`.
    """
    inputs = keras.Input(pooled, name="pooled")
    x = layers.Flatten(name="flatten")(inputs)
    x = dropped_dense(x, units, dropout, ranks, seed)
    return keras.Model(inputs, x, name=name)


ZF_CONVS = (  # channels, size, stride
    *((96, 7, 2), (256, 5, 2)),
    *((384, 3, 1), (384, 3, 1), (256, 3, 1)),
)
ZF_POOLED_SIZE = 6


def zf() -> keras.Model:
    """Return the five convolutions, as the Caffe model of Faster R-CNN has them.

    After the first two come local response normalisation and 3x3 max pooling of stride 2. Maps of
    images whose sides divide by 16 are a sixteenth of them; Caffe rounds up when it pools, and its
    maps have one row and column more.

    Returns:
        Functional model from `(B, H, W, 3)` to `{"c4": ..}`, conv5's map of 256 channels and
        stride 16.
    """
    inputs = x = keras.Input((None, None, 3), name="images")
    for number, (channels, size, stride) in enumerate(ZF_CONVS, start=1):
        halved = stride == 2
        if halved:  # "same" would pad the bottom and right alone
            x = layers.ZeroPadding2D(size // 2, name=f"conv{number}_pad")(x)
        x = layers.Conv2D(
            channels,
            size,
            strides=stride,
            padding="valid" if halved else "same",
            activation="relu",
            kernel_initializer="he_normal",
            name=f"conv{number}",
        )(x)
        if halved:
            x = LocalResponseNorm(3, 5e-5, within_channel=True, name=f"norm{number}")(x)
            x = layers.ZeroPadding2D(1, name=f"pool{number}_pad")(x)
            x = layers.MaxPooling2D(3, strides=2, name=f"pool{number}")(x)
    return keras.Model(inputs, {"c4": x}, name="zf")
