"""RoIPool by gathers alone, for XLA, LiteRT, ONNX and OpenVINO.

B images, n RoIs, C channels, S pooled size.

As in `roi_pool`, the maximum over a cell is that of four blocks in its corners whose sides are the
largest powers of two that fit. The tables of all sizes of blocks that a cell can have are made
beforehand and lie in one, so that no loop ends where the RoIs say.
"""

import numpy as np
import tensorflow as tf

from rcnn_keras.ops.roi_pool import listed_roi_pool, rounded

LONGEST = 2**14  # positions of a RoI's side; longer ones are taken for as long


def portable_roi_pool(features, rois, image, pooled_size, scale):
    """`listed_roi_pool` without loops: the same numbers.

    The gradient is shared by equal maxima of a cell, where `roi_pool` gives it to the first.

    Args:
        features: `(B, H, W, C)` map. Where H and W are not known while the graph is built, there
            are no tables to make beforehand, and `listed_roi_pool` does the work.
        rois: `(n, 4)` boxes in image pixels, up to 16,384 positions wide and high; no gradient
            flows to them.
        image: `(n,)` int32, the place in the batch of each RoI's image.
        pooled_size: S.
        scale: map positions a pixel, such as 1/16.

    Returns:
        `(n, S, S, C)` float32.
    """
    height, width, channels = features.shape[1:]
    if height is None or width is None:
        return listed_roi_pool(features, rois, image, pooled_size, scale)
    corners = tf.stop_gradient(tf.cast(rois, tf.float32)) * scale
    left, right = _cells(corners[:, 0], corners[:, 2], width, pooled_size)
    top, bottom = _cells(corners[:, 1], corners[:, 3], height, pooled_size)
    tall, wide = _exponent(bottom - top, height), _exponent(right - left, width)

    tables = _tables(tf.cast(features, tf.float32))
    table = tf.reshape(tables, [-1, channels])
    batch = tf.shape(features)[0]
    number = tall[:, :, None] * (_most(width) + 1) + wide[:, None]  # (n, S, S) of the table
    start = (number * batch + tf.cast(image, tf.int32)[:, None, None]) * (height * width)
    pooled = None
    for y in (top, tf.maximum(bottom - _power(tall), 0)):
        for x in (left, tf.maximum(right - _power(wide), 0)):
            y_in, x_in = tf.minimum(y, height - 1), tf.minimum(x, width - 1)
            corner = tf.gather(table, start + y_in[:, :, None] * width + x_in[:, None])
            pooled = corner if pooled is None else tf.maximum(pooled, corner)
    filled = (bottom > top)[:, :, None] & (right > left)[:, None]
    return tf.where(filled[..., None], pooled, 0.0)


def _cells(low, high, extent, pooled_size):
    """Return the first position and the one after the last of each cell, `(n, S)` int32."""
    low, high = rounded(low), rounded(high)
    side = tf.clip_by_value(high - low + 1, 1, LONGEST)
    # Looked up: compilers turn a division into a multiplication that rounds to another float32.
    quotients = tf.constant(np.arange(LONGEST + 1, dtype="float32") / np.float32(pooled_size))
    cell = tf.gather(quotients, tf.cast(side, tf.int32))[:, None]
    numbers = tf.range(pooled_size, dtype=tf.float32)
    first = low[:, None] + tf.floor(numbers * cell)
    last = low[:, None] + tf.math.ceil((numbers + 1) * cell)
    limit = float(extent)
    return tuple(tf.cast(tf.clip_by_value(x, 0, limit), tf.int32) for x in (first, last))


def _most(extent):
    """Return the largest exponent of two within a number of positions."""
    return extent.bit_length() - 1


def _exponent(size, extent):
    """Return the exponent of the largest power of two in each number up to `extent`, 0 for 0."""
    exponents = [max(n.bit_length() - 1, 0) for n in range(extent + 1)]
    return tf.gather(tf.constant(exponents), tf.maximum(size, 0))


def _power(exponent):
    return tf.gather(tf.constant([2**k for k in range(31)]), exponent)


def _tables(features):
    """Return the maxima over blocks of all sizes, those of a height together.

    Returns:
        `(tables, B, H, W, C)`, the maxima over the blocks of `2**i` x `2**j` positions at `i` times
        the number of widths, plus `j`.
    """
    height, width = features.shape[1:3]
    tables = []
    for i in range(_most(height) + 1):
        if i:
            features = _merged(features, 2 ** (i - 1), axis=1)
        row = [features]
        for j in range(_most(width)):
            row.append(_merged(row[-1], 2**j, axis=2))
        tables += row
    return tf.stack(tables)


def _merged(table, size, axis):
    """Double the blocks along an axis; what wraps round the border is never read."""
    first, rest = tf.split(table, [size, table.shape[axis] - size], axis)
    return tf.maximum(table, tf.concat([rest, first], axis))
