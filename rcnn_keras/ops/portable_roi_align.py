"""RoIAlign by gathers alone, for XLA, LiteRT, ONNX and OpenVINO.

B images, n RoIs, C channels, S pooled size, L pyramid levels.

The maps of all levels lie in one table, a row a position. Every RoI reads it at places of its own,
so that no RoI has to be sorted by its level, and no list has a length that the data decide.
Interpolation and the mean over a cell are a weighted sum, along rows and columns separately: a cell
takes 2 x `sampling_ratio` positions down and as many across. They are read one after the other, so
that no more than one feature of each cell is in memory twice.
"""

import tensorflow as tf

from rcnn_keras.ops.roi_align import cell_weights, roi_levels


def portable_roi_align(features, rois, image, pooled_size, scales, sampling_ratio=2, aligned=False):
    """`listed_roi_align` without a kernel of its own: the same numbers to float32's rounding.

    Args:
        features: list of L maps `(B, H_l, W_l, C)`, finest first.
        rois: `(n, 4)` in image pixels; no gradient flows to them.
        image: `(n,)` int32, the place of each RoI's image in the batch.
        pooled_size: S.
        scales: L factors from pixels to map positions.
        sampling_ratio: samples a cell, down and across, at least 1.
        aligned: as in `roi_align`.

    Returns:
        `(n, S, S, C)` float32.

    Raises:
        ValueError: for a sampling ratio of 0: samples that the RoIs' sizes count out.
    """
    if sampling_ratio < 1:
        raise ValueError(
            f"sampling_ratio must be at least 1 for portable kernels; received {sampling_ratio!r}"
        )
    rois, image = tf.stop_gradient(tf.cast(rois, tf.float32)), tf.cast(image, tf.int32)
    table, starts = flat_table(features)
    level = roi_levels(rois, scales)
    sizes = tf.stack([tf.shape(f)[1:3] for f in features])
    extent = tf.gather(sizes, level)  # (n, 2) height and width of each RoI's map
    start = image * tf.reduce_sum(sizes[:, 0] * sizes[:, 1]) + tf.gather(starts, level)

    scale = tf.gather(tf.constant(scales, tf.float32), level)[:, None]
    corners = rois * scale - (0.5 if aligned else 0.0)
    low, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = tf.maximum(size, 1.0)
    step = size / (pooled_size * sampling_ratio)
    columns, rows = (
        cell_weights(
            low[:, k] + step[:, k] / 2,
            step[:, k],
            extent[:, 1 - k, None],
            sampling_ratio,
            pooled_size,
        )
        for k in (0, 1)
    )
    return weighted_reads(table, start, extent[:, 1], rows, columns)


def flat_table(features):
    """Lay maps behind each other, a row a position.

    Args:
        features: list of L maps `(B, H_l, W_l, C)`.

    Returns:
        The table `(B * T, C)` float32 of all T positions of each image, and the row of each map's
        first position `(L,)` int32, counted from the image's first.
    """
    channels = features[0].shape[-1]
    sizes = tf.stack([tf.shape(f)[1] * tf.shape(f)[2] for f in features])
    maps = [tf.cast(f, tf.float32) for f in features]
    maps = [tf.reshape(f, [tf.shape(f)[0], -1, channels]) for f in maps]
    return tf.reshape(tf.concat(maps, axis=1), [-1, channels]), tf.cumsum(sizes, exclusive=True)


def weighted_reads(table, start, width, rows, columns):
    """Sum what each cell of a grid reads from its map, with a weight for row and column.

    Args:
        table: `(T, C)` float32.
        start: `(n,)` int32, the row of the table with each map's first position.
        width: `(n,)` int32, positions of a row of each map.
        rows: positions `(n, S, k)` int32 that the S cells of each grid read, and their weights.
        columns: the same across.

    Returns:
        `(n, S, S, C)` float32.
    """
    (y, y_weights), (x, x_weights) = rows, columns
    y = start[:, None, None] + y * width[:, None, None]
    total = 0.0
    for i in range(y.shape[2]):
        for j in range(x.shape[2]):
            place = y[:, :, None, i] + x[:, None, :, j]
            weight = y_weights[:, :, None, i] * x_weights[:, None, :, j]
            total += tf.gather(table, place) * weight[..., None]
    return total
