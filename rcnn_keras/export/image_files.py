"""JPEG and PNG files to pixels inside a graph.

Pixels are those of `data.read_image`, bit by bit: libjpeg's accurate transform makes them of a
JPEG, CMYK included, alpha is dropped and gray is repeated. Two things differ, as TensorFlow's
decoders have no notion of them: EXIF orientation is not followed, and 16 bits become 8 by cutting
off the lower ones, which is up to 1 of 255 from rounding.
"""

import tensorflow as tf

from rcnn_keras.data.images import MAX_PIXELS
from rcnn_keras.ops import after

JPEG_START = b"\xff\xd8\xff"
PNG_START = b"\x89PNG\r\n\x1a\n"
PNG_SIZE = 16  # where a PNG has width and height, four bytes each, the highest first
PNG_HEADER = PNG_SIZE + 8
BIG_ENDIAN = (2**24, 2**16, 2**8, 1)


def decode_image(contents: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Return a JPEG or PNG file as `(H, W, 3)` uint8 RGB.

    Args:
        contents: the whole file, a string scalar.
        place: the image's place in its batch, for messages.

    Raises:
        tf.errors.InvalidArgumentError: while the graph runs, for anything but JPEG and PNG, for
            a damaged file, and, before it is decoded, for an image of more than `MAX_PIXELS`.
    """
    jpeg = tf.equal(tf.strings.substr(contents, 0, len(JPEG_START)), JPEG_START)
    png = tf.equal(tf.strings.substr(contents, 0, len(PNG_START)), PNG_START)
    png &= tf.strings.length(contents) >= PNG_HEADER
    known = tf.debugging.Assert(
        jpeg | png,
        [
            "image",
            place,
            "of the batch is neither JPEG nor PNG; bytes:",
            tf.strings.length(contents),
        ],
    )
    contents = after(known, contents)
    size = tf.cond(jpeg, lambda: _jpeg_size(contents), lambda: _png_size(contents))
    contents = after(check_pixels(size, place), contents)
    # The decoder tells the two apart by itself.
    image = tf.io.decode_jpeg(contents, channels=3, dct_method="INTEGER_ACCURATE")
    return tf.ensure_shape(image, (None, None, 3))


def check_pixels(size: tf.Tensor, place: tf.Tensor | str) -> tf.Operation | None:
    """Return the check that an image of `size` `(2,)` is not over the limit of `MAX_PIXELS`."""
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    message = f"pixels are more than the limit of {MAX_PIXELS}; height and width:"
    return tf.debugging.Assert(
        pixels <= MAX_PIXELS, ["image", place, "of the batch:", message, size]
    )


def _jpeg_size(contents: tf.Tensor) -> tf.Tensor:
    return tf.io.extract_jpeg_shape(contents)[:2]


def _png_size(contents: tf.Tensor) -> tf.Tensor:
    numbers = tf.io.decode_raw(tf.strings.substr(contents, PNG_SIZE, 8), tf.uint8)
    width, height = tf.unstack(
        tf.reduce_sum(tf.reshape(tf.cast(numbers, tf.int64), (2, 4)) * BIG_ENDIAN, axis=1)
    )
    return tf.cast(tf.minimum([height, width], 2**31 - 1), tf.int32)
