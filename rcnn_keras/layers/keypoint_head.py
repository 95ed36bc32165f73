"""The keypoint branch (Mask R-CNN, 5): a heat map for each keypoint of an object."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from rcnn_keras.ops import decode_heatmaps, portable_decode_heatmaps, scatter_valid
from rcnn_keras.ops.types import Kernels, Shape, Tensor

SCORES = ("probability", "logit")
LAYERS = (512,) * 8  # channels of the paper's convolutions


@keras.saving.register_keras_serializable(package="rcnn_keras")
class KeypointHead(layers.Layer):
    """3x3 convolutions, a transposed convolution, and bilinear enlargement: M = 4 S.

    Args:
        num_keypoints: P.
        channels: of the convolutions, as many as there are.

    Call arguments:
        pooled: `(n, S, S, C)`.

    Returns:
        `(n, M, M, P)` float32 logits, M = 56 for S = 14.
    """

    def __init__(self, num_keypoints: int, channels: Sequence[int] = LAYERS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.num_keypoints = num_keypoints
        self.channels = tuple(channels)

    def build(self, input_shape: Shape) -> None:
        """Create the layers."""
        initializer = keras.initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal")
        self.convs = [
            layers.Conv2D(
                channels,
                3,
                padding="same",
                activation="relu",
                kernel_initializer=initializer.clone(),
                dtype=self.dtype_policy,
                name=f"conv{number}",
            )
            for number, channels in enumerate(self.channels, start=1)
        ]
        self.upsample = layers.Conv2DTranspose(
            self.num_keypoints,
            4,
            strides=2,
            padding="same",
            kernel_initializer=initializer.clone(),
            dtype="float32",
            name="keypoint_logits",
        )
        self.enlarge = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32")
        shape = input_shape
        for conv in self.convs:
            conv.build(shape)
            shape = conv.compute_output_shape(shape)
        self.upsample.build(shape)

    def call(self, pooled: Tensor, training: bool = False) -> Tensor:
        """Draw the heat maps; see the class."""
        for conv in self.convs:
            pooled = conv(pooled)
        return self.enlarge(self.upsample(pooled))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """A map of four times the size, a channel a keypoint."""
        count, height, width, _ = input_shape
        return (count, *(n and 4 * n for n in (height, width)), self.num_keypoints)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "num_keypoints": self.num_keypoints,
            "channels": self.channels,
        }


@keras.saving.register_keras_serializable(package="rcnn_keras")
class KeypointLayer(keras.layers.Layer):
    """Read each detection's keypoints off its heat maps.

    Args:
        scores: `"probability"` or `"logit"`, see `ops.decode_heatmaps`.
        kernels: as those of the `RealRoIs` that listed the detections.

    Call arguments:
        logits: `(n, M, M, P)` of the detections that `RealRoIs` listed, image after image.
        rois: `(n, 4)` their boxes in pixels.
        labels: `(B, D)` int32, -1 for padding.

    Returns:
        `(B, D, P, 3)` float32 x and y in pixels and score, zeros for padding.
    """

    def __init__(
        self, scores: str = "probability", kernels: Kernels = "native", **kwargs: Any
    ) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.scores = scores
        self.kernels = kernels
        self.supports_jit = kernels == "portable"

    def call(self, logits: Tensor, rois: Tensor, labels: Tensor) -> Tensor:
        """Return padded keypoints; see the class."""
        real, as_logits = labels >= 0, self.scores == "logit"
        if self.kernels == "portable":
            keypoints = portable_decode_heatmaps(logits, rois, as_logits)
            keypoints = ops.reshape(keypoints, (*ops.shape(labels), *keypoints.shape[1:]))
            return ops.where(real[..., None, None], keypoints, 0.0)
        return scatter_valid(real, decode_heatmaps(logits, rois, as_logits))

    def compute_output_spec(
        self, logits: Tensor, rois: Tensor, labels: Tensor
    ) -> keras.KerasTensor:
        """D times P keypoints an image."""
        return keras.KerasTensor((*labels.shape, logits.shape[-1], 3), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"scores": self.scores, "kernels": self.kernels}
