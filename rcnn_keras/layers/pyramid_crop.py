"""Pooling by `crop_and_resize` as a layer."""

from collections.abc import Sequence
from typing import Any

import keras

from rcnn_keras.layers.roi_pooling import RoIPooling
from rcnn_keras.ops import listed_pyramid_crop, portable_pyramid_crop
from rcnn_keras.ops.types import Kernels, Tensor

POOLING = {"native": listed_pyramid_crop, "portable": portable_pyramid_crop}


@keras.saving.register_keras_serializable(package="rcnn_keras")
class PyramidCrop(RoIPooling):
    """Pool S x S features from each RoI with one sample a cell, as matterport/Mask_RCNN does.

    Args:
        pooled_size: S, at least 2.
        strides: pixels a position of each level that is pooled from.
        kernels: `"native"`, or `"portable"` for gathers alone, which every runtime has.

    Call arguments:
        features: maps `(B, H_l, W_l, C)`, one a level; levels beyond `strides` are not read.
        rois: `(B, R, 4)` boxes in pixels, or `(n, 4)` with the next argument.
        image: `(n,)` int32, the place in the batch of each RoI's image.

    Returns:
        `(B, R, S, S, C)` or `(n, S, S, C)` float32.
    """

    def __init__(
        self,
        pooled_size: int,
        strides: Sequence[int],
        kernels: Kernels = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.pooled_size = pooled_size
        self.strides = tuple(strides)
        self.kernels = kernels
        self.supports_jit = kernels == "portable"  # XLA has no crop_and_resize

    def pool(self, features: Sequence[Tensor], rois: Tensor, image: Tensor) -> Tensor:
        """Pool `(n, 4)` RoIs; see `RoIPooling`."""
        features = features[: len(self.strides)]
        return POOLING[self.kernels](features, rois, image, self.pooled_size, self.strides)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "pooled_size": self.pooled_size,
            "strides": self.strides,
            "kernels": self.kernels,
        }
