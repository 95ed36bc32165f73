"""RoIAlign (Mask R-CNN, section 3) on TensorFlow's `crop_and_resize` kernel.

B images, R RoIs an image, C channels, S pooled size, L pyramid levels.

`crop_and_resize` interpolates on a grid that runs from the first to the last corner it is given,
while RoIAlign samples at the centres of sub-cells. Placing the corners on RoIAlign's first and
last sample, and padding the map by one copied pixel (RoIAlign extends the border that far and is
zero beyond), makes the two agree.
"""

import math

import tensorflow as tf

from rcnn_keras.ops.boxes import area

CANONICAL_SIZE, CANONICAL_LEVEL = 224.0, 4  # Feature Pyramid Networks, equation 1


def roi_align(features, boxes, pooled_size, scale, sampling_ratio=2, aligned=False):
    """Pool a fixed grid of features from every RoI.

    Args:
        features: `(B, H, W, C)` map.
        boxes: `(B, R, 4)` RoIs in image pixels; no gradient flows to them.
        pooled_size: S.
        scale: map positions a pixel, such as 1/16.
        sampling_ratio: samples a cell, down and across.
        aligned: take pixel centres into account (detectron2's correction); False is torchvision's
            default, in which RoIs are at least one position wide.

    Returns:
        `(B, R, S, S, C)` float32.
    """
    return multilevel_roi_align([features], boxes, pooled_size, [scale], sampling_ratio, aligned)


def multilevel_roi_align(features, boxes, pooled_size, scales, sampling_ratio=2, aligned=False):
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
    rois = tf.reshape(tf.stop_gradient(tf.cast(boxes, tf.float32)), [-1, 4])
    image = tf.repeat(tf.range(batch), count)
    samples = pooled_size * sampling_ratio
    if len(features) == 1:
        crops = _crop(features[0], rois, image, samples, scales[0], aligned)
    else:
        levels = roi_levels(rois, scales)
        members = [tf.where(levels == k)[:, 0] for k in range(len(features))]
        crops = tf.concat(
            [
                _crop(f, tf.gather(rois, m), tf.gather(image, m), samples, s, aligned)
                for f, m, s in zip(features, members, scales, strict=True)
            ],
            axis=0,
        )
        crops = tf.gather(crops, tf.math.invert_permutation(tf.concat(members, axis=0)))
    channels = features[0].shape[-1]
    # Average by two means over short axes: faster than a pooling kernel on many small maps.
    cells = tf.reshape(
        crops, [-1, pooled_size, sampling_ratio, pooled_size, sampling_ratio, channels]
    )
    pooled = tf.reduce_mean(cells, axis=[2, 4])
    return tf.reshape(pooled, [batch, count, pooled_size, pooled_size, channels])


def roi_levels(boxes, scales):
    """Return the index of the pyramid level for each `(..., 4)` box: `(...)` int32 in 0..L-1."""
    finest = round(-math.log2(scales[0]))
    ratio = tf.maximum(tf.sqrt(area(boxes)) / CANONICAL_SIZE, 1e-12)
    level = tf.floor(CANONICAL_LEVEL + tf.math.log(ratio) / math.log(2.0) + 1e-6)
    # Clipped as a whole number: a box of NaN then has a level too, and the loss shows the NaN.
    return tf.clip_by_value(tf.cast(level, tf.int32) - finest, 0, len(scales) - 1)


def _crop(features, rois, image, samples, scale, aligned):
    """Read `samples` x `samples` points from each `(n, 4)` RoI: `(n, samples, samples, C)`."""
    features = tf.pad(tf.cast(features, tf.float32), [[0, 0], [1, 1], [1, 1], [0, 0]], "SYMMETRIC")
    corners = rois * scale - (0.5 if aligned else 0.0)
    low, size = corners[:, :2], corners[:, 2:] - corners[:, :2]
    if not aligned:
        size = tf.maximum(size, 1.0)
    first = low + size / (2 * samples) + 1.0  # the added border moves the map by one
    last = low + size - size / (2 * samples) + 1.0
    extent = tf.cast(tf.shape(features)[1:3] - 1, tf.float32)
    grid = tf.concat([first[:, ::-1] / extent, last[:, ::-1] / extent], axis=1)  # y1 x1 y2 x2
    return tf.image.crop_and_resize(features, grid, image, [samples, samples])
