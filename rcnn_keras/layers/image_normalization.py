"""From pixels to what a backbone reads."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class ImageNormalization(keras.layers.Layer):
    """Subtract the mean, divide by the deviation, and set the padding to zero.

    The map is padded at the bottom and right to a multiple of `size_divisor`, so that every level
    of a pyramid is half of the one before; with `cut`, what goes beyond the least multiple that
    holds the batch's images is taken away. Zero after normalisation is torchvision's padding; a
    network that normalises its images once more needs another.

    Args:
        mean: mean of each RGB channel, 0..255.
        std: deviation of each RGB channel, 0..255.
        size_divisor: what height and width must divide by, in pixels.
        padding: value of each channel where there is no image, after normalisation.
        cut: whether padding that is not needed is cut off: the sizes of the images at hand decide
            that of the map.

    Call arguments:
        images: `(B, H, W, 3)` RGB in 0..255.
        image_sizes: `(B, 2)` integers, height and width of the valid part.

    Returns:
        `(B, H', W', 3)` in the layer's compute dtype.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        size_divisor: int = 32,
        padding: Sequence[float] = (0.0, 0.0, 0.0),
        cut: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.size_divisor = size_divisor
        self.padding = tuple(padding)
        self.cut = cut

    def call(self, images: Tensor, image_sizes: Tensor) -> Tensor:
        """Normalise `images`; see the class."""
        if self.cut:
            largest = ops.max(ops.cast(image_sizes, "int32"), axis=0)
            needed = largest + (-largest) % self.size_divisor
            images = images[:, : needed[0], : needed[1]]
        height, width = ops.shape(images)[1], ops.shape(images)[2]
        x = (ops.cast(images, "float32") - ops.array(self.mean, "float32")) / ops.array(
            self.std, "float32"
        )
        image_sizes = ops.cast(image_sizes, "int32")
        valid_y = ops.arange(height, dtype="int32")[None] < image_sizes[:, :1]
        valid_x = ops.arange(width, dtype="int32")[None] < image_sizes[:, 1:]
        valid = ops.logical_and(valid_y[:, :, None], valid_x[:, None, :])[..., None]
        padding = ops.array(self.padding, "float32")
        # Less the padding, so that what is padded with zeros has its value in the end.
        x = ops.where(valid, x - padding, 0.0) if any(self.padding) else ops.where(valid, x, 0.0)
        bottom, right = (-height) % self.size_divisor, (-width) % self.size_divisor
        x = ops.pad(x, ((0, 0), (0, bottom), (0, right), (0, 0)))
        x = x + padding if any(self.padding) else x
        return ops.cast(x, self.compute_dtype)

    def compute_output_spec(self, images: Tensor, image_sizes: Tensor) -> keras.KerasTensor:
        """Height and width are known only with the batch."""
        return keras.KerasTensor((images.shape[0], None, None, 3), dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "mean": self.mean,
            "std": self.std,
            "size_divisor": self.size_divisor,
            "padding": self.padding,
            "cut": self.cut,
        }
