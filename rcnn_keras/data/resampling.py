"""How Detectron2 sees an image: rounded sides, and Pillow's pixels, made in the graph.

Pillow's arithmetic is in whole numbers, with weights of 22 bits; a smaller image averages over what
it leaves out, and values are rounded after the rows and again after the columns. The same is done
here, so that a SavedModel sees the pixels that Detectron2 sees.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import tensorflow as tf

Resizing = Literal["torchvision", "detectron2"]

RESIZINGS = ("torchvision", "detectron2")

BITS = 22  # of Pillow's weights behind the point: 32, less 8 of a pixel and 2 for the sum


@dataclass(frozen=True)
class Detectron2ImageRule:
    """The `ImageRule` of Detectron2: `ResizeShortestEdge` and `detector_postprocess`.

    Attributes:
        min_sizes: lengths in pixels to which the shorter side is resized; of several, each sample
            of a training draws one, and detection takes the last.
        max_size: most pixels of the longer side.
    """

    min_sizes: tuple[int, ...]
    max_size: int

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return h and w at each of the sizes; both sides are rounded."""
        return [self._size(height, width, min_size) for min_size in self.min_sizes]

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return h and w of an image of H x W pixels in detection."""
        return self._size(height, width, self.min_sizes[-1])

    def _size(self, height: int, width: int, min_size: int) -> tuple[int, int]:
        shorter = min(height, width)
        scale = min_size / shorter
        sides = [min_size if side == shorter else scale * side for side in (height, width)]
        if (longer := max(sides)) > self.max_size:
            sides = [side * (self.max_size / longer) for side in sides]
        first, second = (max(1, math.floor(side + 0.5)) for side in sides)
        return first, second

    def size_in_graph(self, size: tf.Tensor) -> tf.Tensor:
        """Return what `size` does, in the same float64."""
        sides = tf.cast(size, tf.float64)
        shorter, min_size = tf.reduce_min(sides), float(self.min_sizes[-1])
        sides = tf.where(
            sides == shorter, tf.cast(min_size, tf.float64), min_size / shorter * sides
        )
        longer = tf.reduce_max(sides)
        sides = tf.where(longer > self.max_size, sides * (self.max_size / longer), sides)
        return tf.maximum(tf.cast(tf.floor(sides + 0.5), tf.int32), 1)

    def resize(self, image: Any, height: Any, width: Any) -> tf.Tensor:
        """Return images of whole values, as Pillow makes them of uint8."""
        return tf.cast(resize_as_pillow(image, height, width), tf.float32)

    def restore(self, boxes: Any, seen: Any, given: Any) -> tf.Tensor:
        """Return boxes in pixels of the given image, clipped to it."""
        seen, given = (tf.cast(size, tf.float32)[..., ::-1] for size in (seen, given))
        limit, ratio = (tf.concat([x, x], axis=-1)[..., None, :] for x in (given, given / seen))
        return tf.clip_by_value(tf.cast(boxes, tf.float32) * ratio, 0.0, limit)


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
