"""The mask branch (Mask R-CNN, 3)."""

from typing import Any, Self

import keras
from keras import layers

from rcnn_keras.ops.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class MaskHead(layers.Layer):
    """A trunk, a transposed convolution that doubles its map, and a mask of every class.

    Args:
        num_classes: K.
        trunk: model from `(n, S, S, C)` to `(n, S', S', C')`: four convolutions after a pyramid,
            the last stage of a C4 detector's ResNet.
        channels: of the transposed convolution.

    Call arguments:
        pooled: `(n, S, S, C)`.

    Returns:
        `(n, M, M, K)` float32 logits, M = 2 S'.
    """

    def __init__(
        self, num_classes: int, trunk: keras.Model, channels: int = 256, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.trunk = trunk
        self.channels = channels

    def build(self, input_shape: Shape) -> None:
        """Create the layers after the trunk; the masks begin near one half everywhere."""
        if not self.trunk.built:
            self.trunk.build(input_shape)
        self.upsample = layers.Conv2DTranspose(
            self.channels,
            2,
            strides=2,
            activation="relu",
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            dtype=self.dtype_policy,
            name="upsample",
        )
        self.mask_logits = layers.Conv2D(
            self.num_classes,
            1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),  # as detectron2
            dtype="float32",
            name="mask_logits",
        )
        features = self.trunk.compute_output_shape(input_shape)
        self.upsample.build(features)
        self.mask_logits.build(self.upsample.compute_output_shape(features))

    def call(self, pooled: Tensor, training: bool = False) -> Tensor:
        """Draw the masks; see the class."""
        return self.mask_logits(self.upsample(self.trunk(pooled, training=training)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """A map of twice the trunk's size, a channel a class."""
        features = self.trunk.compute_output_shape(input_shape)
        return (*self.upsample.compute_output_shape(features)[:-1], self.num_classes)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "num_classes": self.num_classes,
            "trunk": keras.saving.serialize_keras_object(self.trunk),
            "channels": self.channels,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuild the layer, its trunk included."""
        trunk = keras.saving.deserialize_keras_object(config["trunk"])
        return cls(**config | {"trunk": trunk})
