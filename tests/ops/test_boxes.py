import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from rcnn_keras.ops import area, clip_boxes, inside_image, iou, valid_boxes


def random_boxes(rng, *shape):
    """Boxes in and around an image of 60 x 80; every fourth has no width."""
    corner = rng.uniform(-20, 60, (*shape, 2))
    sides = rng.uniform(0, 90, (*shape, 2))
    sides[..., ::4, 0] = 0
    return np.concatenate([corner, corner + sides], axis=-1).astype("float32")


def slow_area(box):
    return max(float(box[2]) - float(box[0]), 0) * max(float(box[3]) - float(box[1]), 0)


def slow_iou(a, b):
    overlaps = np.zeros((len(a), len(b)))
    for i, p in enumerate(a):
        for j, q in enumerate(b):
            width = min(float(p[2]), float(q[2])) - max(float(p[0]), float(q[0]))
            height = min(float(p[3]), float(q[3])) - max(float(p[1]), float(q[1]))
            shared = max(width, 0) * max(height, 0)
            union = slow_area(p) + slow_area(q) - shared
            overlaps[i, j] = shared / union if union > 0 else 0
    return overlaps


def slow_clip(box, height, width):
    limits = (width, height, width, height)
    return [min(max(value, 0), limit) for value, limit in zip(box, limits, strict=True)]


def test_area_is_continuous_and_never_negative():
    boxes = np.float32([[1, 2, 4, 7], [0, 0, 0.5, 0.5], [3, 3, 3, 9], [5, 0, 2, 8], [5, 5, 2, 2]])
    np.testing.assert_array_equal(area(boxes), [15, 0.25, 0, 0, 0])
    assert area(np.zeros((2, 0, 4), "float32")).shape == (2, 0)


@pytest.mark.parametrize("seed", range(3))
def test_iou_is_that_of_loops(seed):
    rng = np.random.default_rng(seed)
    a, b = random_boxes(rng, 2, 9), random_boxes(rng, 2, 14)
    expected = [slow_iou(p, q) for p, q in zip(a, b, strict=True)]
    assert np.max(expected) > 0.4
    np.testing.assert_allclose(iou(a, b), expected, atol=1e-6)


def test_iou_broadcasts_over_images():
    rng = np.random.default_rng(3)
    boxes, anchors = random_boxes(rng, 3, 5), random_boxes(rng, 7)
    expected = [slow_iou(b, anchors) for b in boxes]
    np.testing.assert_allclose(iou(boxes, anchors[None]), expected, atol=1e-6)


def test_iou_of_hand_worked_pairs():
    box = np.float32([[0, 0, 10, 10]])
    others = np.float32(
        [
            [0, 0, 10, 10],  # itself
            [0, 0, 10, 5],  # half of it
            [5, 0, 15, 10],  # 50 / 150
            [10, 0, 20, 10],  # touches a side
            [10, 10, 20, 20],  # touches a corner
            [5, 5, 5, 5],  # a point within
            [15, 15, 2, 2],  # corners exchanged
            [-1000, -1000, 1000, 1000],  # 100 / 4,000,000
        ]
    )
    expected = [[1, 0.5, 1 / 3, 0, 0, 0, 0, 2.5e-5]]
    np.testing.assert_allclose(iou(box, others), expected, rtol=1e-6)


def test_iou_of_flat_boxes_is_zero_with_finite_gradient():
    flat = tf.constant([[3.0, 3, 3, 3], [1, 2, 1, 8]])
    with tf.GradientTape() as tape:
        tape.watch(flat)
        overlaps = iou(flat, flat)
    np.testing.assert_array_equal(overlaps, np.zeros((2, 2)))
    assert np.isfinite(tape.gradient(overlaps, flat)).all()


@pytest.mark.parametrize(("n", "m"), [(0, 3), (3, 0), (0, 0)])
def test_iou_without_boxes_is_empty(n, m):
    assert iou(np.zeros((2, n, 4), "float32"), np.zeros((2, m, 4), "float32")).shape == (2, n, m)


def test_iou_is_torchvisions(torchvision_numbers):
    a, b = torchvision_numbers["iou/a"], torchvision_numbers["iou/b"]
    np.testing.assert_allclose(iou(a, b), torchvision_numbers["iou/iou"], atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 11), (2, 5, 3), (2, 0)])
def test_clip_keeps_each_box_in_its_own_image(shape):
    boxes = random_boxes(np.random.default_rng(0), *shape)
    sizes = np.int32([[60, 80], [33, 20]])
    clipped = np.asarray(clip_boxes(boxes, sizes))
    assert clipped.shape == (*shape, 4)
    for image, (height, width) in enumerate(sizes):
        expected = [slow_clip(box, height, width) for box in boxes[image].reshape(-1, 4)]
        np.testing.assert_array_equal(clipped[image].reshape(-1, 4), np.reshape(expected, (-1, 4)))


def test_a_box_outside_is_clipped_to_the_border():
    boxes = np.float32([[[-9, -9, -2, -3], [90, 70, 99, 99], [-5, 10, 200, 20]]])
    expected = [[[0, 0, 0, 0], [80, 60, 80, 60], [0, 10, 80, 20]]]
    np.testing.assert_array_equal(clip_boxes(boxes, np.int32([[60, 80]])), expected)


def test_inside_image_allows_the_border_itself():
    boxes = np.float32(
        [[0, 0, 80, 60], [-0.1, 0, 5, 5], [0, -0.1, 5, 5], [1, 1, 80.1, 9], [1, 1, 9, 60.1]]
    )
    boxes = np.stack([boxes, boxes / 2])
    inside = inside_image(boxes, np.int32([[60, 80], [60, 80]]))
    np.testing.assert_array_equal(inside[0], [True, False, False, False, False])
    np.testing.assert_array_equal(inside[1], [True, False, False, True, True])
    per_image = inside_image(boxes[:, :1], np.int32([[59, 80], [30, 40]]))
    np.testing.assert_array_equal(per_image, [[False], [True]])


def test_valid_boxes_have_both_sides_long_enough():
    boxes = np.float32([[0, 0, 2, 3], [0, 0, 1.9, 3], [0, 0, 2, 1.9], [4, 4, 1, 1], [7, 7, 7, 7]])
    np.testing.assert_array_equal(valid_boxes(boxes, 2), [True, False, False, False, False])
    np.testing.assert_array_equal(valid_boxes(boxes), [True, True, True, False, True])


def test_compiled_geometry_is_the_eager_one(compiled):
    def geometry(a, b, sizes):
        clipped = clip_boxes(a, sizes)
        return iou(clipped, b), inside_image(a, sizes), ops.cast(valid_boxes(a, 5.0), "int32")

    rng = np.random.default_rng(1)
    traced = compiled(
        geometry,
        ((None, None, 4), "float32"),
        ((None, None, 4), "float32"),
        ((None, 2), "int32"),
    )
    for images, n in ((2, 6), (1, 0)):
        inputs = random_boxes(rng, images, n), random_boxes(rng, images, 4)
        sizes = np.int32([[60, 80], [33, 20]])[:images]
        for got, expected in zip(traced(*inputs, sizes), geometry(*inputs, sizes), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-6)
