"""RoIs cut from a pyramid by `crop_and_resize`, as matterport/Mask_RCNN pools them.

n RoIs in all, C channels, S pooled size, L levels.

One sample a cell, the first and the last of them on the corners of the RoI; a sample outside of the
map is 0. Boxes are read as the original does: from the middle of the first pixel that is inside to
the middle of the last, so that a box over the whole image is 0..1.

The gradient is not the kernel's own, see `ops.roi_align`.
"""

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from rcnn_keras.ops.execution import scoped_gradients
from rcnn_keras.ops.inclusive_boxes import to_inclusive
from rcnn_keras.ops.roi_align import (
    CANONICAL_LEVEL,
    CANONICAL_SIZE,
    MAX_VALUES,
    cell_weights,
    flat_table,
    spread_gradient,
    weighted_reads,
)
from rcnn_keras.ops.types import Tensor

LEAST_AREA = 1e-30  # of the whole image; its logarithm is finite and far below every level


def listed_pyramid_crop(
    features: Sequence[Tensor],
    rois: Tensor,
    image: Tensor,
    pooled_size: int,
    strides: Sequence[int],
) -> Tensor:
    """Pool a fixed grid of features from every RoI, at the level that its size chooses.

    Args:
        features: list of L maps `(B, H_l, W_l, C)`, finest first.
        rois: `(n, 4)` in pixels of the image; no gradient flows to them.
        image: `(n,)` int32, the place of each RoI's image in the batch.
        pooled_size: S.
        strides: L numbers of pixels a position.

    Returns:
        `(n, S, S, C)` float32.
    """
    boxes, levels = _placed(features, rois, strides)
    image = tf.cast(image, tf.int32)
    members = [tf.where(levels == k)[:, 0] for k in range(len(features))]
    pooled = tf.concat(
        [
            _crop(f, tf.gather(boxes, m), tf.gather(image, m), pooled_size)
            for f, m in zip(features, members, strict=True)
        ],
        axis=0,
    )
    return tf.gather(pooled, tf.math.invert_permutation(tf.concat(members, axis=0)))


def portable_pyramid_crop(
    features: Sequence[Tensor],
    rois: Tensor,
    image: Tensor,
    pooled_size: int,
    strides: Sequence[int],
) -> Tensor:
    """`listed_pyramid_crop` by gathers alone: the same numbers to float32's rounding."""
    boxes, level = _placed(features, rois, strides)
    image = tf.cast(image, tf.int32)
    table, starts = flat_table(features)
    sizes = tf.stack([tf.shape(f)[1:3] for f in features])
    extent = tf.gather(sizes, level)  # (n, 2) height and width of each RoI's map
    start = image * tf.reduce_sum(sizes[:, 0] * sizes[:, 1]) + tf.gather(starts, level)
    first, step = _samples(boxes, extent, pooled_size)
    rows, columns = (
        cell_weights(first[:, k], step[:, k], extent[:, k, None], 1, pooled_size) for k in (0, 1)
    )
    return weighted_reads(table, start, extent[:, 1], rows, columns)


def crop_levels(boxes: Tensor, size: Tensor, strides: Sequence[int]) -> Tensor:
    """Return the index of the level for each box: `(n, 4)` in 0..1 to `(n,)` int32 in 0..L-1.

    Feature Pyramid Networks, equation 1, with the nearest whole number in place of the floor.

    Args:
        boxes: `(n, 4)` `y1, x1, y2, x2` in 0..1 of the image.
        size: `(2,)` float32 height and width of the image in pixels.
        strides: L numbers of pixels a position.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    ratio = tf.sqrt(tf.maximum(area, LEAST_AREA)) / (CANONICAL_SIZE / tf.sqrt(size[0] * size[1]))
    level = CANONICAL_LEVEL + tf.round(tf.math.log(ratio) / tf.math.log(2.0))
    finest = round(math.log2(strides[0]))
    return tf.clip_by_value(tf.cast(level, tf.int32) - finest, 0, len(strides) - 1)


def _placed(
    features: Sequence[Tensor], rois: Tensor, strides: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return RoIs as `y1, x1, y2, x2` in 0..1, and the level of each."""
    size = tf.cast(tf.shape(features[0])[1:3] * strides[0], tf.float32)
    inclusive = to_inclusive(tf.stop_gradient(tf.cast(rois, tf.float32)))
    boxes = tf.gather(inclusive, [1, 0, 3, 2], axis=1) / (tf.tile(size, [2]) - 1.0)
    return boxes, crop_levels(boxes, size, strides)


def _samples(boxes: Tensor, extent: Tensor, pooled_size: int) -> tuple[Tensor, Tensor]:
    """Return the first samples of boxes and the steps between them, `(n, 2)` in map positions."""
    furthest = tf.cast(extent, tf.float32) - 1.0
    first = boxes[:, :2] * furthest
    return first, (boxes[:, 2:] - boxes[:, :2]) * furthest / (pooled_size - 1)


@scoped_gradients()
def _crop(features: Tensor, boxes: Tensor, image: Tensor, pooled_size: int) -> Tensor:
    """Cut `(n, 4)` boxes in 0..1 from one map: `(n, S, S, C)`, some of them at a time."""
    size = tf.fill([2], pooled_size)
    shape_of = (pooled_size, pooled_size, features.shape[-1])
    chunk = max(MAX_VALUES // math.prod(shape_of), 1)

    @tf.custom_gradient
    def crop(features: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        shape = tf.shape(features)

        def gradient(upstream: Tensor) -> Tensor:
            first, step = _samples(boxes, shape[1:3], pooled_size)
            return spread_gradient(upstream, image, first, step, shape, tf.constant([1, 1]))

        parts = tf.maximum(-(-tf.shape(image)[0] // chunk), 1)
        crops = tf.TensorArray(
            tf.float32, parts, infer_shape=False, element_shape=[None, *shape_of]
        )

        def read(k: Tensor, crops: tf.TensorArray) -> tuple[Tensor, tf.TensorArray]:
            part = slice(k * chunk, (k + 1) * chunk)
            found = tf.image.crop_and_resize(features, boxes[part], image[part], size)
            return k + 1, crops.write(k, found)

        _, crops = tf.while_loop(lambda k, _: k < parts, read, (0, crops), parallel_iterations=1)
        return tf.ensure_shape(crops.concat(), [None, *shape_of]), gradient

    return crop(tf.cast(features, tf.float32))
