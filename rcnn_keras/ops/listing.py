"""From padded rows to a list of the real ones, and back.

B images, R rows an image, n real rows in the whole batch. Work that is done for real rows alone,
such as the mask branch's, takes a list, as the number of them differs from batch to batch.
"""

import tensorflow as tf


def every_row(rows):
    """List all rows of a batch, padding too: a list whose length does not follow from the data.

    Args:
        rows: `(B, R, ...)`.

    Returns:
        `rows` `(B * R, ...)`, and `image` `(B * R,)` int32, the place in the batch of each.
    """
    batch, count = tf.shape(rows)[0], tf.shape(rows)[1]
    image = tf.reshape(tf.range(batch)[:, None] + tf.zeros([1, count], tf.int32), [-1])
    return tf.reshape(rows, [-1, *rows.shape[2:]]), image


def take_rows(rows, index):
    """Take rows of each image by their numbers: `(B, R, ...)` and `(B, n)` int32 to `(B, n, ...)`.

    By one list of all rows: where it is told of a batch, OpenVINO's gather crashes, or gives zeros
    for the first rows.
    """
    first = tf.range(tf.shape(rows)[0])[:, None] * tf.shape(rows)[1]
    return tf.gather(tf.reshape(rows, [-1, *rows.shape[2:]]), first + index)


def listed(real, *padded):
    """Take the real rows of a batch out of their padding.

    A batch without real rows gives its first one: TensorFlow's convolutions fail on nothing.

    Args:
        real: `(B, R)` bool.
        padded: tensors `(B, R, ...)`.

    Returns:
        `image` `(max(n, 1),)` int32, the place in the batch of each row's image, and then for each
        tensor its real rows `(max(n, 1), ...)`, image after image.
    """
    place = tf.where(real)
    place = tf.pad(place, [[0, tf.maximum(1 - tf.shape(place)[0], 0)], [0, 0]])
    return tf.cast(place[:, 0], tf.int32), *(tf.gather_nd(rows, place) for rows in padded)


def rows_of(kernels, real, *padded):
    """List the real rows by `listed`, or with `"portable"` kernels all of them.

    XLA, for one, cannot have a list whose length follows from the data.
    """
    if kernels != "portable":
        return listed(real, *padded)
    return every_row(real)[1], *(every_row(rows)[0] for rows in padded)


def unlisted(real, rows):
    """Put the list's rows back where `real` `(B, R)` is true, among zeros: `(B, R, ...)`."""
    place = tf.cast(tf.where(real), tf.int32)
    shape = tf.concat([tf.shape(real), tf.shape(rows)[1:]], axis=0)
    return tf.scatter_nd(place, rows[: tf.shape(place)[0]], shape)
