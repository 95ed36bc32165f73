"""Dropout whose mask is a function of what it is drawn for, and no state of the layer.

n rows, F numbers a row.
"""

from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import drawn_for, stateless_uniform
from rcnn_keras.ops.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class StatelessDropout(keras.layers.Layer):
    """Dropout (Srivastava et al. 2014) that draws the same for the same row at the same step.

    Keras' own counts its calls in a variable, which a run that goes on from saved weights does not
    get back. Here rows and step are those of `ops.drawing_for`, in whose block the layer is called;
    elsewhere a row is known by its number, and the step is 0.

    Args:
        rate: share of the numbers that become 0 while training; the others grow by 1 / (1 - rate).
        seed: one stream of masks for each value; layers that follow each other need different ones.

    Call arguments:
        inputs: `(n, F)`.
        training: whether to drop.

    Returns:
        `(n, F)`.
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Drop; see the class."""
        if not training:
            return inputs
        rows, step = drawn_for()
        rows = ops.arange(ops.shape(inputs)[0], dtype="int64") if rows is None else rows
        draws = stateless_uniform(self.seed, rows, step, ops.shape(inputs)[1])
        return ops.where(draws >= self.rate, inputs / (1 - self.rate), 0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """That of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
