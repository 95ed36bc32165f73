"""Images in the middle of a canvas, less their mean."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import take_positions
from rcnn_keras.ops.types import Kernels, Tensor

DIVISOR = 64  # of a canvas' sides, so that each of six levels is half of the one before


@keras.saving.register_keras_serializable(package="rcnn_keras")
class CentredCanvas(keras.layers.Layer):
    """Put each image in the middle of a black canvas, and subtract the mean of every pixel.

    What matterport/Mask_RCNN's `resize_image` and `mold_image` do after they resized: there is as
    much black above an image as below it, a row more below if their number is odd, and so across.

    Args:
        mean: of each RGB channel, 0..255.
        side: pixels of a square canvas; larger images get a larger one. None for the least canvas
            that holds the batch and whose sides divide by 64.
        kernels: `"native"`, or `"portable"` to select pixels by matrix products, for every runtime.

    Call arguments:
        images: `(B, H, W, 3)` RGB in 0..255, valid at the top left.
        image_sizes: `(B, 2)` integers, height and width of the valid part.

    Returns:
        Canvases `(B, H', W', 3)` in the layer's compute dtype; `sizes` `(B, 2)` int32, H' and W';
        and `windows` `(B, 4)` float32, the box `xyxy` of each image on its canvas, in pixels.
    """

    # What `ImageNormalization` would do: black becomes minus the mean.
    std = (1.0, 1.0, 1.0)

    def __init__(
        self,
        mean: Sequence[float],
        side: int | None = None,
        kernels: Kernels = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.mean = tuple(mean)
        self.padding = tuple(-value for value in mean)
        self.side = side
        self.kernels = kernels

    def call(self, images: Tensor, image_sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Place `images`; see the class."""
        sides = [-(-side // DIVISOR) * DIVISOR for side in ops.shape(images)[1:3]]
        if self.side is not None:
            side = ops.maximum(ops.maximum(*sides), self.side) if _unknown(sides) else None
            sides = [max(*sides, self.side) if side is None else side] * 2
        image_sizes = ops.cast(image_sizes, "int32")
        size = ops.stack([ops.cast(side, "int32") for side in sides])
        corners = (size - image_sizes) // 2  # (B, 2) top and left
        x = ops.cast(images, "float32")
        for axis, side in enumerate(sides):
            place = ops.arange(side, dtype="int32")[None] - corners[:, axis : axis + 1]
            inside = ops.logical_and(place >= 0, place < image_sizes[:, axis : axis + 1])
            x = take_positions(x, place, inside, axis + 1, self.kernels)
        corners = ops.cast(ops.flip(corners, axis=1), "float32")
        wide_high = ops.cast(ops.flip(image_sizes, axis=1), "float32")
        windows = ops.concatenate([corners, corners + wide_high], axis=1)
        x = ops.cast(x - ops.array(self.mean, "float32"), self.compute_dtype)
        return x, ops.zeros_like(image_sizes) + size, windows

    def compute_output_spec(
        self, images: Tensor, image_sizes: Tensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor, keras.KerasTensor]:
        """Height and width are known only with the batch."""
        batch = images.shape[0]
        return (
            keras.KerasTensor((batch, None, None, 3), dtype=self.compute_dtype),
            keras.KerasTensor((batch, 2), "int32"),
            keras.KerasTensor((batch, 4), "float32"),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "mean": self.mean,
            "side": self.side,
            "kernels": self.kernels,
        }


def _unknown(sides: Sequence[Any]) -> bool:
    """Return whether a side is known only with the batch."""
    return not all(isinstance(side, int) for side in sides)
