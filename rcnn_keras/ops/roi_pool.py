"""RoIPool (Fast R-CNN, section 2.1): the exact maximum over each cell of a RoI.

B images, n RoIs, C channels, S pooled size, L pyramid levels.

The maximum over any rectangle is that of four blocks in its corners whose sides are the largest
powers of two that fit. Maxima over all blocks of a size are a table of the map's own shape, made
from the table of half that size, so that a cell costs four reads at most, however large it is.

The forward pass reads features. The gradient runs over whole numbers in their place that also say
where each feature is. It is expensive, so inference does without it. The portable form (XLA,
LiteRT, ONNX, OpenVINO) computes the tables of all block sizes that a cell can have beforehand, in
one table, so that no loop depends on the RoIs.
"""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from rcnn_keras.ops.execution import scoped_gradients
from rcnn_keras.ops.types import Tensor

# How many lists there are so far, the maxima in each, and the numbers of their cells.
Parts = tuple[Tensor, tf.TensorArray, tf.TensorArray]

LOW_BITS = 0xFFFFFFFF


def roi_pool(features: Tensor, boxes: Tensor, pooled_size: int, scale: float) -> Tensor:
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


def listed_roi_pool(
    features: Tensor, rois: Tensor, image: Tensor, pooled_size: int, scale: float
) -> Tensor:
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
    (top, bottom), (left, right) = pool_cells(rois, tf.shape(features)[1:3], pooled_size, scale)
    grid = [tf.shape(rois)[0], pooled_size, pooled_size]
    top, bottom = (tf.broadcast_to(side[:, :, None], grid) for side in (top, bottom))
    left, right = (tf.broadcast_to(side[:, None, :], grid) for side in (left, right))
    image = tf.broadcast_to(image[:, None, None], grid)
    cells = tf.reshape(tf.stack([image, top, left, bottom, right], axis=-1), [-1, 5])
    pooled = _rectangle_maxima(features, cells)
    return tf.reshape(pooled, [-1, pooled_size, pooled_size, features.shape[-1]])


def pool_cells(
    rois: Tensor, map_size: Tensor, pooled_size: int, scale: float
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return which positions of the map each cell of a RoI reads.

    Args:
        rois: `(n, 4)` boxes in image pixels.
        map_size: `(2,)` int32, its height and width in positions.
        pooled_size: S.
        scale: map positions a pixel.

    Returns:
        The first position and the one after the last, `(n, S)` int32 each, of the cells down, and
        the same of those across.
    """
    corners = tf.stop_gradient(tf.cast(rois, tf.float32)) * scale
    down = _cells(corners[:, 1], corners[:, 3], map_size[0], pooled_size)
    return down, _cells(corners[:, 0], corners[:, 2], map_size[1], pooled_size)


def _cells(low: Tensor, high: Tensor, extent: Tensor, pooled_size: int) -> tuple[Tensor, Tensor]:
    """Return the first position and the one after the last of each cell, `(n, S)` int32."""
    low, high = rounded(low), rounded(high)
    side = tf.maximum(high - low + 1, 1)
    # By float64: the graph optimiser's multiplication by 1/S would be another float32.
    cell = tf.cast(tf.cast(side, tf.float64) / pooled_size, tf.float32)[:, None]
    numbers = tf.range(pooled_size, dtype=tf.float32)
    first = low[:, None] + tf.floor(numbers * cell)
    last = low[:, None] + tf.math.ceil((numbers + 1) * cell)
    limit = tf.cast(extent, tf.float32)
    return tuple(tf.cast(tf.clip_by_value(x, 0, limit), tf.int32) for x in (first, last))


def rounded(x: Tensor) -> Tensor:
    """Round to whole numbers, halves away from zero, as C does and `tf.round` does not."""
    whole = tf.floor(tf.abs(x))
    return tf.sign(x) * tf.where(tf.abs(x) - whole >= 0.5, whole + 1, whole)


@scoped_gradients()
@tf.custom_gradient
def _rectangle_maxima(
    features: Tensor, cells: Tensor
) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, None]]]:
    """Return the maxima `(m, C)` over `(m, 5)` cells `(image, y1, x1, y2, x2)`, ends excluded."""
    shape, channels = tf.shape(features), features.shape[-1]
    found, members = _maxima_by_size(tf.reshape(features, [-1, channels]), cells, shape)
    numbers = tf.range(1, tf.size(members) + 1)  # 0 is left for cells that hold nothing
    order = tf.scatter_nd(members[:, None], numbers, tf.shape(cells, tf.int64)[:1])
    pooled = tf.gather(tf.pad(found, [[1, 0], [0, 0]]), order)

    def gradient(upstream: Tensor) -> tuple[Tensor, None]:
        places, members = _maxima_by_size(_keys(features), cells, shape, _place)
        flat = _added_up(tf.gather(upstream, members), places, shape[0] * shape[1] * shape[2])
        return tf.reshape(flat, shape), None

    return pooled, gradient


def _keys(features: Tensor) -> Tensor:
    """Return `(B H W, C)` int64 ordered as the features are, and the first of equal ones first.

    A float's bits order as a whole number but for negative ones, which run backwards. They are the
    high half; the low half counts the places down.
    """
    flat = tf.reshape(features, [-1, features.shape[-1]])
    bits = tf.bitcast(tf.where(flat == 0, 0.0, flat), tf.int32)  # -0 is 0
    sign = tf.bitwise.right_shift(bits, 31)
    ordered = tf.bitwise.bitwise_xor(bits, tf.bitwise.bitwise_and(sign, 0x7FFFFFFF))
    places = tf.reshape(tf.range(tf.size(flat, tf.int64)), tf.shape(flat))
    high = tf.bitwise.left_shift(tf.cast(ordered, tf.int64), tf.constant(32, tf.int64))
    return high + (LOW_BITS - places)


def _place(keys: Tensor) -> Tensor:
    """Return the places that keys say, int64."""
    return LOW_BITS - tf.bitwise.bitwise_and(keys, tf.constant(LOW_BITS, tf.int64))


def _maxima_by_size(
    table: Tensor, cells: Tensor, shape: Tensor, read_out: Callable[[Tensor], Tensor] = tf.identity
) -> tuple[Tensor, Tensor]:
    """Return the maxima of a map over all cells that hold a position, those of like size together.

    Args:
        table: `(B H W, C)`.
        cells: `(m, 5)`.
        shape: B, H, W and C.
        read_out: what to return of the maxima; taken of a few at a time, while they are near.

    Returns:
        `(m', C)` maxima, and `(m',)` the numbers of their cells.
    """
    image, y1, x1, y2, x2 = tf.unstack(cells, axis=1)
    real = (y2 > y1) & (x2 > x1)
    tall, wide = tf.where(real, y2 - y1, 1), tf.where(real, x2 - x1, 1)
    height_of, width_of = _power_within(tall), _power_within(wide)
    # With no cell there is nothing to double.
    tallest, widest = (tf.reduce_max(tf.concat([x, [1]], axis=0)) for x in (height_of, width_of))
    first = (image * shape[1] + y1) * shape[2] + x1
    down, right = (tall - height_of) * shape[2], wide - width_of  # to the last block

    def read(height: Tensor, width: Tensor, table: Tensor, parts: Parts) -> Parts:
        """Answer the cells whose blocks have the table's size: one, two or four reads each."""
        of_size = real & (height_of == height) & (width_of == width)
        for more_down in (False, True):
            for more_right in (False, True):
                chosen = tf.where(of_size & ((down > 0) == more_down) & ((right > 0) == more_right))
                members = chosen[:, 0]
                corners = [tf.gather(first, members)]
                if more_right:
                    corners += [corner + tf.gather(right, members) for corner in corners]
                if more_down:
                    corners += [corner + tf.gather(down, members) for corner in corners]
                best = tf.gather(table, corners[0])
                for corner in corners[1:]:
                    best = tf.maximum(best, tf.gather(table, corner))
                number, maxima, of = parts
                parts = number + 1, maxima.write(number, read_out(best)), of.write(number, members)
        return parts

    def widen(
        height: Tensor, width: Tensor, table: Tensor, parts: Parts
    ) -> tuple[Tensor, Tensor, Tensor, Parts]:
        parts = read(height, width, table, parts)
        return height, width * 2, _merged(table, width), parts

    def heighten(height: Tensor, table: Tensor, parts: Parts) -> tuple[Tensor, Tensor, Parts]:
        wider = (height, 1, table, parts)
        parts = tf.while_loop(
            lambda height, width, table, parts: width <= widest,
            widen,
            wider,
            (number, number, rows, of_parts),
            parallel_iterations=1,
        )[-1]
        return height * 2, _merged(table, height * shape[2]), parts

    number, rows = tf.TensorShape([]), tf.TensorShape([None, table.shape[-1]])
    of_parts = (number, None, None)
    maxima, of = (
        tf.TensorArray(dtype, 4, dynamic_size=True, infer_shape=False, element_shape=element)
        for dtype, element in ((table.dtype, rows), (tf.int64, [None]))
    )
    _, _, (_, maxima, of) = tf.while_loop(
        lambda height, table, parts: height <= tallest,
        heighten,
        (1, table, (0, maxima, of)),
        (number, rows, of_parts),
        parallel_iterations=1,
    )
    return maxima.concat(), of.concat()


def _merged(table: Tensor, step: Tensor) -> Tensor:
    """Double the blocks by those `step` rows on; what wraps round a border is never read."""
    return tf.maximum(table[:-step], table[step:])


def _added_up(values: Tensor, places: Tensor, rows: Tensor) -> Tensor:
    """Return `(rows, C)` with every one of `(n, C)` values added at its place in the flat map.

    The kernel is that of max pooling's gradient, in a tenth of the time of `scatter_nd`. Each image
    of its batch has a thread, so the list goes in as two, always cut in the same place so that sums
    do not change from run to run. It wants as many values as places, so the fewer are padded.
    """
    channels = values.shape[-1]
    half = (tf.shape(values)[0] + 1) // 2
    extent = tf.maximum(rows, half)

    def halves(x: Tensor) -> Tensor:
        missing = 2 * half - tf.shape(x)[0]
        x = tf.cond(missing > 0, lambda: tf.pad(x, [[0, missing], [0, 0]]), lambda: x)
        x = tf.reshape(x, [2, half, 1, channels])
        fewer = [[0, 0], [0, extent - half], [0, 0], [0, 0]]
        return tf.cond(half < rows, lambda: tf.pad(x, fewer), lambda: x)  # a pad by 0 is a copy

    both = tf.raw_ops.MaxPoolGradWithArgmax(
        input=tf.zeros([2, extent, 1, channels]),
        grad=halves(values),
        argmax=halves(places),
        ksize=[1, 1, 1, 1],
        strides=[1, 1, 1, 1],
        padding="VALID",
    )
    return both[0, :rows, 0] + both[1, :rows, 0]


def _power_within(size: Tensor) -> Tensor:
    """Return the largest power of two in each positive number."""
    powers = tf.constant([2**k for k in range(31)])
    return tf.gather(powers, tf.searchsorted(powers, size, side="right") - 1)


LONGEST = 2**14  # positions of a RoI's side; longer ones are taken for as long


def portable_roi_pool(
    features: Tensor, rois: Tensor, image: Tensor, pooled_size: int, scale: float
) -> Tensor:
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
    left, right = _portable_cells(corners[:, 0], corners[:, 2], width, pooled_size)
    top, bottom = _portable_cells(corners[:, 1], corners[:, 3], height, pooled_size)
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


def _portable_cells(
    low: Tensor, high: Tensor, extent: int, pooled_size: int
) -> tuple[Tensor, Tensor]:
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


def _most(extent: int) -> int:
    """Return the largest exponent of two within a number of positions."""
    return extent.bit_length() - 1


def _exponent(size: Tensor, extent: int) -> Tensor:
    """Return the exponent of the largest power of two in each number up to `extent`, 0 for 0."""
    exponents = [max(n.bit_length() - 1, 0) for n in range(extent + 1)]
    return tf.gather(tf.constant(exponents), tf.maximum(size, 0))


def _power(exponent: Tensor) -> Tensor:
    return tf.gather(tf.constant([2**k for k in range(31)]), exponent)


def _tables(features: Tensor) -> Tensor:
    """Return the maxima over blocks of all sizes, those of a height together.

    Returns:
        `(tables, B, H, W, C)`, the maxima over the blocks of `2**i` x `2**j` positions at `i` times
        the number of widths, plus `j`.
    """
    height, width = features.shape[1:3]
    tables = []
    for i in range(_most(height) + 1):
        if i:
            features = _merge_maxima(features, 2 ** (i - 1), axis=1)
        row = [features]
        for j in range(_most(width)):
            row.append(_merge_maxima(row[-1], 2**j, axis=2))
        tables += row
    return tf.stack(tables)


def _merge_maxima(table: Tensor, size: int, axis: int) -> Tensor:
    """Double the blocks along an axis; what wraps round the border is never read."""
    first, rest = tf.split(table, [size, table.shape[axis] - size], axis)
    return tf.maximum(table, tf.concat([rest, first], axis))
