"""Feature Pyramid Network (Lin et al. 2017)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import keras
from keras import layers

from rcnn_keras.layers.normalization import normalization
from rcnn_keras.layers.winograd_conv import conv3x3
from rcnn_keras.ops.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class FeaturePyramid(layers.Layer):
    """Give every level of a backbone the meaning of the deepest one.

    A 1x1 convolution brings each map to the same channels, each map is added to the enlarged one
    above it, and a 3x3 convolution smooths the sum. The coarsest level is halved once more for
    the RPN, as in the paper.

    Args:
        channels: channels of every level, 256 in the paper.
        strides: pixels a position of each map; by them a level is enlarged for the one below.
        norm: what follows each convolution, see `normalization`; None in the paper.
        winograd: compute the 3x3 convolutions by Winograd's algorithm, see `WinogradConv2D`.

    Call arguments:
        features: list of maps `(B, H_l, W_l, C_l)`, finest first, C2..C5 in the paper.

    Returns:
        List of maps `(B, H_l, W_l, channels)`, one more than was given.
    """

    def __init__(
        self,
        channels: int = 256,
        strides: Sequence[int] = (4, 8, 16, 32),
        norm: str | None = None,
        winograd: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.channels = channels
        self.strides = tuple(strides)
        self.norm = norm
        self.winograd = winograd

    def build(self, input_shape: Sequence[Shape]) -> None:
        """Create a lateral and an output convolution for each level."""
        self.lateral, self.lateral_norms = [], []
        self.output_convs, self.output_norms = [], []
        for level, shape in enumerate(input_shape, start=2):
            merged = (*shape[:-1], self.channels)
            lateral = layers.Conv2D(self.channels, 1, **self._options(f"lateral{level}"))
            lateral.build(shape)
            self.lateral.append(lateral)
            self.lateral_norms.append(self._norm(f"lateral_norm{level}", merged))
            output = conv3x3(self.channels, self.winograd, **self._options(f"output{level}"))
            output.build(merged)
            self.output_convs.append(output)
            self.output_norms.append(self._norm(f"output_norm{level}", merged))
        self.enlarge = [
            layers.UpSampling2D(coarse // fine, dtype=self.dtype_policy)
            for fine, coarse in pairwise(self.strides)
        ]
        self.halve = layers.MaxPooling2D(1, strides=2, dtype=self.dtype_policy)

    def _options(self, name: str) -> dict[str, Any]:
        return {
            "use_bias": self.norm is None,
            "kernel_initializer": keras.initializers.VarianceScaling(1.0, "fan_in", "uniform"),
            "dtype": self.dtype_policy,
            "name": name,
        }

    def _norm(self, name: str, shape: Shape) -> layers.Layer:
        norm = normalization(self.norm, name, self.dtype_policy)
        norm.build(shape)
        return norm

    def call(self, features: Sequence[Tensor], training: bool = False) -> list[Tensor]:
        """Merge from the coarsest level down; see the class."""
        lateral = [
            norm(conv(x))
            for conv, norm, x in zip(self.lateral, self.lateral_norms, features, strict=True)
        ]
        merged = lateral[-1:]
        for x, enlarge in zip(lateral[-2::-1], self.enlarge[::-1], strict=True):
            merged.insert(0, x + enlarge(merged[0]))
        maps = [
            norm(conv(x))
            for conv, norm, x in zip(self.output_convs, self.output_norms, merged, strict=True)
        ]
        return [*maps, self.halve(maps[-1])]

    def compute_output_shape(self, input_shape: Sequence[Shape]) -> list[Shape]:
        """Same sizes as the input's, and one level of half the last."""
        shapes = [(*shape[:-1], self.channels) for shape in input_shape]
        batch, height, width, _ = shapes[-1]
        half = [None if n is None else (n + 1) // 2 for n in (height, width)]
        return [*shapes, (batch, *half, self.channels)]

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "channels": self.channels,
            "strides": self.strides,
            "norm": self.norm,
            "winograd": self.winograd,
        }
