"""Batch normalisation in one kernel, and local response normalisation."""

import tensorflow as tf

from rcnn_keras.ops.execution import num_replicas, sum_over_replicas
from rcnn_keras.ops.types import Tensor


def batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise a batch, all replicas' parts of it, by its own statistics.

    On one device by one kernel that keeps nothing for its gradient but its input: from moments,
    differences and products, as Keras composes it, the gradient needs several maps of its size.

    Args:
        x: `(B, H, W, C)` in any float type; computed in float32.
        gamma: `(C,)` float32 gains.
        beta: `(C,)` float32 shifts.
        epsilon: added to the variance.

    Returns:
        The normalised batch in the type of `x`, and its mean and variance `(C,)` float32; the
        variance is divided by n - 1, as torch's running variance is.
    """
    if num_replicas() > 1:
        return _over_replicas(x, gamma, beta, epsilon)
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        is_training=True,
    )
    return y, mean, variance


def _over_replicas(
    x: Tensor, gamma: Tensor, beta: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Do the same with the mean and the variance of all replicas' parts."""
    y = tf.cast(x, tf.float32)
    count = sum_over_replicas(tf.cast(tf.size(y[..., 0]), tf.float32))
    mean = sum_over_replicas(tf.reduce_sum(y, axis=[0, 1, 2])) / count
    variance = sum_over_replicas(tf.reduce_sum((y - mean) ** 2, axis=[0, 1, 2])) / count
    y = tf.nn.batch_normalization(y, mean, variance, beta, gamma, epsilon)
    return tf.cast(y, x.dtype), mean, variance * count / tf.maximum(count - 1.0, 1.0)


def local_response_norm(
    x: Tensor, size: int, alpha: float, beta: float, k: float, within_channel: bool = False
) -> Tensor:
    """Divide each value by a power of the mean square around it.

    `y = x / (k + alpha * m) ** beta`, where m is the mean of `x * x` over `size` channels at the
    same position, or over a square of positions in the same channel; those beyond the map are
    zeros. With the mean, alpha is Caffe's; AlexNet's paper has the sum.

    Args:
        x: `(B, H, W, C)` float.
        size: channels in the mean, or side of the square, odd.
        alpha: weight of the mean square.
        beta: the power.
        k: what keeps the divisor from zero.
        within_channel: whether the mean is over positions, Caffe's `WITHIN_CHANNEL`.

    Returns:
        The same shape and type; computed in float32.
    """
    wide = tf.cast(x, tf.float32)
    if not within_channel:
        y = tf.nn.local_response_normalization(wide, size // 2, k, alpha / size, beta)
        return tf.cast(y, x.dtype)
    border = [size // 2, size // 2]
    squares = tf.pad(wide * wide, [[0, 0], border, border, [0, 0]])  # "SAME" skips the border
    mean = tf.nn.avg_pool2d(squares, size, strides=1, padding="VALID")
    factor = tf.exp(-beta * tf.math.log(k + alpha * mean))  # a fifth of `pow`'s time
    return tf.cast(wide * factor, x.dtype)
