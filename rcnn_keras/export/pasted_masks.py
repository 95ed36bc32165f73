"""`data.paste_masks` inside a graph: masks inside boxes as masks of the whole image.

B images, D detections, n of them no padding, M mask size, H, W of the image.
"""

import tensorflow as tf

from rcnn_keras.ops import listed, unlisted

THRESHOLD = 0.5


def paste_masks(found: dict[str, tf.Tensor], height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    """Return the pixels that each detection covers, where its mask is above one half.

    Interpolation acts on rows and columns separately, so a mask is its grid between two small
    matrices. One detection at a time is drawn, and padding not at all.

    Args:
        found: detections, `masks` `(B, D, M, M)` in 0..1 and `boxes` `(B, D, 4)` in pixels.
        height: H of the images, a scalar tensor.
        width: W.

    Returns:
        `(B, D, H, W)` uint8 of 0 and 1, zeros for padding.
    """
    real = found["labels"] >= 0
    _, boxes, masks = listed(real, found["boxes"], found["masks"])
    # torchvision's rule: a border of zeros around the grid, the box grown with it and cut to pixels
    cells = masks.shape[-1] + 2
    masks = tf.pad(masks, [[0, 0], [1, 1], [1, 1]])
    half = (boxes[:, 2:] - boxes[:, :2]) * 0.5 * (cells / (cells - 2))
    centre = (boxes[:, 2:] + boxes[:, :2]) * 0.5
    first = tf.cast(centre - half, tf.int32)
    sides = tf.maximum(tf.cast(centre + half, tf.int32) - first + 1, 1)

    def one(detection):
        mask, corner, box_sides = detection
        (left, top), (wide, high) = tf.unstack(corner), tf.unstack(box_sides)
        rows = _weights(top, high, height, cells)
        columns = _weights(left, wide, width, cells)
        drawn = tf.matmul(tf.matmul(rows, mask), columns, transpose_b=True)
        return tf.cast(drawn > THRESHOLD, tf.uint8)

    spec = tf.TensorSpec((None, None), tf.uint8)
    drawn = tf.map_fn(one, (masks, first, sides), fn_output_signature=spec, parallel_iterations=4)
    return unlisted(real, drawn)


def _weights(first: tf.Tensor, side: tf.Tensor, extent: tf.Tensor, cells: int) -> tf.Tensor:
    """Return `(extent, cells)` weights of the grid's cells in each pixel along an axis.

    Args:
        first: the first pixel of the grown box, which may lie outside of the image.
        side: pixels of the grown box.
        extent: pixels of the image.
        cells: of the grid.
    """
    pixels = tf.range(extent) - first
    inside = tf.cast((pixels >= 0) & (pixels < side), tf.float32)
    points = (tf.cast(pixels, tf.float32) + 0.5) * (cells / tf.cast(side, tf.float32)) - 0.5
    points = tf.clip_by_value(points, 0.0, cells - 1.0)
    distance = tf.abs(points[:, None] - tf.range(cells, dtype=tf.float32))
    return tf.maximum(1.0 - distance, 0.0) * inside[:, None]
