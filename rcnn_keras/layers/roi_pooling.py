"""What all layers that pool RoIs share: the RoIs' forms, and the form of what they give."""

from collections.abc import Sequence

import keras
from keras import ops

from rcnn_keras.ops import flatten_batch
from rcnn_keras.ops.types import Tensor


class RoIPooling(keras.layers.Layer):
    """Pool `pooled_size` x `pooled_size` features from RoIs; a subclass says how, in `pool`.

    Call arguments:
        features: list of maps `(B, H_l, W_l, C)`.
        rois: `(B, R, 4)` boxes in pixels, or `(n, 4)` with
        image: `(n,)` int32, the place in the batch of each RoI's image.

    Returns:
        `(B, R, S, S, C)` or `(n, S, S, C)` float32.
    """

    pooled_size: int

    def pool(self, features: Sequence[Tensor], rois: Tensor, image: Tensor) -> Tensor:
        """Pool `(n, 4)` RoIs of the images at `(n,)` places of the batch: `(n, S, S, C)`."""
        raise NotImplementedError(f"{type(self).__name__} has no method pool")

    def call(self, features: Sequence[Tensor], rois: Tensor, image: Tensor | None = None) -> Tensor:
        """Pool; see the class."""
        boxes, place = flatten_batch(rois) if image is None else (rois, image)
        pooled = self.pool(features, boxes, place)
        if image is not None:
            return pooled
        return ops.reshape(pooled, (*ops.shape(rois)[:2], *pooled.shape[1:]))

    def compute_output_spec(
        self, features: Sequence[Tensor], rois: Tensor, image: Tensor | None = None
    ) -> keras.KerasTensor:
        """S cells down and across for every RoI."""
        size, channels = self.pooled_size, features[0].shape[-1]
        return keras.KerasTensor((*rois.shape[:-1], size, size, channels), "float32")
