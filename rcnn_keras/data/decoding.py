"""Stored image bytes to upright pixels inside the graph.

A record file keeps bytes of which this gives what `read_image` gives; packing sees to it.
"""

import tensorflow as tf

from rcnn_keras.data.orientation import EXCHANGES_SIDES, MIRRORED, UPSIDE_DOWN


def decode_upright(content: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return the image of a JPEG, PNG or GIF file as uint8 RGB `(H, W, 3)`, turned upright.

    Args:
        content: a string scalar.
        orientation: of EXIF, 1 to 8, an int64 scalar.

    Raises:
        tf.errors.InvalidArgumentError: while the graph runs, for bytes that cannot be decoded.
    """
    # The kernel tells the formats apart by itself. Pillow's libjpeg transforms accurately too, and
    # smooths the colours that are stored at half the resolution.
    image = tf.io.decode_jpeg(
        content, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE"
    )
    image = _where(orientation, EXCHANGES_SIDES, lambda x: tf.transpose(x, [1, 0, 2]), image)
    image = _where(orientation, UPSIDE_DOWN, lambda x: tf.reverse(x, [0]), image)
    return _where(orientation, MIRRORED, lambda x: tf.reverse(x, [1]), image)


def _where(orientation, cases, turn, image):
    """Turn the image if its orientation is one of the cases."""
    is_case = tf.reduce_any(orientation == tf.constant(cases, tf.int64))
    turned = tf.cond(is_case, lambda: turn(image), lambda: image)
    return tf.ensure_shape(turned, (None, None, 3))
