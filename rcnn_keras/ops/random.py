"""Random numbers that depend on nothing but what they are drawn for.

A training step must draw the same numbers for an image whatever batch, replica or restart it
falls in, so each number is a hash of (seed, image id, step, position): a counter-based generator
in the manner of Salmon et al. 2011, with MurmurHash3's finaliser as its mixing function.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf

from rcnn_keras.ops.types import Tensor

_block = threading.local()  # the replicas of a strategy are traced in threads of their own


def stateless_uniform(
    seed: int, image_ids: Tensor, step: int | Tensor, count: int | Tensor
) -> Tensor:
    """Draw uniform numbers for each image.

    Args:
        seed: int, one stream of numbers for each value.
        image_ids: `(B,)` integers.
        step: integer scalar, the training step.
        count: how many numbers an image, a number or an int32 scalar.

    Returns:
        `(B, count)` float32 in [0, 1), the same for the same arguments, row by row.
    """
    image_ids = tf.cast(image_ids, tf.uint64)
    low = tf.cast(image_ids & 0xFFFFFFFF, tf.uint32)
    high = tf.cast(tf.bitwise.right_shift(image_ids, tf.constant(32, tf.uint64)), tf.uint32)
    key = tf.fill(tf.shape(low), tf.constant(seed % 2**32, tf.uint32))
    for word in (low, high, tf.cast(step, tf.uint32)):
        key = _mix(key * tf.constant(0x9E3779B1, tf.uint32) + word)
    position = tf.cast(tf.range(count), tf.uint32) * tf.constant(0x9E3779B9, tf.uint32)
    bits = _mix(_mix(key[:, None] + position[None]) ^ key[:, None])
    return tf.cast(tf.bitwise.right_shift(bits, tf.constant(8, tf.uint32)), tf.float32) * 2.0**-24


@contextmanager
def drawing_for(rows: Tensor | None, step: int | Tensor) -> Iterator[None]:
    """Say, for layers called inside the block, what their draws are for.

    A layer deep in a network is handed neither.

    Args:
        rows: `(n,)` integers, what each row of the layers' inputs is known by; None for its number.
        step: integer scalar, the training step.
    """
    before = drawn_for()
    _block.drawn_for = rows, tf.convert_to_tensor(step)
    try:
        yield
    finally:
        _block.drawn_for = before


def drawn_for() -> tuple[Tensor | None, int | Tensor]:
    """Return rows and step of the innermost block of `drawing_for`, None and 0 outside of any."""
    return getattr(_block, "drawn_for", (None, 0))


def _mix(x: Tensor) -> Tensor:
    """Spread every bit of a uint32 tensor over all 32."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x ^= tf.bitwise.right_shift(x, tf.constant(shift, tf.uint32))
        x *= tf.constant(factor, tf.uint32)
    return x ^ tf.bitwise.right_shift(x, tf.constant(16, tf.uint32))
