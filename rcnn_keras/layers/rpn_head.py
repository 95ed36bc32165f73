"""The convolutions of the region proposal network (Faster R-CNN, 3.1)."""

from collections.abc import Sequence
from typing import Any, cast

import keras
from keras import layers, ops

from rcnn_keras.layers.winograd_conv import conv3x3
from rcnn_keras.ops.types import Shape, Tensor

OBJECTNESS = ("sigmoid", "softmax")


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RPNHead(layers.Layer):
    """A 3x3 convolution and two 1x1 siblings: objectness and box deltas of every anchor.

    Objectness is one logit an anchor, or two, background and object, under a softmax as in the
    paper. The softmax of two is the sigmoid of their difference, `p = 1 / (1 + exp(z0 - z1))`, so
    the difference is the logit of both: the same cross-entropy, the same score.

    Args:
        anchors_per_position: k, anchors at each position of a map.
        channels: channels of the 3x3 convolution; as many as the maps have by default.
        num_convs: 3x3 convolutions before the siblings: one in the paper, two in later models.
        winograd: compute them by Winograd's algorithm, see `WinogradConv2D`.
        objectness: `"sigmoid"` of k logits, or `"softmax"` of 2k, the k of the background first.
        strides: positions from one window of the first 3x3 convolution to the next; 2 looks at
            every other one, down and across. Padded as TensorFlow's "same".

    Raises:
        ValueError: for another objectness.

    Call arguments:
        features: list of maps `(B, H_l, W_l, C)`; the same weights serve every level.

    Returns:
        `logits` of objectness, a list of `(B, H_l * W_l * k)`, and `deltas`, a list of
        `(B, H_l * W_l * k, 4)`, one of each a level, float32, in the order of `AnchorGenerator`.
    """

    def __init__(
        self,
        anchors_per_position: int,
        channels: int | None = None,
        num_convs: int = 1,
        winograd: bool = False,
        objectness: str = "sigmoid",
        strides: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if objectness not in OBJECTNESS:
            raise ValueError(
                f"objectness must be one of {', '.join(OBJECTNESS)}; received {objectness!r}"
            )
        self.anchors_per_position = anchors_per_position
        self.channels = channels
        self.num_convs = num_convs
        self.winograd = winograd
        self.softmax = objectness == "softmax"
        self.strides = strides

    def build(self, input_shape: Sequence[Shape]) -> None:
        """Create the convolutions, drawn from N(0, 0.01) as in the paper."""
        normal = keras.initializers.RandomNormal(stddev=0.01)
        channels = self.channels or cast(int, input_shape[0][-1])
        self.convs = []
        for number in range(1, self.num_convs + 1):
            step = self.strides if number == 1 else 1
            conv = conv3x3(
                channels,
                self.winograd and step == 1,
                activation="relu",
                kernel_initializer=normal,
                dtype=self.dtype_policy,
                name=f"conv{number}",
                **({} if step == 1 else {"strides": step}),
            )
            self.convs.append(conv)
        k = self.anchors_per_position
        self.objectness = layers.Conv2D(
            2 * k if self.softmax else k,
            1,
            kernel_initializer=normal,
            dtype="float32",
            name="objectness",
        )
        self.deltas = layers.Conv2D(
            4 * k, 1, kernel_initializer=normal, dtype="float32", name="deltas"
        )
        hidden = (*input_shape[0][:-1], channels)
        for number, conv in enumerate(self.convs):
            conv.build(hidden if number else input_shape[0])
        self.objectness.build(hidden)
        self.deltas.build(hidden)

    def call(self, features: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Slide over every level; see the class."""
        logits, deltas = [], []
        for feature in features:
            hidden = feature
            for conv in self.convs:
                hidden = conv(hidden)
            batch = ops.shape(feature)[0]
            logit = self.objectness(hidden)
            if self.softmax:
                background, is_object = ops.split(logit, 2, axis=-1)
                logit = is_object - background
            logits.append(ops.reshape(logit, (batch, -1)))
            deltas.append(ops.reshape(self.deltas(hidden), (batch, -1, 4)))
        return logits, deltas

    def compute_output_spec(
        self, features: Sequence[Tensor]
    ) -> tuple[list[keras.KerasTensor], list[keras.KerasTensor]]:
        """The number of anchors is known only with the batch."""
        batch = features[0].shape[0]
        return (
            [keras.KerasTensor((batch, None), "float32") for _ in features],
            [keras.KerasTensor((batch, None, 4), "float32") for _ in features],
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return super().get_config() | {
            "anchors_per_position": self.anchors_per_position,
            "channels": self.channels,
            "num_convs": self.num_convs,
            "winograd": self.winograd,
            "objectness": "softmax" if self.softmax else "sigmoid",
            "strides": self.strides,
        }
