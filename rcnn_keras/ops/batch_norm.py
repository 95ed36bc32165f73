"""Batch normalisation of a training batch in one kernel."""

import tensorflow as tf


def batch_norm(x, gamma, beta, epsilon):
    """Normalise a batch by its own statistics.

    One kernel that keeps nothing for its gradient but its input: from moments, differences and
    products, as Keras composes it, the gradient needs several maps of the input's size.

    Args:
        x: `(B, H, W, C)` in any float type; computed in float32.
        gamma: `(C,)` float32 gains.
        beta: `(C,)` float32 shifts.
        epsilon: added to the variance.

    Returns:
        The normalised batch in the type of `x`, and its mean and variance `(C,)` float32; the
        variance is divided by n - 1, as torch's running variance is.
    """
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
