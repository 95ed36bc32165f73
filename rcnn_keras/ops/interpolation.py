"""Weights of linear interpolation along an axis, whose positions are whole numbers from 0 on."""

import tensorflow as tf

from rcnn_keras.ops.types import Tensor


def neighbours(points: Tensor, furthest: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two positions that each point lies between, and their weights.

    Args:
        points: `(...)` float32; those beyond an end of the axis are moved to it.
        furthest: the last position, float32, of a shape that broadcasts.

    Returns:
        Positions `(..., 2)` int32 and weights `(..., 2)` float32, which add up to 1.
    """
    points = tf.clip_by_value(points, 0.0, furthest)
    lower = tf.floor(points)
    beyond = points - lower
    positions = tf.stack([lower, tf.minimum(lower + 1.0, furthest)], axis=-1)
    return tf.cast(positions, tf.int32), tf.stack([1.0 - beyond, beyond], axis=-1)


def weights_at(points: Tensor, positions: Tensor) -> Tensor:
    """Return the weight of every position for every point: 0 from a distance of 1 on.

    Args:
        points: `(...)` float32, within the axis.
        positions: `(p,)` float32.

    Returns:
        `(..., p)` float32.
    """
    return tf.maximum(1.0 - tf.abs(points[..., None] - positions), 0.0)
