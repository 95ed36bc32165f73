import importlib
import math

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import (
    listed_roi_align,
    multilevel_roi_align,
    roi_align,
    roi_levels,
    sample_points,
)

HEIGHT, WIDTH, SCALE = 9, 12, 1 / 8  # maps of an image of 72 x 96


def random_boxes(rng, *shape, largest=90):
    """Boxes in, over the border of, and beyond the image."""
    corner = rng.uniform(-60, 100, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(0, largest, (*shape, 2))], -1).astype("f4")


def random_map(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def bilinear(feature, y, x):
    """The value of a map `(H, W, C)` at a point: as at the border up to one beyond, then zero."""
    height, width, channels = feature.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(channels)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    v, u = y - top, x - left
    upper = (1 - u) * feature[top, left] + u * feature[top, left + 1]
    lower = (1 - u) * feature[top + 1, left] + u * feature[top + 1, left + 1]
    return (1 - v) * upper + v * lower


def slow_roi_align(feature, box, size, scale, ratio, aligned):
    """One RoI: cell by cell, sample by sample; as many as a cell has positions where ratio is 0."""
    x1, y1, x2, y2 = (float(value) * scale - (0.5 if aligned else 0) for value in box)
    width, height = x2 - x1, y2 - y1
    if not aligned:
        width, height = max(width, 1), max(height, 1)
    down, across = (ratio or math.ceil(side / size) for side in (height, width))
    pooled = np.zeros((size, size, feature.shape[-1]))
    for row, column in np.ndindex(size, size):
        for i, j in np.ndindex(down, across):
            y = y1 + (row + (i + 0.5) / down) * height / size
            x = x1 + (column + (j + 0.5) / across) * width / size
            pooled[row, column] += bilinear(feature, y, x) / (down * across)
    return pooled


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(("size", "ratio"), [(1, 1), (3, 1), (1, 2), (3, 2), (2, 3), (2, 0)])
def test_roi_align_is_that_of_loops(size, ratio, aligned):
    rng = np.random.default_rng(size + 10 * ratio)
    features, boxes = random_map(rng, 2, HEIGHT, WIDTH, 3), random_boxes(rng, 2, 12)
    boxes[:, 0] = [0, 0, 96, 72]
    boxes[:, 1] = [30.2, 20.4, 30.2, 20.4]
    pooled = roi_align(features, boxes, size, SCALE, ratio, aligned)
    assert pooled.shape == (2, 12, size, size, 3)
    for image, roi in np.ndindex(2, 12):
        expected = slow_roi_align(features[image], boxes[image, roi], size, SCALE, ratio, aligned)
        np.testing.assert_allclose(pooled[image, roi], expected, atol=1e-4)


@pytest.mark.parametrize(("name", "aligned"), [("legacy", False), ("aligned", True)])
def test_values_and_gradient_are_torchvisions(name, aligned, torchvision_numbers):
    stored = {k.split("/")[1]: v for k, v in torchvision_numbers.items() if "roi_align/" in k}
    features = tf.constant(stored["features"])
    with tf.GradientTape() as tape:
        tape.watch(features)
        pooled = roi_align(features, stored["boxes"], 7, 1 / 8, aligned=aligned)
        weighted = tf.reduce_sum(pooled * stored["weights"])
    np.testing.assert_allclose(pooled, stored[name], atol=1e-4)
    gradient = tape.gradient(weighted, features)
    np.testing.assert_allclose(gradient, stored[f"{name}_gradient"], atol=1e-3)


def test_pooling_a_ramp_gives_the_centres_of_the_cells():
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype("float32")
    features = np.stack([y, x], axis=-1)[None]
    box = np.float32([[[16, 8, 64, 56]]])  # x 2..8 and y 1..7 on the map
    centres = np.asarray(roi_align(features, box, 3, SCALE))[0, 0]
    np.testing.assert_allclose(centres[:, 0, 0], [2, 4, 6], atol=1e-5)
    np.testing.assert_allclose(centres[0, :, 1], [3, 5, 7], atol=1e-5)
    aligned = np.asarray(roi_align(features, box, 3, SCALE, aligned=True))[0, 0]
    np.testing.assert_allclose(aligned, centres - 0.5, atol=1e-5)


@pytest.mark.parametrize("aligned", [False, True])
def test_a_roi_beyond_the_image_is_zero(aligned):
    boxes = np.float32([[[-500, 10, -400, 40], [10, 400, 40, 500], [3000, 3000, 3001, 3001]]])
    pooled = roi_align(np.ones((1, HEIGHT, WIDTH, 2), "f4"), boxes, 3, SCALE, aligned=aligned)
    np.testing.assert_array_equal(pooled, np.zeros((1, 3, 3, 3, 2)))


@pytest.mark.parametrize("shape", [(2, 0), (0, 4)])
def test_no_roi_gives_an_empty_result(shape):
    features = np.ones((shape[0], HEIGHT, WIDTH, 2), "float32")
    assert roi_align(features, np.zeros((*shape, 4), "f4"), 3, SCALE).shape == (*shape, 3, 3, 2)


def test_gradient_of_the_features_is_finite_differences():
    rng = np.random.default_rng(7)
    features, boxes = random_map(rng, 2, 4, 5, 1), random_boxes(rng, 2, 4, largest=60)
    weights = random_map(rng, 2, 4, 3, 3, 1)

    def weighted(features):
        return tf.reduce_sum(weights * multilevel_roi_align([features], boxes, 3, [1 / 16]))

    values = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(values)
        total = weighted(values)
    gradient = tape.gradient(total, values).numpy()
    expected = np.zeros_like(gradient)
    for at in np.ndindex(*features.shape):
        step = np.zeros_like(features)
        step[at] = 1
        expected[at] = (weighted(features + step) - weighted(features - step)) / 2
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(gradient, expected, atol=1e-3)


def gradient_of(features, boxes, weights, *how):
    values = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch(values)
        pooled = roi_align(values, boxes, *how)
        total = tf.reduce_sum(pooled * weights)
    return tape.gradient(total, values).numpy()


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 1, 3])
def test_gradient_is_the_transpose_of_loops(ratio, aligned):
    rng = np.random.default_rng(20 + ratio)
    features, other = (random_map(rng, 2, HEIGHT, WIDTH, 2) for _ in range(2))
    boxes, weights = random_boxes(rng, 2, 9), random_map(rng, 2, 9, 3, 3, 2)
    gradient = gradient_of(features, boxes, weights, 3, SCALE, ratio, aligned)
    along = sum(
        (slow_roi_align(other[i], boxes[i, k], 3, SCALE, ratio, aligned) * weights[i, k]).sum()
        for i, k in np.ndindex(2, 9)
    )
    np.testing.assert_allclose((gradient * other).sum(), along, atol=1e-3)


def test_no_addition_is_lost_where_many_rois_meet():
    """TensorFlow's own gradient of crop_and_resize loses some on CPUs with several threads."""
    rng = np.random.default_rng(21)
    features, boxes = random_map(rng, 1, 40, 40, 32), random_boxes(rng, 1, 1500, largest=4)
    boxes = 150 + boxes % 20
    boxes[..., 2:] = boxes[..., :2] + 60
    ones = np.ones((1, 1500, 7, 7, 32), "float32")
    gradient = gradient_of(features, boxes, ones, 7, SCALE)
    np.testing.assert_allclose(gradient.sum((1, 2)), 1500 * 49, rtol=1e-5)
    np.testing.assert_array_equal(gradient, gradient_of(features, boxes, ones, 7, SCALE))


@pytest.mark.parametrize(
    ("limit", "ratio"),
    [
        ("MAX_SAMPLES", 0),
        *((limit, r) for limit in ("MAX_VALUES", "MAX_PRODUCTS") for r in (0, 2)),
    ],
)
def test_pooling_in_small_parts_is_pooling_at_once(limit, ratio, monkeypatch):
    rng = np.random.default_rng(22)
    features, boxes = random_map(rng, 2, HEIGHT, WIDTH, 2), random_boxes(rng, 2, 8)
    weights = random_map(rng, 2, 8, 3, 3, 2)
    pooled = roi_align(features, boxes, 3, SCALE, ratio)
    gradient = gradient_of(features, boxes, weights, 3, SCALE, ratio)
    module = importlib.import_module("rcnn_keras.ops.roi_align")
    monkeypatch.setattr(module, limit, 500)
    np.testing.assert_array_equal(roi_align(features, boxes, 3, SCALE, ratio), pooled)
    parts = gradient_of(features, boxes, weights, 3, SCALE, ratio)
    np.testing.assert_allclose(parts, gradient, atol=1e-5)


@pytest.mark.slow
def test_adaptive_sampling_traced():
    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2)), tf.TensorSpec((None, 4))])
    def traced(features, rois):
        image = tf.zeros(tf.shape(rois)[:1], tf.int32)
        with tf.GradientTape() as tape:
            tape.watch(features)
            pooled = listed_roi_align([features], rois, image, 3, [SCALE], 0)
        return pooled, tape.gradient(pooled, features)

    rng = np.random.default_rng(23)
    features, rois = random_map(rng, 1, HEIGHT, WIDTH, 2), random_boxes(rng, 9)
    pooled, gradient = traced(features, rois)
    np.testing.assert_allclose(pooled, roi_align(features, rois[None], 3, SCALE, 0)[0], atol=1e-5)
    ones = np.ones((1, 9, 3, 3, 2), "float32")
    expected = gradient_of(features, rois[None], ones, 3, SCALE, 0)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)
    pooled, gradient = traced(features, rois[:0])
    assert pooled.shape == (0, 3, 3, 2)
    np.testing.assert_array_equal(gradient, np.zeros_like(features))


def test_no_gradient_flows_to_the_boxes():
    rng = np.random.default_rng(8)
    maps = [tf.constant(random_map(rng, 1, n, n, 1)) for n in (16, 8)]
    boxes = tf.constant(random_boxes(rng, 1, 5))
    with tf.GradientTape() as tape:
        tape.watch([boxes, *maps])
        pooled = multilevel_roi_align(maps, boxes, 2, [1 / 8, 1 / 16])
    of_boxes, of_map, _ = tape.gradient(pooled, [boxes, *maps])
    assert of_boxes is None
    assert np.abs(of_map).sum() > 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_features_are_pooled_in_float32(dtype):
    rng = np.random.default_rng(9)
    half = tf.cast(random_map(rng, 1, HEIGHT, WIDTH, 3), dtype)
    boxes = random_boxes(rng, 1, 6)
    pooled = roi_align(half, boxes, 3, SCALE)
    assert pooled.dtype == tf.float32
    np.testing.assert_array_equal(pooled, roi_align(tf.cast(half, "float32"), boxes, 3, SCALE))
    with tf.GradientTape() as tape:
        tape.watch(half)
        pooled = roi_align(half, boxes, 3, SCALE)
    assert tape.gradient(pooled, half).dtype == dtype


@pytest.mark.parametrize("finest", [2, 3])
def test_levels_follow_equation_1_of_feature_pyramid_networks(finest):
    boxes = random_boxes(np.random.default_rng(10), 3, 50, largest=900)
    boxes[:, ::10, 2] = boxes[:, ::10, 0]  # no area
    scales = [2.0**-k for k in range(finest, 6)]
    levels = np.asarray(roi_levels(boxes, scales))
    assert set(levels.ravel()) == set(range(len(scales)))
    for at in np.ndindex(3, 50):
        width, height = boxes[at][2:].astype(float) - boxes[at][:2]
        level = 4 + math.log2(max(math.sqrt(width * height), 1e-9) / 224)
        assert levels[at] == min(max(math.floor(level), finest), 5) - finest


def test_levels_are_torchvisions(torchvision_numbers):
    levels = roi_levels(torchvision_numbers["levels/boxes"], [1 / 4, 1 / 8, 1 / 16, 1 / 32])
    np.testing.assert_array_equal(levels, torchvision_numbers["levels/levels"])


def test_pooling_a_pyramid_is_torchvisions(torchvision_numbers):
    stored = {k.split("/")[1]: v for k, v in torchvision_numbers.items() if "multilevel/" in k}
    scales = [1 / 8, 1 / 16, 1 / 32]
    assert len(np.unique(roi_levels(stored["boxes"], scales))) == 3
    maps = [stored[f"features{k}"] for k in range(3)]
    pooled = multilevel_roi_align(maps, stored["boxes"], 5, scales)
    np.testing.assert_allclose(pooled, stored["pooled"], atol=1e-4)


@pytest.mark.parametrize("sides", [(30, 200, 500), (30, 30, 500), (200, 200, 200), (500, 30, 30)])
def test_each_roi_reads_its_own_image_at_its_own_level(sides):
    rng = np.random.default_rng(11)
    scales = [1 / 8, 1 / 16, 1 / 32]
    maps = [random_map(rng, 2, int(s * 512), int(s * 512), 2) for s in scales]
    corner = rng.uniform(-20, 200, (2, 9, 2))
    side = rng.permuted(np.tile(sides, (2, 3)), axis=1)[..., None]
    boxes = np.concatenate([corner, corner + side], axis=-1).astype("float32")
    pooled = multilevel_roi_align(maps, boxes, 3, scales)
    for image, roi in np.ndindex(2, 9):
        level = {30: 0, 200: 0, 500: 2}[int(side[image, roi, 0])]
        one = boxes[image : image + 1, roi : roi + 1]
        expected = roi_align(maps[level][image : image + 1], one, 3, scales[level])
        np.testing.assert_allclose(pooled[image, roi], expected[0, 0], atol=1e-6)


def test_a_traced_pyramid_is_the_eager_one():
    scales = [1 / 4, 1 / 8]

    def pool(fine, coarse, boxes):
        return multilevel_roi_align([fine, coarse], boxes, 3, scales)

    maps = tf.TensorSpec((None, None, None, 2), tf.float32)
    traced = tf.function(
        pool, input_signature=[maps, maps, tf.TensorSpec((None, None, 4), tf.float32)]
    )
    rng = np.random.default_rng(12)
    for images, size, rois in ((2, 32, 7), (1, 16, 3), (1, 16, 0)):
        inputs = (
            random_map(rng, images, size, size + 4, 2),
            random_map(rng, images, size // 2, size // 2 + 2, 2),
            random_boxes(rng, images, rois, largest=200),
        )
        np.testing.assert_allclose(traced(*inputs), pool(*inputs), atol=1e-4)


@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize("ratio", [0, 2, 3])
def test_samples_lie_at_the_points_whose_means_are_pooled(ratio, aligned):
    """On a ramp across and down, a cell's mean is the mean of its points."""
    y, x = np.mgrid[:20, :30].astype("f4")
    features = np.stack([y, x], axis=-1)[None]
    roi = np.array([9.5, 7, 90, 41], "f4")
    down, across = sample_points(roi, 0.25, 4, ratio, aligned)
    # 20.1 positions across and 8.5 down are 6 and 3 for each of 4 cells, rounded up
    assert (len(down), len(across)) == ((12, 24) if ratio == 0 else (4 * ratio, 4 * ratio))
    pooled = np.asarray(roi_align(features, roi[None, None], 4, 0.25, ratio, aligned))[0, 0]
    np.testing.assert_allclose(pooled[:, 0, 0], np.reshape(down, (4, -1)).mean(axis=1), atol=1e-4)
    np.testing.assert_allclose(pooled[0, :, 1], np.reshape(across, (4, -1)).mean(axis=1), atol=1e-4)
