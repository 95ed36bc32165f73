"""Local response normalisation, across channels and within them."""

from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import local_response_norm
from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class LocalResponseNorm(keras.layers.Layer):
    """Divide each value by a power of the mean square of the channels around it.

    The defaults are those of the Caffe model that R-CNN was built on; see
    `ops.local_response_norm`.

    Args:
        size: channels in the mean, odd.
        alpha: weight of the mean square.
        beta: the power.
        k: what keeps the divisor from zero.

    Call arguments:
        x: `(B, H, W, C)`.

    Returns:
        The same shape and type.
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def call(self, x: Tensor) -> Tensor:
        """Normalise `x`; see the class."""
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def compute_output_spec(self, x: Tensor) -> keras.KerasTensor:
        """What came in."""
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return super().get_config() | own


@keras.saving.register_keras_serializable(package="rcnn_keras")
class WithinChannelNorm(keras.layers.Layer):
    """Divide each value by a power of the mean square around it, in its own channel.

    `y = x / (1 + alpha * m) ** beta`, where m is the mean of `x * x` over a square of positions,
    those outside the map being zeros: Caffe's `WITHIN_CHANNEL`, the contrast normalisation of the
    Zeiler and Fergus network that came with Faster R-CNN. AlexNet's runs across channels instead.

    Args:
        size: side of the square, odd.
        alpha: weight of the mean square.
        beta: the power.

    Call arguments:
        x: `(B, H, W, C)`.

    Returns:
        The same shape. Squares and the power are taken in float32.
    """

    def __init__(
        self, size: int = 3, alpha: float = 5e-5, beta: float = 0.75, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta

    def call(self, x: Tensor) -> Tensor:
        """Normalise `x`; see the class."""
        wide = ops.cast(x, "float32")
        border = (self.size // 2, self.size // 2)
        squares = ops.pad(wide * wide, ((0, 0), border, border, (0, 0)))  # "same" skips the border
        mean = ops.average_pool(squares, self.size, strides=1, data_format="channels_last")
        factor = ops.exp(-self.beta * ops.log(1 + self.alpha * mean))  # a fifth of `power`'s time
        return ops.cast(wide * factor, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta}
        return super().get_config() | own
