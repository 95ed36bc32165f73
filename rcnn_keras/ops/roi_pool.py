"""RoIPool (Fast R-CNN, section 2.1): the exact maximum over each cell of a RoI.

n RoIs, C channels, S pooled size.

The maximum over any rectangle is that of four blocks in its corners whose sides are the largest
powers of two that fit. Maxima over all blocks of a size are a table of the map's own shape, made
from the table of half that size, so that a cell costs four reads however large it is.
"""

import tensorflow as tf

LOW_BITS = 0xFFFFFFFF


def roi_pool(features, boxes, pooled_size, scale):
    """Pool the greatest feature in each cell of every RoI.

    RoIs are rounded to whole positions and hold both ends, cells overlap where they do not divide
    evenly, and a cell outside the map is 0, as in Caffe's first version and in torchvision.

    Args:
        features: `(B, H, W, C)` map.
        boxes: `(B, R, 4)` RoIs in image pixels; no gradient flows to them.
        pooled_size: S.
        scale: map positions a pixel, such as 1/16.

    Returns:
        `(B, R, S, S, C)` float32. The gradient goes to each cell's first maximum, row by row.
    """
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    image = tf.repeat(tf.range(batch), count)
    pooled = listed_roi_pool(features, tf.reshape(boxes, [-1, 4]), image, pooled_size, scale)
    return tf.reshape(pooled, [batch, count, pooled_size, pooled_size, features.shape[-1]])


def listed_roi_pool(features, rois, image, pooled_size, scale):
    """`roi_pool` of RoIs in one list.

    Args:
        features: as in `roi_pool`.
        rois: `(n, 4)` boxes in image pixels.
        image: `(n,)` int32, the place in the batch of each RoI's image.
        pooled_size: as in `roi_pool`.
        scale: as in `roi_pool`.

    Returns:
        `(n, S, S, C)` float32.
    """
    features = tf.cast(features, tf.float32)
    shape = tf.shape(features)
    corners = tf.stop_gradient(tf.cast(rois, tf.float32)) * scale
    left, right = _cells(corners[:, 0], corners[:, 2], shape[2], pooled_size)
    top, bottom = _cells(corners[:, 1], corners[:, 3], shape[1], pooled_size)
    grid = [tf.shape(rois)[0], pooled_size, pooled_size]
    top, bottom = (tf.broadcast_to(side[:, :, None], grid) for side in (top, bottom))
    left, right = (tf.broadcast_to(side[:, None, :], grid) for side in (left, right))
    image = tf.broadcast_to(image[:, None, None], grid)
    cells = tf.reshape(tf.stack([image, top, left, bottom, right], axis=-1), [-1, 5])
    pooled = _rectangle_maxima(features, cells)
    return tf.reshape(pooled, [-1, pooled_size, pooled_size, features.shape[-1]])


def _cells(low, high, extent, pooled_size):
    """Return the first position and the one after the last of each cell, `(n, S)` int32."""
    low, high = _round(low), _round(high)
    side = tf.maximum(high - low + 1, 1)
    # By float64, lest the graph optimiser's multiplication by 1/S be another float32.
    cell = tf.cast(tf.cast(side, tf.float64) / pooled_size, tf.float32)[:, None]
    numbers = tf.range(pooled_size, dtype=tf.float32)
    first = low[:, None] + tf.floor(numbers * cell)
    last = low[:, None] + tf.math.ceil((numbers + 1) * cell)
    limit = tf.cast(extent, tf.float32)
    return tuple(tf.cast(tf.clip_by_value(x, 0, limit), tf.int32) for x in (first, last))


def _round(x):
    """Round to whole numbers, halves away from zero, as C does and `tf.round` does not."""
    whole = tf.floor(tf.abs(x))
    return tf.sign(x) * tf.where(tf.abs(x) - whole >= 0.5, whole + 1, whole)


@tf.custom_gradient
def _rectangle_maxima(features, cells):
    """Return the maxima `(m, C)` over `(m, 5)` cells `(image, y1, x1, y2, x2)`, ends excluded."""
    shape, channels = tf.shape(features), features.shape[-1]
    area = shape[1] * shape[2]
    image, y1, x1, y2, x2 = tf.unstack(cells, axis=1)
    filled = tf.where((y2 > y1) & (x2 > x1))[:, 0]
    first = _first_maxima(_keys(features), tf.gather(cells, filled))
    rows = tf.gather(image, filled)[:, None] * area + first
    at = tf.stack([rows, tf.broadcast_to(tf.range(channels), tf.shape(rows))], axis=-1)
    found = tf.gather_nd(tf.reshape(features, [-1, channels]), at)
    pooled = tf.scatter_nd(filled[:, None], found, [tf.shape(cells, tf.int64)[0], channels])

    def gradient(upstream):
        flat = tf.scatter_nd(at, tf.gather(upstream, filled), [shape[0] * area, channels])
        return tf.reshape(flat, shape), None

    return pooled, gradient


def _keys(features):
    """Return `(B, H, W, C)` int64 ordered as the features are, and the first of equal ones first.

    A float's bits order as a whole number but for negative ones, which run backwards. They are the
    high half; the low half counts the positions down.
    """
    height, width = tf.shape(features)[1], tf.shape(features)[2]
    bits = tf.bitcast(tf.where(features == 0, 0.0, features), tf.int32)  # -0 is 0
    ordered = tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, 0x7FFFFFFF), bits)
    positions = tf.reshape(tf.range(height * width), [1, height, width, 1])
    high = tf.bitwise.left_shift(tf.cast(ordered, tf.int64), tf.constant(32, tf.int64))
    return high + (LOW_BITS - tf.cast(positions, tf.int64))


def _first_maxima(keys, cells):
    """Return the position in its image of each cell's greatest key, `(m, C)` int32."""
    shape, channels = tf.shape(keys), keys.shape[-1]
    tall, wide = (_power_within(cells[:, k + 2] - cells[:, k]) for k in (1, 2))
    # With no cell there is nothing to double.
    tallest, widest = (tf.reduce_max(tf.concat([size, [1]], axis=0)) for size in (tall, wide))

    def read(height, width, table, best):
        """Answer the cells whose four blocks have the table's size."""
        members = tf.where((tall == height) & (wide == width))[:, 0]
        image, top, left, bottom, right = tf.unstack(tf.gather(cells, members), axis=1)
        corners = [
            tf.gather(tf.reshape(table, [-1, channels]), (image * shape[1] + y) * shape[2] + x)
            for y in (top, bottom - height)
            for x in (left, right - width)
        ]
        return tf.tensor_scatter_nd_update(best, members[:, None], tf.reduce_max(corners, axis=0))

    def widen(height, width, table, best):
        best = read(height, width, table, best)
        return height, width * 2, _merged(table, width, axis=2), best

    def heighten(height, table, best):
        best = tf.while_loop(
            lambda height, width, table, best: width <= widest, widen, (height, 1, table, best)
        )[-1]
        return height * 2, _merged(table, height, axis=1), best

    best = tf.zeros([tf.shape(cells)[0], channels], tf.int64)
    best = tf.while_loop(lambda height, table, best: height <= tallest, heighten, (1, keys, best))[
        -1
    ]
    return tf.cast(LOW_BITS - tf.bitwise.bitwise_and(best, LOW_BITS), tf.int32)


def _merged(table, size, axis):
    """Double the blocks along an axis; what wraps round the border is never read."""
    return tf.maximum(table, tf.roll(table, -size, axis))


def _power_within(size):
    """Return the largest power of two in each positive number."""
    powers = tf.constant([2**k for k in range(31)])
    return tf.gather(powers, tf.searchsorted(powers, size, side="right") - 1)
