"""RoIAlign as a layer."""

from collections.abc import Sequence
from typing import Any

import keras

from rcnn_keras.layers.roi_pooling import RoIPooling
from rcnn_keras.ops import listed_roi_align, portable_roi_align
from rcnn_keras.ops.types import Kernels, Tensor

POOLING = {"native": listed_roi_align, "portable": portable_roi_align}


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RoIAlign(RoIPooling):
    """Pool `pooled_size` x `pooled_size` features from each RoI, at the level its size chooses.

    Args:
        pooled_size: S, 7 for boxes and 14 for masks in the papers.
        strides: pixels a position of each level that is pooled from.
        sampling_ratio: samples a cell, down and across; 0 for as many as the RoI has positions.
        kernels: `"native"`, or `"portable"` for gathers alone, which every runtime has.
        aligned: move RoIs by half a position, see `ops.roi_align`.

    Call arguments:
        features: list of maps `(B, H_l, W_l, C)`; levels beyond `strides` are not read.
        rois: `(B, R, 4)` boxes in pixels, or `(n, 4)` with
        image: `(n,)` int32, the place in the batch of each RoI's image.

    Returns:
        `(B, R, S, S, C)` or `(n, S, S, C)` float32.
    """

    def __init__(
        self,
        pooled_size: int,
        strides: Sequence[int],
        sampling_ratio: int = 2,
        kernels: Kernels = "native",
        aligned: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.pooled_size = pooled_size
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.kernels = kernels
        self.aligned = aligned
        self.supports_jit = kernels == "portable"  # XLA has no crop_and_resize

    def pool(self, features: Sequence[Tensor], rois: Tensor, image: Tensor) -> Tensor:
        """Pool `(n, 4)` RoIs; see `RoIPooling`."""
        scales = [1.0 / stride for stride in self.strides]
        how = (self.pooled_size, scales, self.sampling_ratio, self.aligned)
        return POOLING[self.kernels](features[: len(scales)], rois, image, *how)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "pooled_size": self.pooled_size,
            "strides": self.strides,
            "sampling_ratio": self.sampling_ratio,
            "kernels": self.kernels,
            "aligned": self.aligned,
        }
