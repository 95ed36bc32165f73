"""Stochastic depth: a residual branch that is left out for some images while training.

B images.
"""

from typing import Any

import keras
from keras import ops

from rcnn_keras.ops import drawn_for, stateless_uniform
from rcnn_keras.ops.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class StochasticDepth(keras.layers.Layer):
    """Set a residual branch to zero for whole images (Deep Networks with Stochastic Depth,
    Huang et al. 2016).

    As with `StatelessDropout`, whether the branch of an image is left out depends on the image and
    the step of `ops.drawing_for` alone, in whose block the layer is called; elsewhere an image is
    known by its place in the batch, and the step is 0.

    Args:
        rate: probability that the branch is left out; otherwise it grows by 1 / (1 - rate).
        seed: one stream of draws for each value; layers that follow each other need different ones.

    Call arguments:
        inputs: `(B, H, W, C)`.
        training: whether to leave out.

    Returns:
        `(B, H, W, C)`.
    """

    def __init__(self, rate: float, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be at least 0 and less than 1; received {rate!r}")
        self.rate = rate
        self.seed = seed

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        """Leave out; see the class."""
        if not training or self.rate == 0:
            return inputs
        images, step = drawn_for()
        images = ops.arange(ops.shape(inputs)[0], dtype="int64") if images is None else images
        kept = stateless_uniform(self.seed, images, step, 1)[:, :, None, None] >= self.rate
        return inputs * ops.cast(kept, inputs.dtype) / (1 - self.rate)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """That of the inputs."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"rate": self.rate, "seed": self.seed}
