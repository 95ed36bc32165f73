"""Keypoints to cells of heat maps, and heat maps to keypoints.

n RoIs or detections, P keypoints of each, M side of a heat map (56).
"""

import tensorflow as tf
from keras import ops

from rcnn_keras.ops.batching import in_equal_chunks
from rcnn_keras.ops.types import Tensor

SHARPNESS = -0.75  # PyTorch's a of the cubic kernel (Keys 1981)
GRID = 256  # pixels down and across that portable kernels look at together
REFINED = 8  # pixels on all sides of the best of these that they look at afterwards
LOWEST = -3e38  # below all values; infinity is no number to every runtime
TINY = 1e-6  # pixels of a side that nothing is divided by


def keypoint_targets(keypoints: Tensor, rois: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Return the cell of its heat map that each keypoint lies in (Mask R-CNN, 5).

    A keypoint on the right or lower border is in the last cell.

    Args:
        keypoints: `(n, P, 3)` x and y in pixels and visibility, of each RoI's ground truth.
        rois: `(n, 4)` boxes in pixels.
        size: M.

    Returns:
        `cells` `(n, P)` int32, row * M + column, and `valid` `(n, P)` bool, which of them are
        labelled and inside their RoI; cells of the others are 0.
    """
    low, high = rois[:, None, :2], rois[:, None, 2:]
    points = keypoints[..., :2]
    place = ops.floor((points - low) * size / ops.maximum(high - low, TINY))
    place = ops.where(points == high, size - 1.0, place)
    valid = ops.all((place >= 0) & (place < size), axis=-1) & (keypoints[..., 2] > 0)
    place = ops.cast(ops.where(valid[..., None], place, 0.0), "int32")
    return place[..., 1] * size + place[..., 0], valid


def decode_heatmaps(maps: Tensor, rois: Tensor, logits: bool = False) -> Tensor:
    """Return the keypoints that heat maps show, as torchvision and Detectron2 read them.

    Each map is resized bicubically to the whole pixels of its box, and the keypoint is the centre
    of the pixel with the largest value.

    Args:
        maps: `(n, M, M, P)` float32 logits.
        rois: `(n, 4)` boxes in pixels.
        logits: what the score is: the value at the keypoint, torchvision's; or Detectron2's, the
            exponential of this value over the sum of those of the map's M x M cells. It is near the
            softmax over the cells, and above 1 at the top of a narrow peak between cells.

    Returns:
        `(n, P, 3)` float32: x and y in pixels, and the score.
    """

    def decode_one(one: tuple[Tensor, Tensor]) -> Tensor:
        channels, pixels = one
        rows = bicubic_weights(tf.range(pixels[1]), pixels[1], channels.shape[1])
        columns = bicubic_weights(tf.range(pixels[0]), pixels[0], channels.shape[1])
        values = tf.matmul(tf.matmul(rows[None], channels), columns[None], transpose_b=True)
        values = tf.reshape(values, [channels.shape[0], -1])
        best = tf.argmax(values, axis=1, output_type=tf.int32)
        places = tf.stack([best % pixels[0], best // pixels[0]], axis=1)
        top = tf.reduce_max(values, axis=1)
        return tf.concat([tf.cast(places, tf.float32), top[:, None]], axis=1)

    channels, pixels, sides = _prepared(maps, rois)
    best = tf.map_fn(
        decode_one,
        (channels, pixels),
        fn_output_signature=tf.TensorSpec((maps.shape[-1], 3), tf.float32),
        # TensorFlow warns where it is said and nothing runs in parallel.
        parallel_iterations=None if tf.executing_eagerly() else 2,
    )
    return _in_image(best, maps, rois, pixels, sides, logits)


def portable_decode_heatmaps(maps: Tensor, rois: Tensor, logits: bool = False) -> Tensor:
    """Do what `decode_heatmaps` does in sizes that do not follow from the boxes.

    The same for boxes of up to `GRID` pixels in both directions. Of a larger one every second
    pixel is looked at, or third and so on, and then each around the best of them: the same unless
    the map has two peaks of nearly the same height.
    """

    def decode_some(channels: Tensor, pixels: Tensor) -> list[Tensor]:
        size = channels.shape[-1]
        step = -(-pixels // GRID)  # (n, 2) across and down
        grid = tf.range(GRID)[None]
        rows, columns = grid * step[:, 1, None], grid * step[:, 0, None]
        row, column, _ = _best_of(channels, rows, columns, pixels, size)
        around = tf.range(-REFINED, REFINED + 1)
        rows, columns = row[..., None] + around, column[..., None] + around
        found = _best_of(channels, rows, columns, pixels, size)
        return [tf.cast(x, tf.float32) for x in found]

    channels, pixels, sides = _prepared(maps, rois)
    shapes = [(maps.shape[-1],)] * 3
    row, column, top = in_equal_chunks(decode_some, 1, shapes, channels, pixels)
    return _in_image(tf.stack([column, row, top], axis=-1), maps, rois, pixels, sides, logits)


def bicubic_weights(places: Tensor, pixels: Tensor, size: int) -> Tensor:
    """Return the weights of a row of M values at pixels of the row resized.

    Half-pixel centres, no antialiasing, and the outermost values repeated beyond the ends.

    Args:
        places: `(..)` int32, the pixels.
        pixels: `(..)` int32 that broadcasts, how many the resized row has.
        size: M.

    Returns:
        `(.., M)` float32.
    """
    scale = tf.cast(size, tf.float32) / tf.cast(pixels, tf.float32)
    source = (tf.cast(places, tf.float32) + 0.5) * scale - 0.5
    first = tf.floor(source)
    beyond = source - first
    weights: Tensor = 0.0
    for tap, weight in zip(range(-1, 3), _cubic(beyond), strict=True):
        position = tf.clip_by_value(tf.cast(first, tf.int32) + tap, 0, size - 1)
        weights += weight[..., None] * tf.one_hot(position, size)
    return weights


def _cubic(t: Tensor) -> list[Tensor]:
    """Return the weights of the two values before a point and the two after it, t past one."""
    a = SHARPNESS

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(t + 1), near(t), near(1 - t), far(2 - t)]


def _prepared(maps: Tensor, rois: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return maps `(n, P, M, M)`, the boxes in whole pixels `(n, 2)`, and their sides."""
    sides = tf.maximum(rois[:, 2:] - rois[:, :2], 1.0)
    return tf.transpose(maps, [0, 3, 1, 2]), tf.cast(tf.math.ceil(sides), tf.int32), sides


def _best_of(
    channels: Tensor, rows: Tensor, columns: Tensor, pixels: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, column and value `(n, P)` of the best of some pixels, those outside left out.

    Args:
        channels: `(n, P, M, M)`.
        rows: `(n, r)` int32, or `(n, P, r)` for each map its own.
        columns: likewise, c of them.
        pixels: `(n, 2)` int32 width and height.
        size: M.
    """
    rows, columns = (x if len(x.shape) == 3 else x[:, None] for x in (rows, columns))
    width, height = pixels[:, 0, None, None], pixels[:, 1, None, None]
    weights = bicubic_weights(rows, height, size), bicubic_weights(columns, width, size)
    values = tf.matmul(tf.matmul(weights[0], channels), weights[1], transpose_b=True)
    inside = [(x >= 0) & (x < most) for x, most in ((rows, height), (columns, width))]
    inside = inside[0][..., None] & inside[1][..., None, :]
    values = tf.where(inside, values, LOWEST)
    values = tf.reshape(values, [-1, values.shape[1], values.shape[2] * values.shape[3]])
    best = tf.argmax(values, axis=2, output_type=tf.int32)
    return (
        _at(rows, best // columns.shape[-1]),
        _at(columns, best % columns.shape[-1]),
        tf.reduce_max(values, axis=2),
    )


def _at(numbers: Tensor, place: Tensor) -> Tensor:
    """Return of `(n, P, r)` or `(n, 1, r)` numbers those at a place: `(n, P)`."""
    chosen = tf.one_hot(place, numbers.shape[-1], dtype=numbers.dtype)
    return tf.reduce_sum(numbers * chosen, axis=2)


def _in_image(
    best: Tensor, maps: Tensor, rois: Tensor, pixels: Tensor, sides: Tensor, logits: bool
) -> Tensor:
    """Return keypoints `(n, P, 3)` from the best pixels of the boxes and their values."""
    correction = sides / tf.cast(pixels, tf.float32)
    points = (best[..., :2] + 0.5) * correction[:, None] + rois[:, None, :2]
    top = best[..., 2]
    if not logits:
        top = 1.0 / tf.reduce_sum(tf.exp(maps - top[:, None, None]), axis=[1, 2])
    return tf.concat([points, top[..., None]], axis=2)
