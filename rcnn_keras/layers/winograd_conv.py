"""A 3x3 convolution by Winograd's algorithm."""

from typing import Any

import keras
from keras import layers

from rcnn_keras.ops import winograd_conv
from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class WinogradConv2D(layers.Conv2D):
    """A `Conv2D` of 3x3, stride 1 and same padding, with a fourth of the multiplications.

    For inference on a CPU, on maps of 256 channels and some thousand positions, where it takes
    three fifths of the time; see `ops.winograd_conv`. Computed in float32 whatever the policy: the
    transforms cancel large numbers.

    Args:
        filters: channels of the output.
        **kwargs: of `Conv2D`, but for what is fixed: size, strides, padding and groups.
    """

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(filters, 3, padding="same", **kwargs)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Convolve; the hook that Keras gives its descendants."""
        inputs, kernel = (keras.ops.cast(x, "float32") for x in (inputs, kernel))
        return keras.ops.cast(winograd_conv(inputs, kernel), self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        fixed = ("kernel_size", "strides", "padding", "data_format", "dilation_rate", "groups")
        return {k: v for k, v in super().get_config().items() if k not in fixed}


def conv3x3(filters: int, winograd: bool = False, **options: Any) -> layers.Conv2D:
    """Return a `Conv2D` of 3x3 with same padding, or a `WinogradConv2D`."""
    if winograd:
        return WinogradConv2D(filters, **options)
    return layers.Conv2D(filters, 3, padding="same", **options)
