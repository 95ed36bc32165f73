"""Checks on values that are known only while the graph runs."""

import tensorflow as tf


def check_finite(value, message, details):
    """Return scalar `value`; raise `tf.errors.InvalidArgumentError` when it is not finite.

    Args:
        value: float scalar.
        message: starts the error's text.
        details: tensors whose values follow the message, written whole.
    """
    check = tf.debugging.Assert(tf.math.is_finite(value), [message, value, *details], summarize=-1)
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(value)
