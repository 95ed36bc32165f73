"""The network of Zeiler and Fergus (2014), the fast one of the Faster R-CNN paper."""

import keras
from keras import layers

from rcnn_keras.layers.local_response_norm import WithinChannelNorm

CONVS = ((96, 7, 2), (256, 5, 2), (384, 3, 1), (384, 3, 1), (256, 3, 1))  # channels, size, stride
POOLED_SIZE = 6


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
    for number, (channels, size, stride) in enumerate(CONVS, start=1):
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
            x = WithinChannelNorm(name=f"norm{number}")(x)
            x = layers.ZeroPadding2D(1, name=f"pool{number}_pad")(x)
            x = layers.MaxPooling2D(3, strides=2, name=f"pool{number}")(x)
    return keras.Model(inputs, {"c4": x}, name="zf")
