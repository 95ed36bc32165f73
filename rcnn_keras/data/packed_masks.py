"""A sample's masks in the tf.data graph, eight pixels a byte: `(n, H, ceil(W / 8))` uint8.

Only one or two masks at a time are unpacked, so that an image of a hundred objects takes as much
memory as its masks do packed.
"""

from collections.abc import Callable

import tensorflow as tf

from rcnn_keras.ops.masks import pack_bits, unpack_bits

AT_ONCE = 2  # masks that are unpacked at the same time


def change_masks(
    packed: tf.Tensor, width: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Return the masks as `change` leaves them, set where it gives at least one half.

    Args:
        packed: `(n, H, ceil(width / 8))` uint8.
        width: of the masks in pixels, an int32 scalar.
        change: from `(H, W, 1)` float32, 0 or 1, to any size, as images are changed.
    """

    def changed(one: tf.Tensor) -> tf.Tensor:
        mask = tf.cast(unpack_bits(one, width), tf.float32)[..., None]
        return pack_bits(change(mask)[..., 0] >= 0.5)

    def nothing() -> tf.Tensor:
        # map_fn cannot tell the size of what it gives for no masks at all.
        return changed(tf.zeros(tf.shape(packed)[1:], tf.uint8))[None][:0]

    return tf.cond(
        tf.shape(packed)[0] > 0,
        lambda: tf.map_fn(
            changed,
            packed,
            fn_output_signature=tf.TensorSpec((None, None), tf.uint8),
            # TensorFlow warns where it is said and nothing runs in parallel.
            parallel_iterations=None if tf.executing_eagerly() else AT_ONCE,
        ),
        nothing,
    )


def mirror_masks(packed: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return the masks left to right, without unpacking: bytes and their bits in reverse order.

    Args:
        packed: `(n, H, ceil(width / 8))` uint8.
        width: of the masks in pixels, an int32 scalar.
    """
    reverse = tf.reverse(packed, [-1])
    for step, low in ((4, 0x0F), (2, 0x33), (1, 0x55)):  # halves, quarters, single bits
        shift, mask = tf.constant(step, tf.uint8), tf.constant(low, tf.uint8)
        high = tf.bitwise.bitwise_and(tf.bitwise.right_shift(reverse, shift), mask)
        low_bits = tf.bitwise.left_shift(tf.bitwise.bitwise_and(reverse, mask), shift)
        reverse = tf.bitwise.bitwise_or(high, low_bits)
    # What filled up the last byte now stands before the first pixel.
    filled = tf.cast(-width % 8, tf.uint8)
    following = tf.cast(tf.pad(reverse[..., 1:], [[0, 0], [0, 0], [0, 1]]), tf.uint16)
    pair = tf.cast(reverse, tf.uint16) * 256 + following
    shifted = tf.bitwise.right_shift(pair, tf.cast(8 - filled, tf.uint16))
    return tf.cast(tf.bitwise.bitwise_and(shifted, tf.constant(255, tf.uint16)), tf.uint8)


def visible_masks(packed: tf.Tensor) -> tf.Tensor:
    """Tell which masks have a pixel: `(n,)` bool."""
    return tf.reduce_any(tf.not_equal(packed, 0), axis=[1, 2])
