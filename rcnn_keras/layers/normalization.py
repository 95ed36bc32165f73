"""What follows a convolution: batch norm that trains, frozen batch norm, group norm."""

from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import batch_norm, recomputing
from rcnn_keras.ops.types import Shape, Tensor

EPSILON = 1e-5
BATCH_KINDS = ("batch", "frozen_batch")  # have the same weights
KINDS = (*BATCH_KINDS, "group", None)


def normalization(
    kind: str | None,
    name: str,
    dtype: str | keras.DTypePolicy | None = None,
    epsilon: float = EPSILON,
) -> keras.layers.Layer:
    """Return the normalisation layer of a kind.

    Args:
        kind: `"batch"` (statistics of the batch, momentum 0.9 as torchvision's 0.1),
            `"frozen_batch"` (statistics and gains of the loaded weights), `"group"` (32 groups;
            the channels must divide by 32) or None (nothing; the convolution before it has a
            bias instead).
        name: the layer's name.
        dtype: its dtype policy.
        epsilon: added to the variance.

    Raises:
        ValueError: for another kind.
    """
    if kind == "batch":
        return BatchNormalization(momentum=0.9, epsilon=epsilon, dtype=dtype, name=name)
    if kind == "frozen_batch":
        return FrozenBatchNormalization(epsilon, dtype=dtype, name=name)
    if kind == "group":
        return GroupNormalization(groups=32, epsilon=epsilon, dtype=dtype, name=name)
    if kind is None:
        return keras.layers.Identity(dtype=dtype, name=name)
    raise ValueError(f"norm must be one of {', '.join(map(str, KINDS))}; received {kind!r}")


@keras.saving.register_keras_serializable(package="rcnn_keras")
class BatchNormalization(keras.layers.BatchNormalization):
    """Keras' batch norm over `(B, H, W, C)`, in one kernel while it trains."""

    def call(self, x: Tensor, training: bool | None = None) -> Tensor:
        """Normalise; the statistics of the batch enter the moving ones."""
        if not training or not self.trainable:
            return super().call(x, training=False)
        x, mean, variance = batch_norm(x, self.gamma, self.beta, self.epsilon)
        if recomputing():
            return x
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + value * (1.0 - self.momentum))
        return x


@keras.saving.register_keras_serializable(package="rcnn_keras")
class FrozenBatchNormalization(keras.layers.Layer):
    """Batch norm whose statistics, gain and shift are constants, also while training.

    Detectors train with a few large images a batch, too few for statistics of their own, so a
    pre-trained backbone keeps those of its first training. The weights carry the names of Keras'
    BatchNormalization and can be exchanged with it.

    Args:
        epsilon: added to the variance.
    """

    def __init__(self, epsilon: float = EPSILON, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon = epsilon

    def build(self, input_shape: Shape) -> None:
        """Create the four constants of each channel."""
        shape = (input_shape[-1],)
        self.gamma = self._constant("gamma", shape, "ones")
        self.beta = self._constant("beta", shape, "zeros")
        self.moving_mean = self._constant("moving_mean", shape, "zeros")
        self.moving_variance = self._constant("moving_variance", shape, "ones")

    def _constant(self, name: str, shape: Shape, initializer: str) -> keras.Variable:
        return self.add_weight(
            name=name, shape=shape, initializer=initializer, trainable=False, autocast=False
        )

    def call(self, x: Tensor) -> Tensor:
        """Scale and shift `(..., C)`."""
        scale = self.gamma * ops.rsqrt(self.moving_variance + self.epsilon)
        shift = self.beta - self.moving_mean * scale
        return x * ops.cast(scale, x.dtype) + ops.cast(shift, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="rcnn_keras")
class GroupNormalization(keras.layers.GroupNormalization):
    """Keras' group norm over `(B, H, W, C)`, whose statistics keep their digits.

    One sum of float32 over a whole map is off by 1e-4, and the mean of squares less the square of
    the mean loses the rest where a map is far from zero. Here columns, rows and channels are
    averaged one after the other, and the variance is that about the mean.
    """

    def call(self, x: Tensor) -> Tensor:
        """Normalise each image's groups of channels, in float32."""
        batch, height, width = (ops.shape(x)[k] for k in range(3))
        grouped = (batch, height, width, self.groups, x.shape[-1] // self.groups)
        x = ops.reshape(ops.cast(x, "float32"), grouped)
        x = x - _mean(x)
        x = x * ops.rsqrt(_mean(ops.square(x)) + self.epsilon)
        x = ops.reshape(x, (batch, height, width, -1)) * ops.cast(self.gamma, "float32")
        return ops.cast(x + ops.cast(self.beta, "float32"), self.compute_dtype)


def _mean(x: Tensor) -> Tensor:
    """Return the mean of each group of `(B, H, W, G, C)`: `(B, 1, 1, G, 1)`."""
    for axis in (2, 1, 4):
        x = ops.mean(x, axis=axis, keepdims=True)
    return x


BATCH_NORMS = (keras.layers.BatchNormalization, FrozenBatchNormalization)  # of BATCH_KINDS
