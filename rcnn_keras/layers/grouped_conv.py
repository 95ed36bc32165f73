"""A convolution whose channels are convolved in groups, as in ResNeXt."""

from typing import Any

import keras
from keras import layers

from rcnn_keras.ops import grouped_conv
from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class GroupedConv2D(layers.Conv2D):
    """A `Conv2D` of several groups by TensorFlow's own kernel.

    Keras compiles such a convolution by XLA, once more for each size of an image, and what is
    compiled cannot be exported.

    Args:
        filters: channels of the output, a multiple of the groups.
        kernel_size: side of the kernel.
        groups: of the channels.
        strides: positions of the map from one to the next, down and across.
        **kwargs: of `Conv2D`, without dilation.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        groups: int,
        strides: int | tuple[int, int] = (1, 1),
        **kwargs: Any,
    ) -> None:
        super().__init__(filters, kernel_size, strides, groups=groups, **kwargs)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Convolve; the hook that Keras gives its descendants."""
        return grouped_conv(inputs, kernel, self.strides, self.padding)
