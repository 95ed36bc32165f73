"""Regions of an image warped to one size (R-CNN, appendix A, the last row of figure 7).

B images, n regions, S side of a crop, p pixels of context around the region in the crop.
"""

import tensorflow as tf

from rcnn_keras.ops.interpolation import neighbours
from rcnn_keras.ops.roi_align import flat_table, weighted_reads
from rcnn_keras.ops.types import Tensor


def warp_regions(
    images: Tensor, image_sizes: Tensor, rois: Tensor, image: Tensor, crop_size: int, context: int
) -> Tensor:
    """Cut regions out of images, with context, and warp each to a square.

    A region is grown about its centre so that after warping it has exactly p pixels of context on
    every side: it fills the middle (S - 2p) x (S - 2p) pixels. Pixels are read bilinearly at the
    centres of the crop's, without averaging, and are zero outside the image: the mean, where the
    mean was subtracted beforehand.

    Args:
        images: `(B, H, W, C)` floats.
        image_sizes: `(B, 2)` integers, height and width of the valid part.
        rois: `(n, 4)` boxes `xyxy` in pixels, in the image or over its border.
        image: `(n,)` int32, the place of each region's image in the batch.
        crop_size: S, more than 2p.
        context: p.

    Returns:
        `(n, S, S, C)` float32.
    """
    image_sizes = tf.minimum(tf.cast(image_sizes, tf.int32), tf.shape(images)[1:3])
    y, x = _centres(rois, crop_size, context)
    bordered = tf.cast(_with_copied_border(images, image_sizes), tf.float32)
    # Pixel i lies at i + 0.5, and at i + 1 behind the border.
    height, width = tf.unstack(tf.cast(tf.shape(bordered)[1:3] - 1, tf.float32))
    corners = tf.stack([y[:, 0], x[:, 0], y[:, -1], x[:, -1]], axis=1) + 0.5
    corners /= tf.stack([height, width, height, width])
    crops = tf.image.crop_and_resize(bordered, corners, image, [crop_size] * 2)
    return _inside(crops, y, x, tf.gather(image_sizes, image))


def portable_warp_regions(
    images: Tensor, image_sizes: Tensor, rois: Tensor, image: Tensor, crop_size: int, context: int
) -> Tensor:
    """`warp_regions` by gathers alone, for XLA, LiteRT, ONNX and OpenVINO.

    Args and return value are those of `warp_regions`.
    """
    image_sizes = tf.minimum(tf.cast(image_sizes, tf.int32), tf.shape(images)[1:3])
    y, x = _centres(rois, crop_size, context)
    sizes = tf.gather(image_sizes, image)
    rows, columns = (
        neighbours(points - 0.5, tf.cast(sizes[:, k, None] - 1, tf.float32))
        for k, points in enumerate((y, x))
    )
    table, _ = flat_table([tf.cast(images, tf.float32)])
    width = tf.shape(images)[2]
    start = image * (tf.shape(images)[1] * width)
    crops = weighted_reads(table, start, tf.fill(tf.shape(image), width), rows, columns)
    return _inside(crops, y, x, sizes)


def _centres(rois: Tensor, crop_size: int, context: int) -> tuple[Tensor, Tensor]:
    """Return where the centres of the crops' pixels lie, y and x `(n, S)`."""
    steps = (tf.range(crop_size, dtype=tf.float32) + 0.5 - context) / (crop_size - 2 * context)
    x = rois[:, :1] + steps * (rois[:, 2:3] - rois[:, :1])
    y = rois[:, 1:2] + steps * (rois[:, 3:] - rois[:, 1:2])
    return y, x


def _inside(crops: Tensor, y: Tensor, x: Tensor, sizes: Tensor) -> Tensor:
    """Set to zero what lies outside images of `(n, 2)` sizes."""
    sizes = tf.cast(sizes, tf.float32)
    inside_y, inside_x = (y >= 0) & (y <= sizes[:, :1]), (x >= 0) & (x <= sizes[:, 1:])
    inside = inside_y[:, :, None] & inside_x[:, None]
    return tf.where(inside[..., None], crops, 0.0)


def _with_copied_border(images: Tensor, image_sizes: Tensor) -> Tensor:
    """Continue the valid part of each image by its last pixels: `(B, H + 2, W + 2, C)`."""
    height, width = tf.unstack(tf.shape(images)[1:3])
    rows, columns = (
        tf.minimum(tf.maximum(tf.range(-1, extent + 1), 0)[None], image_sizes[:, k : k + 1] - 1)
        for k, extent in enumerate((height, width))
    )
    images = tf.gather(images, rows, axis=1, batch_dims=1)
    columns = tf.repeat(columns[:, None], height + 2, axis=1)
    return tf.gather(images, columns, axis=2, batch_dims=2)
