"""The second stage's classifier and box regressor (Fast R-CNN, 2.1)."""

from typing import Any, Self

import keras
from keras import layers, ops

from rcnn_keras.ops.types import Shape, Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class BoxHead(layers.Layer):
    """A trunk from pooled features to a vector, then class logits and deltas of every class.

    Args:
        num_classes: K, without the background.
        trunk: model or layer from `(n, S, S, C)` to `(n, F)`.
        class_agnostic: whether all classes share one box, and its deltas (R-FCN, Dai et al. 2016,
            and Cascade R-CNN).

    Call arguments:
        pooled: `(B, R, S, S, C)`.

    Returns:
        `logits` `(B, R, K + 1)`, background first, and `deltas` `(B, R, K, 4)`, or `(B, R, 1, 4)`
        if they are class-agnostic; both float32.
    """

    def __init__(
        self,
        num_classes: int,
        trunk: keras.Model | layers.Layer,
        class_agnostic: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.trunk = trunk
        self.class_agnostic = class_agnostic
        self.num_boxes = 1 if class_agnostic else num_classes  # of a RoI

    def build(self, input_shape: Shape) -> None:
        """Create the two sibling layers, drawn as in Fast R-CNN, 3.1."""
        if not self.trunk.built:
            self.trunk.build((None, *input_shape[2:]))
        features = self.trunk.compute_output_shape((None, *input_shape[2:]))
        self.class_logits = layers.Dense(
            self.num_classes + 1,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
            dtype="float32",
            name="class_logits",
        )
        self.box_deltas = layers.Dense(
            self.num_boxes * 4,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.001),
            dtype="float32",
            name="box_deltas",
        )
        self.class_logits.build(features)
        self.box_deltas.build(features)

    def call(self, pooled: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """Classify every RoI and move its box; see the class."""
        batch, count = ops.shape(pooled)[0], ops.shape(pooled)[1]
        vectors = self.trunk(ops.reshape(pooled, (-1, *pooled.shape[2:])), training=training)
        logits = ops.reshape(self.class_logits(vectors), (batch, count, self.num_classes + 1))
        deltas = ops.reshape(self.box_deltas(vectors), (batch, count, self.num_boxes, 4))
        return logits, deltas

    def compute_output_spec(
        self, pooled: Tensor, training: bool = False
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """K + 1 logits and the deltas of each box for each RoI."""
        return (
            keras.KerasTensor((*pooled.shape[:2], self.num_classes + 1), "float32"),
            keras.KerasTensor((*pooled.shape[:2], self.num_boxes, 4), "float32"),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        trunk = keras.saving.serialize_keras_object(self.trunk)
        return super().get_config() | {
            "num_classes": self.num_classes,
            "trunk": trunk,
            "class_agnostic": self.class_agnostic,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Rebuild the layer, its trunk included."""
        trunk = keras.saving.deserialize_keras_object(config["trunk"])
        return cls(**config | {"trunk": trunk})
