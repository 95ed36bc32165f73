"""Images, masks and rows of numbers filled up to the sizes that a batch has in common."""

import tensorflow as tf

SIZE_MULTIPLE = 32  # the coarsest stride of a feature pyramid's backbone


def padded_image(image: tf.Tensor) -> tf.Tensor:
    """Fill up an image `(H, W, 3)` at the bottom and right to multiples of `SIZE_MULTIPLE`."""
    bottom, right = tf.unstack(-tf.shape(image)[:2] % SIZE_MULTIPLE)
    return tf.pad(image, [[0, bottom], [0, right], [0, 0]])


def padded_masks(masks: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Fill up packed masks of an image of `size` to multiples of `SIZE_MULTIPLE` pixels."""
    message = "the augmentation must change the masks of a sample with its image"
    expected = tf.stack([size[0], -(-size[1] // 8)])
    with tf.control_dependencies(
        [tf.debugging.assert_equal(tf.shape(masks)[1:], expected, message)]
    ):
        missing = tf.stack([-size[0] % SIZE_MULTIPLE, (-size[1] % SIZE_MULTIPLE) // 8])
    return tf.pad(masks, tf.stack([[0, 0], [0, missing[0]], [0, missing[1]]]))


def padded_rows(rows: tf.Tensor, count: int, value: float) -> tf.Tensor:
    """Fill up to `count` rows with `value`."""
    missing = [[0, count - tf.shape(rows)[0]]] + [[0, 0]] * (rows.shape.rank - 1)
    padded = tf.pad(rows, missing, constant_values=tf.cast(value, rows.dtype))
    return tf.ensure_shape(padded, (count, *rows.shape[1:]))
