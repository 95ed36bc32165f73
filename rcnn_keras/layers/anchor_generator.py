"""Anchors for the maps of a batch."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import base_anchors, grid_anchors
from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class AnchorGenerator(keras.layers.Layer):
    """Lay anchors over each feature map, from the shapes of the batch at hand.

    Args:
        sizes: for each level, the square roots of its anchors' areas in pixels: three for one map
            in the paper, one a level for a pyramid.
        aspect_ratios: heights over widths, the same on every level.
        rounding: round the corners to whole pixels, as torchvision does and Detectron2 does not.
        strides: pixels from one position to the next on each level; None for the whole quotient of
            the sides of image and map, torchvision's.
        step: positions of a map from one that has anchors to the next, down and across.

    Call arguments:
        images: `(B, H, W, 3)` batch that the maps came from.
        features: list of maps `(B, H_l, W_l, C)`.

    Returns:
        List of `(H_l * W_l * k, 4)` float32 boxes in pixels, not clipped; with a `step`, of so many
        positions fewer.
    """

    def __init__(
        self,
        sizes: Sequence[Sequence[float]],
        aspect_ratios: Sequence[float] = (0.5, 1.0, 2.0),
        rounding: bool = True,
        strides: Sequence[int] | None = None,
        step: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.sizes = tuple(tuple(level) for level in sizes)
        self.aspect_ratios = tuple(aspect_ratios)
        self.rounding = rounding
        self.strides = None if strides is None else tuple(strides)
        self.step = step

    def call(self, images: Tensor, features: Sequence[Tensor]) -> list[Tensor]:
        """Return the anchors of every level; see the class."""
        image_size = ops.shape(images)[1:3]
        anchors = []
        for level, (sizes, feature) in enumerate(zip(self.sizes, features, strict=True)):
            feature_size = ops.shape(feature)[1:3]
            stride = [image_size[k] // feature_size[k] for k in range(2)]
            if self.strides:
                stride = [self.strides[level]] * 2
            stride = [side * self.step for side in stride]
            feature_size = [-(-side // self.step) for side in feature_size]
            base = base_anchors(sizes, self.aspect_ratios, self.rounding)
            anchors.append(grid_anchors(base, feature_size, stride))
        return anchors

    def compute_output_spec(
        self, images: Tensor, features: Sequence[Tensor]
    ) -> list[keras.KerasTensor]:
        """The number of anchors is known only with the batch."""
        return [keras.KerasTensor((None, 4), "float32") for _ in features]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "sizes": self.sizes,
            "aspect_ratios": self.aspect_ratios,
            "rounding": self.rounding,
            "strides": self.strides,
            "step": self.step,
        }
