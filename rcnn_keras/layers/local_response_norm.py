"""Local response normalisation, across channels or within them."""

from typing import Any

import keras

from rcnn_keras.ops import local_response_norm
from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class LocalResponseNorm(keras.layers.Layer):
    """Divide each value by a power of the mean square around it, see `ops.local_response_norm`.

    The defaults are those of the Caffe model that R-CNN was built on. That of Zeiler and Fergus'
    network in Faster R-CNN has `size=3`, `alpha=5e-5` and `within_channel=True`.

    Args:
        size: channels in the mean, or side of the square of positions, odd.
        alpha: weight of the mean square.
        beta: the power.
        k: what keeps the divisor from zero.
        within_channel: take the mean over a square of positions in the same channel.

    Call arguments:
        x: `(B, H, W, C)`.

    Returns:
        The same shape and type; computed in float32.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        within_channel: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.within_channel = within_channel

    def call(self, x: Tensor) -> Tensor:
        """Normalise `x`; see the class."""
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k, self.within_channel)

    def compute_output_spec(self, x: Tensor) -> keras.KerasTensor:
        """What came in."""
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "size": self.size,
            "alpha": self.alpha,
            "beta": self.beta,
            "k": self.k,
            "within_channel": self.within_channel,
        }
