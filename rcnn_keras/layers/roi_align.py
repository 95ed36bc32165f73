"""RoIAlign as a layer."""

import keras

from rcnn_keras.ops import listed_roi_align, multilevel_roi_align


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RoIAlign(keras.layers.Layer):
    """Pool `pooled_size` x `pooled_size` features from each RoI, at the level its size chooses.

    Args:
        pooled_size: S, 7 for boxes and 14 for masks in the papers.
        strides: pixels a position of each level that is pooled from.
        sampling_ratio: samples a cell, down and across.

    Call arguments:
        features: list of maps `(B, H_l, W_l, C)`; levels beyond `strides` are not read.
        rois: `(B, R, 4)` boxes in pixels, or `(n, 4)` with
        image: `(n,)` int32, the place in the batch of each RoI's image.

    Returns:
        `(B, R, S, S, C)` or `(n, S, S, C)` float32.
    """

    def __init__(self, pooled_size, strides, sampling_ratio=2, **kwargs):
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.pooled_size = pooled_size
        self.strides = tuple(strides)
        self.sampling_ratio = sampling_ratio
        self.supports_jit = False  # XLA has no crop_and_resize

    def call(self, features, rois, image=None):
        """Pool; see the class."""
        scales = [1.0 / stride for stride in self.strides]
        features, how = features[: len(scales)], (self.pooled_size, scales, self.sampling_ratio)
        if image is None:
            return multilevel_roi_align(features, rois, *how)
        return listed_roi_align(features, rois, image, *how)

    def compute_output_spec(self, features, rois, image=None):
        """S cells down and across for every RoI."""
        size, channels = self.pooled_size, features[0].shape[-1]
        return keras.KerasTensor((*rois.shape[:-1], size, size, channels), "float32")

    def get_config(self):
        """Return the constructor's arguments."""
        return super().get_config() | {
            "pooled_size": self.pooled_size,
            "strides": self.strides,
            "sampling_ratio": self.sampling_ratio,
        }
