"""Masks in the tf.data graph: bitmasks, and the run lengths that they are decoded from.

A bitmask has eight pixels a byte: `(n, H, ceil(W / 8))` uint8. Only one or two masks at a time are
unpacked, so that an image of a hundred objects takes as much memory as its bitmasks do.

Runs go down the columns, the first one of pixels that are not set. A mask's extent is the `(x, y,
width, height)` of the smallest rectangle around what is set of it, zeros if nothing is.

H, W height and width of the stored image, h, w those it is resized to, n objects, r runs of one.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import tensorflow as tf

from rcnn_keras.data.masks import decode_mask
from rcnn_keras.ops.masks import pack_bits, unpack_bits

AT_ONCE = 2  # masks that are unpacked at the same time


def change_masks(
    packed: tf.Tensor, width: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Return the masks as `change` leaves them, set where it gives at least one half.

    Args:
        packed: `(n, H, ceil(width / 8))` uint8.
        width: of the masks in pixels, an int32 scalar.
        change: from `(H, W, 1)` float32, 0 or 1, to any size, as images are changed.
    """

    def changed(one: tf.Tensor) -> tf.Tensor:
        mask = tf.cast(unpack_bits(one, width), tf.float32)[..., None]
        return pack_bits(change(mask)[..., 0] >= 0.5)

    def nothing() -> tf.Tensor:
        # map_fn cannot know the size of what it gives for no masks at all.
        return changed(tf.zeros(tf.shape(packed)[1:], tf.uint8))[None][:0]

    return tf.cond(
        tf.shape(packed)[0] > 0,
        lambda: tf.map_fn(
            changed,
            packed,
            fn_output_signature=tf.TensorSpec((None, None), tf.uint8),
            # TensorFlow warns where it is said and nothing runs in parallel.
            parallel_iterations=None if tf.executing_eagerly() else AT_ONCE,
        ),
        nothing,
    )


def mirror_masks(packed: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return the masks left to right, without unpacking: bytes and their bits in reverse order.

    Args:
        packed: `(n, H, ceil(width / 8))` uint8.
        width: of the masks in pixels, an int32 scalar.
    """
    reverse = tf.reverse(packed, [-1])
    for step, low in ((4, 0x0F), (2, 0x33), (1, 0x55)):  # halves, quarters, single bits
        shift, mask = tf.constant(step, tf.uint8), tf.constant(low, tf.uint8)
        high = tf.bitwise.bitwise_and(tf.bitwise.right_shift(reverse, shift), mask)
        low_bits = tf.bitwise.left_shift(tf.bitwise.bitwise_and(reverse, mask), shift)
        reverse = tf.bitwise.bitwise_or(high, low_bits)
    # What filled up the last byte now stands before the first pixel.
    filled = tf.cast(-width % 8, tf.uint8)
    following = tf.cast(tf.pad(reverse[..., 1:], [[0, 0], [0, 0], [0, 1]]), tf.uint16)
    pair = tf.cast(reverse, tf.uint16) * 256 + following
    shifted = tf.bitwise.right_shift(pair, tf.cast(8 - filled, tf.uint16))
    return tf.cast(tf.bitwise.bitwise_and(shifted, tf.constant(255, tf.uint16)), tf.uint8)


def visible_masks(packed: tf.Tensor) -> tf.Tensor:
    """Tell which masks have a pixel: `(n,)` bool."""
    return tf.reduce_any(tf.not_equal(packed, 0), axis=[1, 2])


PRECISION_BITS = 22  # of Pillow's weights for 8-bit images

HALF = 127  # of 255; a pixel is set above it


def encode_runs(segmentation: Any, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a COCO segmentation as `(r,)` run lengths and their extent, `(4,)`, both int64.

    Raises:
        ValueError: as `decode_mask`.
    """
    mask = decode_mask(segmentation, height, width)
    edges = np.flatnonzero(np.diff(mask.T.ravel(), prepend=False))
    runs = np.diff(edges, prepend=0, append=height * width).astype(np.int64)
    return runs, np.array(cv2.boundingRect(mask.astype(np.uint8)), np.int64)


def decode_masks(
    runs: tf.RaggedTensor, extents: tf.Tensor, old: tf.Tensor, new: tf.Tensor
) -> tf.Tensor:
    """Return the masks of an image's objects on the image resized, as `record_masks` gives them.

    Pillow's bilinear resizing to the bit: weights of 22 bits, columns before rows, and 8 bits in
    between. Only what an object's extent reaches is computed.

    Args:
        runs: int64 `(n, None)`; an object without a mask has none.
        extents: `(n, 4)` int64.
        old: `(2,)` int32, H and W.
        new: `(2,)` int32, h and w.

    Returns:
        `(n, h, ceil(w / 8))` uint8, eight pixels a byte as `numpy.packbits` lays them out.
    """
    old, new = tf.cast(old, tf.int64), tf.cast(new, tf.int64)
    height, width = new[0], new[1]

    def one(number: tf.Tensor) -> tf.Tensor:
        return _resized(runs[number], extents[number], old, new)

    def nothing() -> tf.Tensor:
        return tf.zeros(tf.stack([0, height, -(-width // 8)]), tf.uint8)

    count = tf.shape(extents)[0]
    return tf.cond(
        count > 0,
        lambda: tf.map_fn(
            one, tf.range(count), fn_output_signature=tf.TensorSpec((None, None), tf.uint8)
        ),
        nothing,
    )


def _resized(runs: tf.Tensor, extent: tf.Tensor, old: tf.Tensor, new: tf.Tensor) -> tf.Tensor:
    """Return one mask at another size, `(h, ceil(w / 8))` uint8."""
    x, y, wide, high = tf.unstack(extent)

    def inside() -> tf.Tensor:
        part = _window(runs, extent, old[0])  # (high, wide)
        rows = _axis(y, high, old[0], new[0])
        columns = _axis(x, wide, old[1], new[1])
        part = tf.transpose(_along_rows(tf.transpose(part), *columns[1:]))
        part = _along_rows(part, *rows[1:]) > HALF
        # Most of the image is empty, and has eight times fewer bytes than pixels.
        part = pack_bits(tf.pad(part, [[0, 0], [columns[0] % 8, 0]]))
        before = tf.stack([rows[0], columns[0] // 8])
        return tf.pad(part, tf.stack([before, size - before - tf.shape(part, tf.int64)], axis=1))

    size = tf.stack([new[0], -(-new[1] // 8)])
    return tf.cond(wide > 0, inside, lambda: tf.zeros(size, tf.uint8))


def _window(runs: tf.Tensor, extent: tf.Tensor, height: tf.Tensor) -> tf.Tensor:
    """Return what lies in a mask's extent, `(high, wide)` int32 of 0 and 255."""
    x, y, wide, high = tf.unstack(extent)
    pixels = wide * height
    turns = tf.clip_by_value(tf.cumsum(runs) - x * height, 0, pixels)  # where a next run begins
    ones = tf.ones_like(turns, tf.int32)
    changes = tf.scatter_nd(turns[:, None], ones, (pixels + 1)[None])
    bits = tf.bitwise.bitwise_and(tf.cumsum(changes)[:-1], 1)
    columns = tf.reshape(bits, tf.stack([wide, height]))
    return tf.transpose(columns[:, y : y + high]) * 255


def _axis(
    first: tf.Tensor, extent: tf.Tensor, old: tf.Tensor, new: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return what pixels `first` to `first + extent` of `old` along an axis reach of `new`, m.

    The reach is that of `rcnn_keras.data.masks`, the weights are Pillow's: a triangle as wide as
    two pixels of the smaller of both images.

    Returns:
        The first of the new pixels; `(m, k)` int64 places within the extent that each reads, and
        `(m, k)` int32 weights of these, 0 for what lies outside of it.
    """
    ratio = tf.cast(new, tf.float64) / tf.cast(old, tf.float64)
    last = first + extent - 1
    start = tf.maximum(_whole(tf.floor(tf.cast(first - 1, tf.float64) * ratio)) - 1, 0)
    stop = tf.minimum(_whole(tf.math.ceil(tf.cast(last + 2, tf.float64) * ratio)) + 1, new)
    # Pillow takes the box in float32, and goes on in float64.
    low = tf.cast(tf.cast(start, tf.float64) / ratio, tf.float32)
    high = tf.minimum(tf.cast(stop, tf.float64) / ratio, tf.cast(old, tf.float64))
    side = tf.cast(tf.cast(high, tf.float32) - low, tf.float64)
    low = tf.cast(low, tf.float64)
    scale = side / tf.cast(stop - start, tf.float64)
    reach = tf.maximum(scale, 1.0)
    centres = low + (tf.cast(tf.range(stop - start), tf.float64) + 0.5) * scale
    begin = tf.maximum(_whole(centres - reach + 0.5), 0)[:, None]
    end = tf.minimum(_whole(centres + reach + 0.5), old)[:, None]
    places = begin + tf.range(_whole(tf.math.ceil(reach)) * 2 + 1)
    distance = tf.abs((tf.cast(places, tf.float64) - centres[:, None] + 0.5) * (1.0 / reach))
    weights = tf.where(places < end, tf.maximum(1.0 - distance, 0.0), 0.0)
    weights /= tf.cumsum(weights, axis=1)[:, -1:]  # added up one after the other, as Pillow does
    fixed = tf.cast(weights * 2.0**PRECISION_BITS + 0.5, tf.int32)
    seen = (places >= first) & (places <= last)
    return start, tf.clip_by_value(places - first, 0, extent - 1), tf.where(seen, fixed, 0)


def _along_rows(pixels: tf.Tensor, places: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the rows of `(m, ..)` int32 pixels weighted and added up, rounded to 0..255."""

    def add(tap: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tap + 1, total + tf.gather(pixels, places[:, tap]) * weights[:, tap, None]

    taps = tf.shape(places)[1]
    total = tf.fill(tf.stack([tf.shape(places)[0], tf.shape(pixels)[1]]), 1 << (PRECISION_BITS - 1))
    _, total = tf.while_loop(
        lambda tap, _: tap < taps,
        add,
        (0, total),
        shape_invariants=(tf.TensorShape(()), tf.TensorShape((None, None))),
    )
    return tf.bitwise.right_shift(total, PRECISION_BITS)


def _whole(numbers: tf.Tensor) -> tf.Tensor:
    """Return floats with their fractions cut off, as C does it."""
    return tf.cast(numbers, tf.int64)
