"""The mask branch (Mask R-CNN, 3)."""

from typing import Any, Self

import keras
from keras import layers, ops

from rcnn_keras.ops import flatten_batch, gather_valid, scatter_valid
from rcnn_keras.ops.types import Kernels, Shape, Tensor


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


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RealRoIs(keras.layers.Layer):
    """Take the RoIs that have a label out of their padding, which then needs no masks.

    Args:
        kernels: `"native"`, or `"portable"` to leave the padding in: a list whose length follows
            from the data is not to be had everywhere.

    Call arguments:
        rois: `(B, R, 4)`.
        labels: `(B, R)` int32, negative for those to leave out.

    Returns:
        `rois` `(n, 4)` and `image` `(n,)` int32, the place in the batch of each one's image; the
        first RoI where there is none, see `ops.gather_valid`.
    """

    def __init__(self, kernels: Kernels = "native", **kwargs: Any) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.kernels = kernels
        self.supports_jit = kernels == "portable"

    def call(self, rois: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """List the RoIs; see the class."""
        if self.kernels == "portable":
            return flatten_batch(rois)
        image, rois = gather_valid(labels >= 0, rois)
        return rois, image

    def compute_output_spec(
        self, rois: Tensor, labels: Tensor
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """How many there are is known only with the batch."""
        return keras.KerasTensor((None, 4), "float32"), keras.KerasTensor((None,), "int32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"kernels": self.kernels}


@keras.saving.register_keras_serializable(package="rcnn_keras")
class MaskLayer(keras.layers.Layer):
    """Choose each detection's mask of its own class.

    Args:
        kernels: as those of the `RealRoIs` that listed the detections.

    Call arguments:
        logits: `(n, M, M, K)` of the detections that `RealRoIs` listed, image after image.
        labels: `(B, D)` int32, -1 for padding.

    Returns:
        `(B, D, M, M)` float32 in 0..1, zeros for padding.
    """

    def __init__(self, kernels: Kernels = "native", **kwargs: Any) -> None:
        super().__init__(dtype=kwargs.pop("dtype", "float32"), **kwargs)
        self.kernels = kernels
        self.supports_jit = kernels == "portable"

    def call(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return padded masks; see the class."""
        real = labels >= 0
        if self.kernels == "portable":
            own, _ = flatten_batch(labels)
            masks = ops.sigmoid(of_class(logits, ops.maximum(own, 0)))
            masks = ops.reshape(masks, (*ops.shape(labels), *masks.shape[1:]))
            return ops.where(real[..., None, None], masks, 0.0)
        _, own = gather_valid(real, labels)
        masks = of_class(logits, ops.maximum(own, 0))
        return scatter_valid(real, ops.sigmoid(masks))

    def compute_output_spec(self, logits: Tensor, labels: Tensor) -> keras.KerasTensor:
        """D masks an image."""
        return keras.KerasTensor((*labels.shape, *logits.shape[1:3]), "float32")

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {"kernels": self.kernels}


def of_class(masks: Tensor, labels: Tensor) -> Tensor:
    """Return of `(n, M, M, K)` maps those of each RoI's `(n,)` label: `(n, M, M)`."""
    return ops.take_along_axis(masks, labels[:, None, None, None], axis=-1)[..., 0]
