"""RoIAlign (Mask R-CNN, section 3), on native kernels and by gathers alone.

B images, R RoIs an image, n RoIs in all, C channels, S pooled size, L pyramid levels.

Native: `crop_and_resize` interpolates on a grid that runs from the first to the last corner it is
given, while RoIAlign samples at the centres of sub-cells. Placing the corners on RoIAlign's first
and last sample, and padding the map by one copied pixel (RoIAlign extends the border that far and
is zero beyond), makes the two agree. Where the number of samples follows the RoI's size, RoIs of
equal numbers are read together. The gradient is not the kernel's own: on CPUs its threads add to
the same positions without a lock, and additions get lost. It is the transposed sparse matrix that
pooling amounts to, from the map without its border: a padded gradient would be one more map of the
finest level to hold.

Portable (XLA, LiteRT, ONNX, OpenVINO): the maps of all levels lie in one table, a row a position.
Every RoI reads it at its own positions, so that no RoI has to be sorted by its level and the data
decide no length. Interpolation and the mean over a cell are a weighted sum, along rows and columns
separately: a cell takes 2 x `sampling_ratio` positions down and as many across. They are read one
after the other, so that no more than one feature of each cell is in memory twice. Where the number
of samples follows the RoI's size, a loop reads the k-th sample of every RoI that has so many.
"""

import math
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf

from rcnn_keras.ops.boxes import area
from rcnn_keras.ops.execution import scoped_gradients
from rcnn_keras.ops.interpolation import neighbours
from rcnn_keras.ops.types import Tensor

CANONICAL_SIZE, CANONICAL_LEVEL = 224.0, 4  # Feature Pyramid Networks, equation 1

MAX_SAMPLES = 2**16  # points read at once where their number follows the RoI's size

MAX_VALUES = 2**23  # samples times channels held at once, 32 MB

MAX_PRODUCTS = 2**31 - 1  # of one sparse matrix product, TensorFlow's limit on GPUs


def roi_align(
    features: Tensor,
    boxes: Tensor,
    pooled_size: int,
    scale: float,
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Tensor:
    """Pool a fixed grid of features from every RoI.

    Args:
        features: `(B, H, W, C)` map.
        boxes: `(B, R, 4)` RoIs in image pixels; no gradient flows to them.
        pooled_size: S.
        scale: map positions a pixel, such as 1/16.
        sampling_ratio: samples a cell, down and across; 0 for as many as the RoI has positions for
            each of its S cells, rounded up, which is slower.
        aligned: take pixel centres into account (detectron2's correction); False is torchvision's
            default, in which RoIs are at least one position wide.

    Returns:
        `(B, R, S, S, C)` float32.
    """
    return multilevel_roi_align([features], boxes, pooled_size, [scale], sampling_ratio, aligned)


def multilevel_roi_align(
    features: Sequence[Tensor],
    boxes: Tensor,
    pooled_size: int,
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign in which each RoI reads the pyramid level that its size chooses.

    Args:
        features: list of L maps `(B, H_l, W_l, C)`, finest first.
        boxes: `(B, R, 4)` RoIs in image pixels; no gradient flows to them.
        pooled_size: S.
        scales: L factors from pixels to map positions.
        sampling_ratio: as in `roi_align`.
        aligned: as in `roi_align`.

    Returns:
        `(B, R, S, S, C)` float32.
    """
    batch, count = tf.shape(boxes)[0], tf.shape(boxes)[1]
    rois, image = tf.reshape(boxes, [-1, 4]), tf.repeat(tf.range(batch), count)
    pooled = listed_roi_align(features, rois, image, pooled_size, scales, sampling_ratio, aligned)
    return tf.reshape(pooled, [batch, count, pooled_size, pooled_size, features[0].shape[-1]])


def listed_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    image: Tensor,
    pooled_size: int,
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Tensor:
    """RoIAlign for a list of RoIs from all images of the batch, however many an image has.

    Args:
        features: as in `multilevel_roi_align`.
        rois: `(n, 4)` in image pixels; no gradient flows to them.
        image: `(n,)` int32, the place of each RoI's image in the batch.
        pooled_size: S.
        scales: as in `multilevel_roi_align`.
        sampling_ratio: as in `roi_align`.
        aligned: as in `roi_align`.

    Returns:
        `(n, S, S, C)` float32.
    """
    rois, image = tf.stop_gradient(tf.cast(rois, tf.float32)), tf.cast(image, tf.int32)
    how = (pooled_size, sampling_ratio, aligned)
    if len(features) == 1:
        return _pool(features[0], rois, image, scales[0], *how)
    levels = roi_levels(rois, scales)
    members = [tf.where(levels == k)[:, 0] for k in range(len(features))]
    pooled = tf.concat(
        [
            _pool(f, tf.gather(rois, m), tf.gather(image, m), s, *how)
            for f, m, s in zip(features, members, scales, strict=True)
        ],
        axis=0,
    )
    return tf.gather(pooled, tf.math.invert_permutation(tf.concat(members, axis=0)))


def roi_levels(boxes: Tensor, scales: Sequence[float]) -> Tensor:
    """Return the index of the pyramid level for each `(..., 4)` box: `(...)` int32 in 0..L-1."""
    finest = round(-math.log2(scales[0]))
    ratio = tf.maximum(tf.sqrt(area(boxes)) / CANONICAL_SIZE, 1e-12)
    level = tf.floor(CANONICAL_LEVEL + tf.math.log(ratio) / math.log(2.0) + 1e-6)
    # Clipped as a whole number: a box of NaN then has a level too.
    return tf.clip_by_value(tf.cast(level, tf.int32) - finest, 0, len(scales) - 1)


def sample_points(
    roi: Tensor, scale: float, pooled_size: int, sampling_ratio: int = 2, aligned: bool = False
) -> tuple[Tensor, Tensor]:
    """Return where a RoI is read: rows and columns of samples, in positions of its map.

    Args:
        roi: `(4,)` in image pixels.
        scale: as in `roi_align`, like the others.
        pooled_size: likewise.
        sampling_ratio: likewise.
        aligned: likewise.

    Returns:
        `(S * r,)` float32 down and `(S * r',)` across, r and r' samples a cell; position i of a map
        is the centre of its i-th row or column.
    """
    low, size = _placed(tf.cast(roi, tf.float32)[None], scale, aligned)
    ratio = tf.maximum(_adaptive_ratios(size, pooled_size)[0], 1)
    if sampling_ratio > 0:
        ratio = tf.fill([2], sampling_ratio)
    first, last = _first_and_last(low, size, pooled_size * ratio)
    down, across = (tf.linspace(first[0, k], last[0, k], pooled_size * ratio[k]) for k in (0, 1))
    return down, across


def _placed(rois: Tensor, scale: float, aligned: bool) -> tuple[Tensor, Tensor]:
    """Return first corners and sides of RoIs, `(n, 2)` y and x, in map positions."""
    corners = rois[:, ::-1] * scale - (0.5 if aligned else 0.0)  # y2 x2 y1 x1
    low, size = corners[:, 2:], corners[:, :2] - corners[:, 2:]
    return low, size if aligned else tf.maximum(size, 1.0)


def _first_and_last(low: Tensor, size: Tensor, samples: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first and last of so many samples along each side: the middles of sub-cells."""
    inset = size / tf.cast(2 * samples, tf.float32)
    return low + inset, low + size - inset


def _adaptive_ratios(size: Tensor, pooled_size: int) -> Tensor:
    """Return a sample for each position that a cell has, rounded up: `(n, 2)` int32."""
    # By float64: the graph optimiser's multiplication by 1/S would be another float32.
    cell = tf.cast(tf.cast(size, tf.float64) / pooled_size, tf.float32)
    return tf.cast(tf.math.ceil(cell), tf.int32)


def _pool(
    features: Tensor,
    rois: Tensor,
    image: Tensor,
    scale: float,
    pooled_size: int,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pool `(n, 4)` RoIs from one map: `(n, S, S, C)`."""
    features = tf.cast(features, tf.float32)
    bordered = tf.pad(features, [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    maps = features, tf.stop_gradient(bordered)
    low, size = _placed(rois, scale, aligned)
    if sampling_ratio > 0:
        return _means(maps, low, size, image, pooled_size, (sampling_ratio, sampling_ratio))
    return _adaptive_means(maps, low, size, image, pooled_size)


@scoped_gradients()
def _means(
    maps: tuple[Tensor, Tensor],
    low: Tensor,
    size: Tensor,
    image: Tensor,
    pooled_size: int,
    ratio: tuple[int, int] | Tensor,
) -> Tensor:
    """Average `ratio` samples, down and across, in each cell of RoIs of first corner and size.

    Args:
        maps: the map, to which the gradient flows, and the same with a border, which is read.
        low: `(n, 2)` first corners, y and x, in map positions.
        size: `(n, 2)` sides in map positions.
        image: `(n,)` place of each RoI's image in the batch.
        pooled_size: S.
        ratio: samples a cell, down and across.
    """
    features, bordered = maps
    shape, channels = tf.shape(features), features.shape[-1]
    ratio = tf.convert_to_tensor(ratio)
    samples = pooled_size * ratio
    inset = size / tf.cast(2 * samples, tf.float32)
    first, last = _first_and_last(low, size, samples)

    @tf.custom_gradient
    def pool(features: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        extent = tf.cast(shape[1:3] + 1, tf.float32)  # the border moves the map by one position
        grid = tf.concat([(first + 1.0) / extent, (last + 1.0) / extent], axis=1)
        chunk = tf.maximum(MAX_VALUES // (tf.reduce_prod(samples) * channels), 1)
        parts = tf.maximum(-(-tf.shape(image)[0] // chunk), 1)

        def read(k: Tensor, pooled: tf.TensorArray) -> tuple[Tensor, tf.TensorArray]:
            part = slice(k * chunk, (k + 1) * chunk)
            crops = tf.image.crop_and_resize(bordered, grid[part], image[part], samples)
            # Rows, then columns: TensorFlow's mean over both axes at once takes five times as long.
            width = pooled_size * ratio[1] * channels
            rows = tf.reduce_mean(tf.reshape(crops, [-1, pooled_size, ratio[0], width]), axis=2)
            cells = tf.reshape(rows, [-1, pooled_size, pooled_size, ratio[1], channels])
            return k + 1, pooled.write(k, tf.reduce_mean(cells, axis=3))

        shape_of_part = [None, pooled_size, pooled_size, channels]
        pooled = tf.TensorArray(tf.float32, parts, infer_shape=False, element_shape=shape_of_part)
        _, pooled = tf.while_loop(lambda k, _: k < parts, read, (0, pooled), parallel_iterations=1)
        return pooled.concat(), gradient

    def gradient(upstream: Tensor) -> Tensor:
        return spread_gradient(upstream, image, first, 2 * inset, shape, ratio)

    return pool(features)


def spread_gradient(
    upstream: Tensor, image: Tensor, first: Tensor, step: Tensor, shape: Tensor, ratio: Tensor
) -> Tensor:
    """Return the gradient of a map from that of the cells that were read from it.

    Args:
        upstream: `(n, S, S, C)`.
        image: `(n,)` place of each RoI's image in the batch.
        first: `(n, 2)` y and x of the first samples, in map positions.
        step: `(n, 2)` from sample to sample.
        shape: `(4,)` of the map.
        ratio: `(2,)` samples a cell, down and across.

    Returns:
        `(B, H, W, C)`.
    """
    upstream = tf.convert_to_tensor(upstream)  # not the slices that a gather hands back
    pooled_size, channels = upstream.shape[1], upstream.shape[-1]
    count, samples = tf.shape(image)[0], pooled_size * ratio
    chunk = tf.maximum(MAX_PRODUCTS // (4 * tf.reduce_prod(samples) * channels), 1)

    def product(start: int | Tensor) -> Tensor:
        of_image, begin, steps, cells = (
            x[start : start + chunk] for x in (image, first, step, upstream)
        )
        axes = [
            cell_weights(begin[:, k], steps[:, k], shape[k + 1], ratio[k], pooled_size)
            for k in range(2)
        ]
        matrix = _cell_matrix(of_image, axes, shape)
        cells = tf.reshape(cells, [-1, channels])
        return tf.sparse.sparse_dense_matmul(matrix, cells, adjoint_a=True)

    def add(start: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
        return start + chunk, total + product(start)

    _, total = tf.while_loop(lambda start, _: start < count, add, (chunk, product(0)))
    return tf.reshape(total, shape)


def cell_weights(
    first: Tensor, step: Tensor, extent: Tensor, ratio: int | Tensor, pooled_size: int
) -> tuple[Tensor, Tensor]:
    """Return what the cells of each RoI read along one axis.

    Args:
        first: `(n,)` places of the first samples.
        step: `(n,)` from sample to sample.
        extent: positions of the map.
        ratio: samples a cell.
        pooled_size: S.

    Returns:
        Positions `(n, S, 2 * ratio)` int32 and their weights float32.
    """
    points = first[:, None] + tf.range(pooled_size * ratio, dtype=tf.float32) * step[:, None]
    furthest = tf.cast(extent - 1, tf.float32)
    seen = (points >= -1.0) & (points <= furthest + 1.0)  # neither are NaN and infinity
    positions, weights = neighbours(tf.where(seen, points, 0.0), furthest)
    weights *= (tf.cast(seen, tf.float32) / tf.cast(ratio, tf.float32))[..., None]
    shape = [-1, pooled_size, 2 * ratio]
    return tf.reshape(positions, shape), tf.reshape(weights, shape)


def _cell_matrix(
    image: Tensor, axes: Sequence[tuple[Tensor, Tensor]], shape: Tensor
) -> tf.SparseTensor:
    """Return the sparse matrix from all of a map's positions to the cells of n RoIs."""
    (rows, row_weights), (columns, column_weights) = axes
    weights = row_weights[:, :, None, :, None] * column_weights[:, None, :, None, :]
    rows = image[:, None, None] * shape[1] + rows
    positions = rows[:, :, None, :, None] * shape[2] + columns[:, None, :, None, :]
    cells = tf.size(rows[:, :, 0]) * tf.shape(columns)[1]
    number = tf.repeat(tf.range(cells), tf.size(positions) // tf.maximum(cells, 1))
    indices = tf.stack([number, tf.reshape(positions, [-1])], axis=1)
    size = tf.stack([cells, tf.reduce_prod(shape[:3])])
    return tf.SparseTensor(
        tf.cast(indices, tf.int64), tf.reshape(weights, [-1]), tf.cast(size, tf.int64)
    )


def _adaptive_means(
    maps: tuple[Tensor, Tensor], low: Tensor, size: Tensor, image: Tensor, pooled_size: int
) -> Tensor:
    """`_means` with a sample for each position a cell has, rounded up; 0 for RoIs of no area."""
    ratios = _adaptive_ratios(size, pooled_size)
    empty = tf.reduce_any(ratios <= 0, axis=1)
    ratios = tf.maximum(ratios, 1)
    _, group = tf.raw_ops.UniqueV2(x=ratios, axis=[0])
    order = tf.argsort(group, stable=True)
    group = tf.gather(group, order)
    count, channels = tf.shape(order)[0], maps[0].shape[-1]

    def read(start: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """Read the next RoIs of one group, as many as their samples allow."""
        ratio = ratios[order[start]]
        chunk = tf.maximum(MAX_SAMPLES // (tf.reduce_prod(ratio) * pooled_size**2), 1)
        stop = tf.searchsorted(group, group[start : start + 1], side="right")[0]
        stop = tf.minimum(stop, start + chunk)
        members = order[start:stop]
        of_group = tuple(tf.gather(part, members) for part in (low, size, image))
        means = _means(maps, of_group[0], of_group[1], of_group[2], pooled_size, ratio)
        return stop, tf.tensor_scatter_nd_update(pooled, members[:, None], means)

    pooled = tf.zeros([count, pooled_size, pooled_size, channels])
    _, pooled = tf.while_loop(
        lambda start, pooled: start < count, read, (0, pooled), parallel_iterations=1
    )
    return tf.where(empty[:, None, None, None], 0.0, pooled)


def portable_roi_align(
    features: Sequence[Tensor],
    rois: Tensor,
    image: Tensor,
    pooled_size: int,
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
) -> Tensor:
    """`listed_roi_align` without a kernel of its own: the same numbers to float32's rounding.

    Args:
        features: list of L maps `(B, H_l, W_l, C)`, finest first.
        rois: `(n, 4)` in image pixels; no gradient flows to them.
        image: `(n,)` int32, the place of each RoI's image in the batch.
        pooled_size: S.
        scales: L factors from pixels to map positions.
        sampling_ratio: as in `roi_align`; with 0 the largest RoI decides how often the loop runs.
        aligned: as in `roi_align`.

    Returns:
        `(n, S, S, C)` float32.
    """
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
    if sampling_ratio == 0:
        return _adaptive_reads(table, start, extent, low, size, pooled_size)
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


def _portable_ratios(size: Tensor, pooled_size: int) -> Tensor:
    """`_adaptive_ratios` in float32, which LiteRT has: made exact by products of whole numbers."""
    ratio = tf.math.ceil(size * (1.0 / pooled_size))
    ratio = tf.where(ratio * pooled_size < size, ratio + 1.0, ratio)
    ratio = tf.where((ratio - 1.0) * pooled_size >= size, ratio - 1.0, ratio)
    return tf.cast(ratio, tf.int32)


@scoped_gradients()
def _adaptive_reads(
    table: Tensor, start: Tensor, extent: Tensor, low: Tensor, size: Tensor, pooled_size: int
) -> Tensor:
    """Average a sample for each position a cell has, rounded up; 0 for RoIs of no area.

    Args:
        table: as in `weighted_reads`, like `start`.
        start: likewise.
        extent: `(n, 2)` int32 height and width of each RoI's map.
        low: `(n, 2)` first corners, x and y, in map positions.
        size: `(n, 2)` sides, x and y, in map positions.
        pooled_size: S.
    """
    ratios = _portable_ratios(size, pooled_size)
    empty = tf.reduce_any(ratios <= 0, axis=1)
    ratios = tf.maximum(ratios, 1)
    samples = tf.reduce_prod(ratios, axis=1)
    share = tf.where(empty, 0.0, 1.0 / tf.cast(samples, tf.float32))
    most = tf.reduce_max(tf.pad(samples, [[0, 1]]))
    cell = size / pooled_size
    step = cell / tf.cast(ratios, tf.float32)

    def sample(k: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Return what rows and columns the k-th sample of each cell reads, with their weights."""
        columns, rows = (
            cell_weights(
                low[:, axis] + (tf.cast(place, tf.float32) + 0.5) * step[:, axis],
                cell[:, axis],
                extent[:, 1 - axis, None],
                1,
                pooled_size,
            )
            for axis, place in enumerate((k % ratios[:, 0], k // ratios[:, 0]))
        )
        weight = tf.where(k < samples, share, 0.0)[:, None, None]
        return (rows[0], rows[1] * weight), columns

    @tf.custom_gradient
    def pool(table: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        def add(k: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            return k + 1, total + weighted_reads(table, start, extent[:, 1], *sample(k))

        shape = tf.stack([tf.shape(start)[0], pooled_size, pooled_size, table.shape[-1]])
        pooled = tf.ensure_shape(tf.zeros(shape), (None, pooled_size, pooled_size, table.shape[-1]))
        _, pooled = tf.while_loop(lambda k, _: k < most, add, (0, pooled))
        return pooled, gradient

    def gradient(upstream: Tensor) -> Tensor:
        upstream = tf.convert_to_tensor(upstream)

        def add(k: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
            return k + 1, _add_reads(total, upstream, start, extent[:, 1], *sample(k))

        return tf.while_loop(lambda k, _: k < most, add, (0, tf.zeros_like(table)))[1]

    return pool(table)


def flat_table(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
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


def weighted_reads(
    table: Tensor,
    start: Tensor,
    width: Tensor,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor],
) -> Tensor:
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
    reads = _places(start, width, rows, columns)
    return sum(tf.gather(table, place) * weight[..., None] for place, weight in reads)


def _add_reads(
    table: Tensor,
    values: Tensor,
    start: Tensor,
    width: Tensor,
    rows: tuple[Tensor, Tensor],
    columns: tuple[Tensor, Tensor],
) -> Tensor:
    """Add `(n, S, S, C)` values to where `weighted_reads` reads them, with their weights."""
    for place, weight in _places(start, width, rows, columns):
        table = tf.tensor_scatter_nd_add(table, place[..., None], values * weight[..., None])
    return table


def _places(
    start: Tensor, width: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the rows of the table that each cell reads, `(n, S, S)`, and their weights."""
    (y, y_weights), (x, x_weights) = rows, columns
    y = start[:, None, None] + y * width[:, None, None]
    for i in range(y.shape[2]):
        for j in range(x.shape[2]):
            weight = y_weights[:, :, None, i] * x_weights[:, None, :, j]
            yield y[:, :, None, i] + x[:, None, :, j], weight
