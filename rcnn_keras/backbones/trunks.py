"""What a second stage puts between pooled features and its predictions.

n RoIs, S pooled size, C channels of the pooled features.
"""

from collections.abc import Sequence

import keras
from keras import layers

from rcnn_keras.layers.normalization import normalization
from rcnn_keras.layers.stateless_dropout import StatelessDropout
from rcnn_keras.ops.types import Tensor

SEEDS = 1000  # more than the seeds of dropout that one detector uses


def box_trunk(
    pooled_size: int,
    channels: int,
    units: int,
    num_convs: int = 0,
    norm: str | None = None,
    ranks: Sequence[int] | None = None,
    dense_norm: str | None = None,
) -> keras.Model:
    """Return the layers of a pyramid's box head.

    Two dense layers (Feature Pyramid Networks, 4.2), or some 3x3 convolutions and one dense layer
    (Group Normalization, 4.2).

    Args:
        pooled_size: S.
        channels: C, also of the convolutions.
        units: width of the dense layers.
        num_convs: 3x3 convolutions; 0 for two dense layers.
        norm: what follows each convolution, see `layers.normalization`.
        ranks: of the two dense layers' factors, see `dense`; None for whole layers.
        dense_norm: what follows each whole dense layer, before its ReLU; matterport/Mask_RCNN has
            batch norm there.

    Returns:
        Functional model from `(n, S, S, C)` to `(n, units)`.
    """
    # A third of the variance that keeps a signal: the pyramid adds up levels, which widens it.
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    inputs = keras.Input((pooled_size, pooled_size, channels), name="pooled")
    x = _convs(inputs, channels, num_convs, norm)
    x = layers.Flatten(name="flatten")(x)
    names = ("fc6",) if num_convs else ("fc6", "fc7")
    for fc, rank in zip(names, ranks or (None,) * len(names), strict=True):
        if dense_norm is None:
            x = dense(x, units, initializer, fc, rank)
        else:
            x = layers.Dense(units, use_bias=False, kernel_initializer="he_normal", name=fc)(x)
            x = normalization(dense_norm, f"{fc}_norm")(x)
            x = layers.Activation("relu", name=f"{fc}_relu")(x)
    return keras.Model(inputs, x, name="box_trunk")


def dense(
    x: Tensor,
    units: int,
    initializer: str | keras.initializers.Initializer,
    name: str,
    rank: int | None = None,
) -> Tensor:
    """Apply a dense layer with ReLU, or its two factors of a rank (Fast R-CNN, 3.1).

    The factors are layers `<name>_v` without bias, `rank` units wide, and `<name>`.
    """
    if rank:
        x = layers.Dense(rank, use_bias=False, kernel_initializer=initializer, name=f"{name}_v")(x)
    return layers.Dense(units, activation="relu", kernel_initializer=initializer, name=name)(x)


def dropped_dense(
    x: Tensor, units: int, dropout: float, ranks: Sequence[int] | None = None, seed: int = 0
) -> Tensor:
    """Apply fc6 and fc7 with ReLU, each followed by dropout, as AlexNet and VGG have them.

    Args:
        x: `(n, F)`.
        units: width of both layers.
        dropout: share of units dropped while training.
        ranks: of the layers' factors, see `dense`; None for whole layers.
        seed: of what fc6 drops, and one more of what fc7 does.
    """
    for number, (fc, rank) in enumerate(zip(("fc6", "fc7"), ranks or (None, None), strict=True)):
        x = dense(x, units, "he_normal", fc, rank)
        x = StatelessDropout(dropout, seed + number, name=f"{fc}_dropout")(x)
    return x


def copy_trunk(trunk: keras.Model, number: int, *, weights: bool) -> keras.Model:
    """Return a trunk of the same layers for another of several box heads.

    Args:
        trunk: model from `(n, S, S, C)` to `(n, F)`.
        number: of the copy, from 1; each drops other units while training.
        weights: whether it starts from the weights of `trunk`, or from random ones of its own.
    """

    def copied(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        if isinstance(layer, StatelessDropout):
            config["seed"] += SEEDS * number
        return type(layer).from_config(config)

    copy = keras.models.clone_model(trunk, clone_function=copied)
    if weights:
        copy.set_weights(trunk.get_weights())
    return copy


def mask_trunk(
    pooled_size: int, channels_in: int, channels: int, norm: str | None = None
) -> keras.Model:
    """Return the four 3x3 convolutions of a mask head (Mask R-CNN, figure 4, right).

    Args:
        pooled_size: S.
        channels_in: C.
        channels: of the convolutions, 256 in the paper.
        norm: what follows each convolution, see `layers.normalization`.

    Returns:
        Functional model from `(n, S, S, C)` to `(n, S, S, channels)`.
    """
    inputs = keras.Input((pooled_size, pooled_size, channels_in), name="pooled")
    return keras.Model(inputs, _convs(inputs, channels, 4, norm), name="mask_trunk")


def _convs(x: Tensor, channels: int, count: int, norm: str | None) -> Tensor:
    for number in range(1, count + 1):
        x = layers.Conv2D(
            channels,
            3,
            padding="same",
            use_bias=norm is None,
            kernel_initializer=keras.initializers.VarianceScaling(
                2.0, "fan_out", "untruncated_normal"
            ),
            name=f"conv{number}",
        )(x)
        x = normalization(norm, f"norm{number}")(x)
        x = layers.Activation("relu", name=f"relu{number}")(x)
    return x
