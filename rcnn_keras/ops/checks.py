"""Checks on values that are known only while the graph runs."""

import tensorflow as tf


def check_finite(value, message, details):
    """Return scalar `value`; raise when it is NaN or infinite.

    Args:
        value: float scalar.
        message: starts the error's text.
        details: tensors whose values follow the message, each in brackets and written whole.

    Raises:
        tf.errors.InvalidArgumentError: while the graph runs, or at once in eager mode.
    """
    data = [message, value, *details]
    if tf.executing_eagerly():
        if not tf.math.is_finite(value):
            # Eager asserts write their data in another form; one form serves who reads it.
            text = " ".join(f"[{_plain(item)}]" for item in data)
            raise tf.errors.InvalidArgumentError(None, None, f"assertion failed: {text}")
        return value
    check = tf.debugging.Assert(tf.math.is_finite(value), data, summarize=-1)
    with tf.control_dependencies([check]):
        return tf.identity(value)


def after(check, tensors):
    """Return `tensors`, to be had only once `check` was computed."""
    with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, tensors)


def _plain(item):
    values = tf.reshape(tf.convert_to_tensor(item), [-1]).numpy().tolist()
    return " ".join(v.decode() if isinstance(v, bytes) else str(v) for v in values)
