"""How large a detector sees an image, and the resizing to it, as two other projects have them.

| | torchvision | Detectron2 |
| --- | --- | --- |
| sides | cut off to whole pixels | rounded to the nearest |
| between pixels | bilinear | bilinear; a smaller image averages over what it leaves out |
| values | float32 | whole numbers, after the rows and again after the columns |

Detectron2 resizes by Pillow, whose arithmetic is in whole numbers: weights of 22 bits. The same is
done here in the graph, so that a SavedModel sees the pixels that Detectron2 sees.
"""

import math
from typing import Literal

import tensorflow as tf

Resizing = Literal["torchvision", "detectron2"]

RESIZINGS = ("torchvision", "detectron2")

BITS = 22  # of Pillow's weights behind the point: 32, less 8 of a pixel and 2 for the sum


def resized_size(
    height: int, width: int, min_size: int, max_size: int, resizing: Resizing = "torchvision"
) -> tuple[int, int]:
    """Return the size at which a detector sees an image of this height and width, in pixels.

    The shorter side becomes `min_size`, unless the longer one would pass `max_size`. This is the
    arithmetic of torchvision's `GeneralizedRCNNTransform`, to the pixel: float64, and the fraction
    is cut off, so that a product that falls short of `min_size` by rounding loses a pixel; or that
    of Detectron2's `ResizeShortestEdge`, which rounds.

    Raises:
        ValueError: for a size below one pixel.
    """
    if min(height, width, min_size, max_size) < 1:
        raise ValueError(
            f"sizes must be at least 1 pixel, not image {height}x{width}, min_size {min_size}, "
            f"max_size {max_size}"
        )
    if resizing == "torchvision":
        scale = min(min_size / min(height, width), max_size / max(height, width))
        return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))
    scale = min_size / min(height, width)
    sides = [min_size if side == min(height, width) else scale * side for side in (height, width)]
    if (longer := max(sides)) > max_size:
        sides = [side * (max_size / longer) for side in sides]
    first, second = (max(1, math.floor(side + 0.5)) for side in sides)
    return first, second


def resized_size_in_graph(
    size: tf.Tensor, min_size: int, max_size: int, resizing: Resizing = "torchvision"
) -> tf.Tensor:
    """Return `resized_size` of `(2,)` int32 height and width, in the same float64."""
    sides = tf.cast(size, tf.float64)
    shorter, longer = tf.reduce_min(sides), tf.reduce_max(sides)
    if resizing == "torchvision":
        scale = tf.minimum(min_size / shorter, max_size / longer)
        return tf.maximum(tf.cast(tf.floor(sides * scale), tf.int32), 1)
    sides = tf.where(sides == shorter, tf.cast(min_size, tf.float64), min_size / shorter * sides)
    longer = tf.reduce_max(sides)
    sides = tf.where(longer > max_size, sides * (max_size / longer), sides)
    return tf.maximum(tf.cast(tf.floor(sides + 0.5), tf.int32), 1)


def resize_as_pillow(
    image: tf.Tensor, height: int | tf.Tensor, width: int | tf.Tensor
) -> tf.Tensor:
    """Return `(..., H, W, C)` of whole numbers in 0..255 resized as Pillow's `BILINEAR` does.

    Args:
        image: uint8, or whole numbers in another type.
        height: of the result, an int or a scalar tensor.
        width: of the result.

    Returns:
        `(..., height, width, C)` int32 in 0..255.
    """
    rows = _resampled(tf.cast(image, tf.int32), width, axis=-2)
    return _resampled(rows, height, axis=-3)


def _resampled(image: tf.Tensor, size: int | tf.Tensor, axis: int) -> tf.Tensor:
    """Resize int32 along one axis, and round."""
    extent = tf.shape(image)[axis]
    first, weights = _weights(extent, tf.convert_to_tensor(size, tf.int32))
    shape = [-1] + [1] * (-axis - 1)  # of a weight for each position along the axis

    def add(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Beyond the last position the weight is 0.
        pixels = tf.gather(image, tf.minimum(first + tap, extent - 1), axis=axis)
        return tap + 1, total + pixels * tf.reshape(weights[:, tap], shape)

    half = tf.fill(tf.shape(first), 1 << (BITS - 1))
    like = tf.gather(image, tf.zeros_like(first), axis=axis)
    total = tf.zeros_like(like) + tf.reshape(half, shape)
    taps = tf.shape(weights)[1]
    unknown = total.shape.as_list()
    unknown[axis] = None
    _, total = tf.while_loop(
        lambda tap, _: tap < taps,
        add,
        (0, total),
        shape_invariants=(tf.TensorShape(()), tf.TensorShape(unknown)),
    )
    return tf.clip_by_value(tf.bitwise.right_shift(total, BITS), 0, 255)


def _weights(extent: tf.Tensor, size: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return what each of `size` positions reads of `extent`.

    Returns:
        The first position `(size,)` int32, and the weights of it and those that follow, `(size, t)`
        int32, in units of 2^-22.
    """
    scale = tf.cast(extent, tf.float64) / tf.cast(size, tf.float64)
    support = tf.maximum(scale, 1.0)  # of a triangle, half its base
    centre = (tf.cast(tf.range(size), tf.float64) + 0.5) * scale
    first = tf.cast(tf.maximum(centre - support + 0.5, 0.0), tf.int32)
    stop = tf.minimum(tf.cast(centre + support + 0.5, tf.int32), extent)
    taps = tf.range(2 * tf.cast(tf.math.ceil(support), tf.int32) + 1)
    places = first[:, None] + taps
    distance = tf.abs((tf.cast(places, tf.float64) - centre[:, None] + 0.5) / support)
    weights = tf.where(places < stop[:, None], tf.maximum(1.0 - distance, 0.0), 0.0)
    weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
    return first, tf.cast(tf.floor(weights * (1 << BITS) + 0.5), tf.int32)
