"""Local response normalisation across channels (Krizhevsky et al. 2012, 3.3)."""

import tensorflow as tf


def local_response_norm(x, size, alpha, beta, k):
    """Divide each value by a power of the mean square of the channels around it.

    `y = x / (k + alpha / size * s) ** beta`, where s is the sum of `x * x` over `size` channels at
    the same position, those beyond the first and the last being zeros. Dividing alpha by the size
    is Caffe's way; the paper's own alpha is not divided.

    Args:
        x: `(B, H, W, C)` float.
        size: channels in the sum, odd.
        alpha: weight of the mean square.
        beta: the power.
        k: what keeps the divisor from zero.

    Returns:
        The same shape and type; computed in float32.
    """
    wide = tf.cast(x, tf.float32)
    y = tf.nn.local_response_normalization(wide, size // 2, k, alpha / size, beta)
    return tf.cast(y, x.dtype)
