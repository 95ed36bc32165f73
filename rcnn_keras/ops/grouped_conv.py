"""Convolution in groups of channels (Xie et al. 2017, 3.3)."""

from collections.abc import Sequence

import tensorflow as tf

from rcnn_keras.ops.types import Tensor


def grouped_conv(
    images: Tensor, kernel: Tensor, strides: Sequence[int] = (1, 1), padding: str = "same"
) -> Tensor:
    """Convolve each group of channels with kernels of its own.

    Args:
        images: `(B, H, W, C)`.
        kernel: `(h, w, C / g, F)` for g groups, of which the first gives the first F / g channels.
        strides: down and across.
        padding: `"same"`, or `"valid"` for none.

    Returns:
        `(B, H', W', F)`.
    """
    return tf.nn.conv2d(images, kernel, list(strides), padding.upper())
