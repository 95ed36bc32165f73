import math

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops.roi_pool import listed_roi_pool, roi_pool

HEIGHT, WIDTH, SCALE = 9, 13, 1 / 8  # maps of an image of 72 x 104


def random_boxes(rng, *shape, largest=110):
    """Boxes in, over the border of, and beyond the image."""
    corner = rng.uniform(-60, 100, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(0, largest, (*shape, 2))], -1).astype("f4")


def rounded(x):
    return math.floor(abs(x) + 0.5) * (1 if x >= 0 else -1)


def span(low, high, size, cell, extent):
    """The positions of a cell along one axis."""
    low, high = rounded(low), rounded(high)
    side = np.float32(max(high - low + 1, 1)) / np.float32(size)
    first = low + math.floor(np.float32(cell) * side)
    last = low + math.ceil(np.float32(cell + 1) * side)
    return range(max(first, 0), min(last, extent))


def slow_roi_pool(feature, box, size, scale):
    """One RoI: cell by cell, position by position. Returns the maxima and where they are."""
    pooled = np.zeros((size, size, feature.shape[-1]), np.float32)
    places = np.full((*pooled.shape, 2), -1)
    x1, y1, x2, y2 = (float(np.float32(value) * np.float32(scale)) for value in box)
    for i, j, c in np.ndindex(pooled.shape):
        best = -np.inf
        for y in span(y1, y2, size, i, feature.shape[0]):
            for x in span(x1, x2, size, j, feature.shape[1]):
                if feature[y, x, c] > best:
                    best = pooled[i, j, c] = feature[y, x, c]
                    places[i, j, c] = y, x
    return pooled, places


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_values_and_gradient_are_those_of_loops(size, ties):
    rng = np.random.default_rng(size)
    features = rng.normal(size=(2, HEIGHT, WIDTH, 3)).astype("f4")
    if ties:
        features = np.maximum(np.round(features), 0)
    boxes = random_boxes(rng, 2, 14)
    boxes[:, 0] = [0, 0, 104, 72]
    boxes[:, 1] = [-300, 10, -200, 60]  # beyond the map
    boxes[:, 2] = [60, 60, 20, 20]  # turned round: one position
    boxes[:, 3] = [4, 12, 20, 36]  # corners on halves
    boxes[:, 4] = [-4, -12, 20, 36]
    weights = rng.normal(size=(2, 14, size, size, 3)).astype("f4")
    values = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(values)
        pooled = roi_pool(values, boxes, size, SCALE)
        total = tf.reduce_sum(pooled * weights)
    gradient = tape.gradient(total, values)

    expected, slope = np.zeros_like(weights), np.zeros_like(features)
    for image, roi in np.ndindex(2, 14):
        expected[image, roi], places = slow_roi_pool(
            features[image], boxes[image, roi], size, SCALE
        )
        for at in np.ndindex(size, size, 3):
            y, x = places[at]
            if y >= 0:
                slope[image, y, x, at[2]] += weights[(image, roi, *at)]
    assert not expected[:, 1].any()
    np.testing.assert_array_equal(pooled, expected)
    np.testing.assert_allclose(gradient, slope, atol=1e-5)


def test_a_roi_of_six_positions_by_hand():
    feature = np.float32([[1, 5, 2], [7, 3, 8]])[None, :, :, None]
    box = np.float32([[[0, 0, 16, 8]]])  # holds both ends: three positions across, two down
    pooled = np.asarray(roi_pool(feature, box, 2, 1 / 8))[0, 0, :, :, 0]
    np.testing.assert_array_equal(pooled, [[5, 5], [7, 8]])  # the middle column is in both cells


def test_the_first_of_equal_maxima_has_the_gradient():
    feature = tf.constant(np.float32([[0, 2, -0.0], [2, 1, 2]])[None, :, :, None])
    box = np.float32([[[0, 0, 16, 8]]])
    with tf.GradientTape() as tape:
        tape.watch(feature)
        pooled = roi_pool(feature, box, 1, 1 / 8)
    np.testing.assert_array_equal(
        tape.gradient(pooled, feature)[0, :, :, 0], [[0, 1, 0], [0, 0, 0]]
    )
    zeros = tf.constant(np.float32([[-0.0, 0.0]])[None, :, :, None])
    with tf.GradientTape() as tape:
        tape.watch(zeros)
        pooled = roi_pool(zeros, np.float32([[[0, 0, 1, 0]]]), 1, 1.0)
    np.testing.assert_array_equal(tape.gradient(pooled, zeros)[0, :, :, 0], [[1, 0]])


def test_infinite_and_huge_features_keep_their_order():
    values = np.float32([-np.inf, -3e38, -1.5, -1e-30, 0, 1e-30, 2.5, 3e38, np.inf])
    feature = values[None, None, :, None]
    pairs = np.float32([[[k, 0, k + 1, 0] for k in range(8)]])
    np.testing.assert_array_equal(roi_pool(feature, pairs, 1, 1.0)[0, :, 0, 0, 0], values[1:])


def test_listed_rois_read_their_own_image():
    rng = np.random.default_rng(3)
    features = rng.normal(size=(3, HEIGHT, WIDTH, 2)).astype("f4")
    rois, image = random_boxes(rng, 5), np.int32([2, 0, 2, 1, 0])
    pooled = listed_roi_pool(features, rois, image, 3, SCALE)
    for k, place in enumerate(image):
        expected, _ = slow_roi_pool(features[place], rois[k], 3, SCALE)
        np.testing.assert_array_equal(pooled[k], expected)


def test_traced_with_unknown_sizes():
    signature = [
        tf.TensorSpec((None, None, None, 2), tf.float32),
        tf.TensorSpec((None, None, 4), tf.float32),
    ]

    @tf.function(input_signature=signature)
    def traced(features, boxes):
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = roi_pool(features, boxes, 7, SCALE)
        return pooled, tape.gradient(pooled, features)

    rng = np.random.default_rng(4)
    for images, height, width, rois in ((2, 9, 13, 6), (1, 40, 3, 9), (1, 5, 5, 0), (1, 1, 1, 4)):
        features = tf.constant(rng.normal(size=(images, height, width, 2)).astype("f4"))
        boxes = random_boxes(rng, images, rois, largest=300)
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = roi_pool(features, boxes, 7, SCALE)
        found, gradient = traced(features, boxes)
        assert pooled.shape == (images, rois, 7, 7, 2)
        np.testing.assert_array_equal(found, pooled)
        np.testing.assert_allclose(gradient, tape.gradient(pooled, features), atol=1e-5)


def test_no_gradient_flows_to_the_boxes():
    rng = np.random.default_rng(5)
    features = tf.constant(rng.normal(size=(1, HEIGHT, WIDTH, 1)).astype("f4"))
    boxes = tf.constant(random_boxes(rng, 1, 4))
    with tf.GradientTape() as tape:
        tape.watch(boxes)
        pooled = roi_pool(features, boxes, 2, SCALE)
    assert tape.gradient(pooled, boxes) is None


def test_half_precision_features_are_pooled_in_float32():
    rng = np.random.default_rng(6)
    half = tf.cast(rng.normal(size=(1, HEIGHT, WIDTH, 2)), "bfloat16")
    boxes = random_boxes(rng, 1, 4)
    pooled = roi_pool(half, boxes, 2, SCALE)
    assert pooled.dtype == tf.float32
    np.testing.assert_array_equal(pooled, roi_pool(tf.cast(half, "float32"), boxes, 2, SCALE))
