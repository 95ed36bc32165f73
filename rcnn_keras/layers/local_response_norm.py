"""AlexNet's normalisation, from before batch norm."""

import keras

from rcnn_keras.ops import local_response_norm


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

    def __init__(self, size=5, alpha=1e-4, beta=0.75, k=1.0, **kwargs):
        super().__init__(**kwargs)
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def call(self, x):
        """Normalise `x`; see the class."""
        return local_response_norm(x, self.size, self.alpha, self.beta, self.k)

    def compute_output_spec(self, x):
        """What came in."""
        return keras.KerasTensor(x.shape, x.dtype)

    def get_config(self):
        """Return the constructor's arguments."""
        own = {"size": self.size, "alpha": self.alpha, "beta": self.beta, "k": self.k}
        return super().get_config() | own
