"""RoIPool as a layer."""

from collections.abc import Sequence
from typing import Any

import keras

from rcnn_keras.layers.roi_pooling import RoIPooling
from rcnn_keras.ops import listed_roi_pool, portable_roi_pool
from rcnn_keras.ops.types import Kernels, Tensor

POOLING = {"native": listed_roi_pool, "portable": portable_roi_pool}


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RoIPool(RoIPooling):
    """Take the greatest feature in each of `pooled_size` x `pooled_size` cells of each RoI.

    As Fast R-CNN has it (section 2.1), bit by bit: see `ops.roi_pool`.

    Args:
        pooled_size: S, 7 in the paper.
        stride: pixels a position of the map.
        kernels: `"native"`, or `"portable"` for gathers alone, which every runtime has.

    Call arguments:
        features: list of maps `(B, H_l, W_l, C)`, of which the first is read.
        rois: `(B, R, 4)` boxes in pixels, or `(n, 4)` with
        image: `(n,)` int32, the place in the batch of each RoI's image.

    Returns:
        `(B, R, S, S, C)` or `(n, S, S, C)` float32.
    """

    def __init__(
        self, pooled_size: int, stride: int, kernels: Kernels = "native", **kwargs: Any
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.pooled_size = pooled_size
        self.stride = stride
        self.kernels = kernels
        # the loop over sizes of blocks ends where the RoIs say
        self.supports_jit = kernels == "portable"

    def pool(self, features: Sequence[Tensor], rois: Tensor, image: Tensor) -> Tensor:
        """Pool `(n, 4)` RoIs; see `RoIPooling`."""
        how = (self.pooled_size, 1.0 / self.stride)
        return POOLING[self.kernels](features[0], rois, image, *how)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"pooled_size": self.pooled_size, "stride": self.stride, "kernels": self.kernels}
        return super().get_config() | own
