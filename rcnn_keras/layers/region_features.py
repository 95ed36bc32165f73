"""Every region of every image through a network of its own (R-CNN, 2.1).

B images, R regions an image, S side of a crop.
"""

import math
from typing import Any, Self

import keras
from keras import ops

from rcnn_keras.ops import (
    flatten_batch,
    gather_valid,
    in_chunks,
    in_equal_chunks,
    portable_warp_regions,
    scatter_valid,
    warp_regions,
)
from rcnn_keras.ops.types import Kernels, Tensor

FEATURES = ("pool5", "fc7")


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RegionFeatures(keras.layers.Layer):
    """Warp each region to a square crop and compute its features.

    Crops are made and used up a few at a time: the 2,000 of an image would be 1.2 GB.

    Args:
        network: model from `(n, S, S, 3)` to `{"pool5" (n, ...), "fc7" (n, F)}`.
        context: pixels of a crop around the region, on each side.
        chunk_size: crops that are in memory together.
        kernels: `"native"`, or `"portable"` for what every runtime has; padding then takes as long
            as real regions.

    Call arguments:
        images: `(B, H, W, 3)`, less the mean.
        image_sizes: `(B, 2)` int32.
        rois: `(B, R, 4)` boxes in pixels.
        num_rois: `(B,)` how many of them are real.

    Returns:
        `{"pool5" (B, R, P), "fc7" (B, R, F)}` float32, zeros for padding. No gradient flows.
    """

    def __init__(
        self,
        network: keras.Model,
        context: int = 16,
        chunk_size: int = 32,
        kernels: Kernels = "native",
        **kwargs: Any,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.network = network
        self.context = context
        self.chunk_size = chunk_size
        self.crop_size = network.input_shape[1]
        self.kernels = kernels
        self.supports_jit = kernels == "portable"  # XLA has no crop_and_resize

    def call(
        self, images: Tensor, image_sizes: Tensor, rois: Tensor, num_rois: Tensor
    ) -> dict[str, Tensor]:
        """Compute features; see the class."""
        images = ops.cast(images, "float32")

        def features_of(rois: Tensor, image: Tensor) -> list[Tensor]:
            crops = warp(images, image_sizes, rois, image, self.crop_size, self.context)
            found = self.network(crops, training=False)
            return [ops.reshape(ops.cast(found[k], "float32"), (-1, s)) for k, s in sizes.items()]

        sizes = self.feature_sizes
        real = ops.arange(ops.shape(rois)[1])[None] < ops.cast(num_rois, "int32")[:, None]
        shapes = [(size,) for size in sizes.values()]
        if self.kernels == "native":
            warp = warp_regions
            image, listed_rois = gather_valid(real, rois)
            features = in_chunks(features_of, self.chunk_size, shapes, listed_rois, image)
            return {k: scatter_valid(real, rows) for k, rows in zip(sizes, features, strict=True)}
        warp = portable_warp_regions
        features = in_equal_chunks(features_of, self.chunk_size, shapes, *flatten_batch(rois))
        features = [ops.reshape(x, (*ops.shape(rois)[:2], x.shape[-1])) for x in features]
        return {k: ops.where(real[..., None], x, 0.0) for k, x in zip(sizes, features, strict=True)}

    @property
    def feature_sizes(self) -> dict[str, int]:
        """Numbers that each kind of feature has a region, `{"pool5": P, "fc7": F}`."""
        return {name: math.prod(self.network.output[name].shape[1:]) for name in FEATURES}

    def compute_output_spec(
        self, images: Tensor, image_sizes: Tensor, rois: Tensor, num_rois: Tensor
    ) -> dict[str, keras.KerasTensor]:
        """One row of each kind a region."""
        return {
            name: keras.KerasTensor((*rois.shape[:2], size), "float32")
            for name, size in self.feature_sizes.items()
        }

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "network": keras.saving.serialize_keras_object(self.network),
            "context": self.context,
            "chunk_size": self.chunk_size,
            "kernels": self.kernels,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuild the layer, its network included."""
        network = keras.saving.deserialize_keras_object(config["network"])
        return cls(**config | {"network": network})
