"""Targets of the mask head, against a slow RoIAlign of the whole mask, one sample at a time."""

import math

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import mask_targets, pack_bits, portable_mask_targets, to_bitmasks

SIZE = 7


def slow_target(mask, roi, size):
    """The mean of bilinear samples in each cell, as many as the cell has pixels."""
    x1, y1, x2, y2 = map(float, roi)
    roi_h, roi_w = max(y2 - y1, 1.0), max(x2 - x1, 1.0)
    down, across = math.ceil(roi_h / size), math.ceil(roi_w / size)
    out = np.zeros((size, size))
    for p in range(size):
        for q in range(size):
            for i in range(down):
                for j in range(across):
                    y = y1 + (p + (i + 0.5) / down) * roi_h / size
                    x = x1 + (q + (j + 0.5) / across) * roi_w / size
                    out[p, q] += sample(mask, y, x) / (down * across)
    return out


def sample(mask, y, x):
    height, width = mask.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    fy, fx = y - top, x - left
    upper = mask[top, left] * (1 - fx) + mask[top, right] * fx
    lower = mask[bottom, left] * (1 - fx) + mask[bottom, right] * fx
    return upper * (1 - fy) + lower * fy


@pytest.fixture(scope="module")
def scene():
    """Two images of different size on one canvas, three blocky masks each, and RoIs all over."""
    rng = np.random.default_rng(0)
    sizes = np.array([(41, 61), (64, 50)], np.int32)
    masks = np.zeros((2, 3, 64, 64), bool)
    for image, (height, width) in enumerate(sizes):
        coarse = rng.uniform(size=(3, 22, 22)) > 0.5
        blocks = coarse.repeat(3, axis=1).repeat(3, axis=2)
        masks[image, :, :height, :width] = blocks[:, :height, :width]
    first = rng.uniform(-3, 40, (20, 2))
    rois = np.concatenate([first, first + rng.uniform(0, 30, (20, 2))], axis=1).astype(np.float32)
    image = rng.integers(0, 2, 20).astype(np.int32)
    rois[0], image[0] = (0, 0, 61, 41), 0  # a whole image: the last samples lie past its border
    rois[1], image[1] = (7.5, 9.25, 7.5, 9.25), 1  # no area
    rois[2], image[2] = (30.2, 50.9, 50.0, 64.0), 1  # a corner of the image
    return masks, sizes, rois, image, rng.integers(0, 3, 20).astype(np.int32)


def test_targets_are_those_of_a_slow_roi_align(scene):
    masks, sizes, rois, image, matches = scene
    targets = tf.function(mask_targets)(
        pack_bits(masks), tf.constant(sizes), rois, image, matches, SIZE
    ).numpy()
    for k, target in enumerate(targets):
        height, width = sizes[image[k]]
        mask = masks[image[k], matches[k], :height, :width].astype(float)
        np.testing.assert_allclose(target, slow_target(mask, rois[k], SIZE), atol=2e-5)
    assert 0.05 < targets.mean() < 0.95


@pytest.mark.parametrize("pack", [True, False])
def test_in_sizes_that_xla_knows_they_are_the_same(pack, scene, compiled):
    masks, sizes, rois, image, matches = scene
    packed = pack_bits(masks)

    def targets(masks, rois, sizes, image, matches):
        masks = to_bitmasks(masks, *scene[0].shape[2:])
        return portable_mask_targets(masks, sizes, rois, image, matches, SIZE)

    traced = compiled(
        targets,
        (packed.shape if pack else masks.shape, tf.uint8),
        ([20, 4], tf.float32),
        *((shape, tf.int32) for shape in ([2, 2], [20], [20])),
    )
    expected = mask_targets(packed, tf.constant(sizes), rois, image, matches, SIZE)
    given = packed if pack else masks.astype("uint8")
    found = traced(given, rois, tf.constant(sizes, tf.int32), image, matches)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_roi_on_a_whole_square_is_full_and_beside_it_empty():
    masks = np.zeros((1, 1, 32, 32), bool)
    masks[0, 0, 8:24, 8:24] = True
    rois = np.array([(9, 9, 22, 22), (26, 0, 32, 6)], np.float32)
    zeros = np.zeros(2, np.int32)
    full, empty = mask_targets(pack_bits(masks), tf.constant([[32, 32]]), rois, zeros, zeros, 4)
    np.testing.assert_allclose(full, 1, atol=1e-6)
    np.testing.assert_array_equal(empty, 0)


def test_no_roi_has_no_target():
    masks = pack_bits(np.ones((1, 1, 32, 32), bool))
    none = np.zeros(0, np.int32)
    rois = np.zeros((0, 4), np.float32)
    assert mask_targets(masks, tf.constant([[32, 32]]), rois, none, none, 4).shape == (0, 4, 4)
