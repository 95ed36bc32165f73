"""Masks with eight pixels to a byte, laid out as `numpy.packbits` does along the width.

B images, N ground-truth objects, M mask size, n RoIs of the whole batch.
"""

import numpy as np
import tensorflow as tf
from keras import ops

from rcnn_keras.ops.interpolation import weights_at
from rcnn_keras.ops.types import Tensor


def pack_bits(masks: Tensor) -> Tensor:
    """Pack masks, eight pixels to a byte.

    Args:
        masks: `(..., H, W)` bool or numbers; a pixel is set where it is not 0. Any W: the last
            byte is filled up with zeros.

    Returns:
        `(..., H, ceil(W / 8))` uint8; the first pixel of a byte is its highest bit.
    """
    bits = ops.cast(ops.not_equal(masks, 0), "uint8")
    bits = ops.pad(bits, [(0, 0)] * (len(bits.shape) - 1) + [(0, -ops.shape(bits)[-1] % 8)])
    # Strided slices are several times faster than a sum over a last axis of eight.
    packed = bits[..., 0::8]
    for place in range(1, 8):
        packed = packed * 2 + bits[..., place::8]
    return packed


def unpack_bits(packed: Tensor, width: int | Tensor) -> Tensor:
    """Undo `pack_bits`.

    Args:
        packed: `(..., H, ceil(width / 8))` uint8.
        width: pixels in a row, an int or a scalar tensor.

    Returns:
        `(..., H, width)` bool.
    """
    places = np.array([128, 64, 32, 16, 8, 4, 2, 1], "uint8")
    bits = ops.not_equal(ops.bitwise_and(packed[..., None], places), 0)
    shape = ops.shape(packed)
    return ops.reshape(bits, (*shape[:-1], shape[-1] * 8))[..., :width]


def to_bitmasks(masks: Tensor, height: int | Tensor, width: int | Tensor) -> Tensor:
    """Return masks of either form as `pack_bits` packs them, and see that they fit the images.

    Args:
        masks: `(B, N, H, W)` bool or numbers, or `(B, N, H, ceil(W / 8))` uint8.
        height: H of the images, an int or a scalar tensor.
        width: W.

    Returns:
        `(B, N, H, ceil(W / 8))` uint8.

    Raises:
        tf.errors.InvalidArgumentError: while the graph runs, for masks of any other shape.
    """
    masks = tf.convert_to_tensor(masks)
    rows, columns = ops.shape(masks)[-2:]
    plain = columns == width  # a bool where both are known, for XLA must know the result's shape
    fits = plain | (columns == -(-width // 8)) if masks.dtype == tf.uint8 else plain
    data = ["masks of height and width", rows, columns, "for images of", height, width]
    check = tf.debugging.Assert(fits & (rows == height), data)
    with tf.control_dependencies([check] if check is not None else []):
        if isinstance(plain, bool):
            return pack_bits(masks) if plain else tf.cast(masks, tf.uint8)
        return tf.cond(plain, lambda: pack_bits(masks), lambda: tf.cast(masks, tf.uint8))


def mask_targets(
    masks: Tensor, image_sizes: Tensor, rois: Tensor, image: Tensor, matches: Tensor, size: int
) -> Tensor:
    """Cut out of ground-truth masks what the mask head should draw in each RoI.

    RoIAlign with one channel and as many samples a cell as it has pixels, as torchvision's
    `project_masks_on_boxes`. Bilinear interpolation and the mean over a cell act on rows and
    columns separately, so that a target is the RoI's pixels between two small matrices. One mask
    is unpacked at a time, and of it the RoI's part alone.

    Args:
        masks: `(B, N, H, ceil(W / 8))` uint8 from `pack_bits`.
        image_sizes: `(B, 2)` int32, beyond which a sample repeats the image's last pixel.
        rois: `(n, 4)` boxes in pixels.
        image: `(n,)` int32, the place in the batch of each RoI's image.
        matches: `(n,)` int32, the ground-truth object of each RoI.
        size: M.

    Returns:
        `(n, M, M)` float32 in 0..1, the share of each cell that the mask covers.
    """

    def one_roi(roi: tuple[Tensor, Tensor]) -> Tensor:
        (x1, y1, x2, y2), place = tf.unstack(roi[0]), roi[1]
        height, width = tf.unstack(image_sizes[place[0]])
        top, bottom, rows = _cell_weights(y1, y2, height, size)
        left, right, columns = _cell_weights(x1, x2, width, size)
        first, last = left // 8, -(-right // 8)
        packed = masks[place[0], place[1], top:bottom, first:last]
        pixels = unpack_bits(packed, (last - first) * 8)[:, left - first * 8 : right - first * 8]
        return tf.linalg.matmul(rows, tf.cast(pixels, tf.float32)) @ tf.transpose(columns)

    places = tf.stack([image, matches], axis=1)
    spec = tf.TensorSpec((size, size), tf.float32)
    return tf.map_fn(one_roi, (rois, places), fn_output_signature=spec, parallel_iterations=4)


def portable_mask_targets(
    masks: Tensor, image_sizes: Tensor, rois: Tensor, image: Tensor, matches: Tensor, size: int
) -> Tensor:
    """Do what `mask_targets` does in sizes that do not follow from the RoIs, as XLA must have it.

    Each RoI looks at its whole mask, with weights of zero where it is not.
    """
    height, width = tf.shape(masks)[2], tf.shape(masks)[3] * 8

    def one_roi(roi: tuple[Tensor, Tensor]) -> Tensor:
        (x1, y1, x2, y2), place = tf.unstack(roi[0]), roi[1]
        own = tf.unstack(image_sizes[place[0]])
        rows = _all_weights(y1, y2, own[0], size, height)
        columns = _all_weights(x1, x2, own[1], size, width)
        pixels = unpack_bits(masks[place[0], place[1]], width)
        return tf.linalg.matmul(rows, tf.cast(pixels, tf.float32)) @ tf.transpose(columns)

    places = tf.stack([image, matches], axis=1)
    spec = tf.TensorSpec((size, size), tf.float32)
    return tf.map_fn(one_roi, (rois, places), fn_output_signature=spec, parallel_iterations=4)


def _all_weights(start: Tensor, stop: Tensor, extent: Tensor, cells: int, pixels: Tensor) -> Tensor:
    """Return the `(M, pixels)` weights of all pixels of a side in each cell; as `_cell_weights`."""
    side = tf.maximum(stop - start, 1.0)
    samples = tf.math.ceil(side / cells)
    most = -(-pixels // cells)
    sample = tf.range(most, dtype=tf.int32)[None]
    number = tf.cast(tf.range(cells)[:, None], tf.float32) * samples + tf.cast(sample, tf.float32)
    points = start + (number + 0.5) * (side / (cells * samples))
    furthest = tf.cast(extent - 1, tf.float32)
    seen = (points >= -1.0) & (points <= furthest + 1.0) & (tf.cast(sample, tf.float32) < samples)
    points = tf.clip_by_value(points, 0.0, furthest)
    weights = weights_at(points, tf.cast(tf.range(pixels), tf.float32))
    weights *= tf.cast(seen, tf.float32)[..., None]
    return tf.reduce_sum(weights, axis=1) / samples


def _cell_weights(
    start: Tensor, stop: Tensor, extent: Tensor, cells: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the pixels from `first` to `last` that a RoI's side reads, and their weights.

    Args:
        start: of the side, in pixels.
        stop: of the side, in pixels.
        extent: pixels of the image along the side.
        cells: M.

    Returns:
        `first` and `last` int32, and `(M, last - first)` weights of the pixels in each cell.
    """
    side = tf.maximum(stop - start, 1.0)
    samples = tf.cast(tf.math.ceil(side / cells), tf.int32)
    step = side / tf.cast(cells * samples, tf.float32)
    points = start + (tf.range(cells * samples, dtype=tf.float32) + 0.5) * step
    furthest = tf.cast(extent - 1, tf.float32)
    seen = tf.cast((points >= -1.0) & (points <= furthest + 1.0), tf.float32)
    points = tf.clip_by_value(points, 0.0, furthest)
    first = tf.cast(tf.floor(points[0]), tf.int32)
    last = tf.minimum(tf.cast(tf.floor(points[-1]), tf.int32) + 2, extent)
    weights = weights_at(points, tf.range(first, last, dtype=tf.float32)) * seen[:, None]
    return first, last, tf.reduce_mean(tf.reshape(weights, [cells, samples, last - first]), axis=1)
