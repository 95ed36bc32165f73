"""Cells of keypoints, and keypoints of heat maps against OpenCV's bicubic enlargement."""

import cv2
import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import decode_heatmaps, keypoint_targets, portable_decode_heatmaps
from rcnn_keras.ops.keypoints import GRID

ROIS = np.array(
    [
        [10.3, 5.7, 80.2, 60.1],
        [0.0, 0.0, 0.4, 30.0],  # narrower than a pixel
        [-3.0, 4.0, 52.9, 9.2],
        [100.5, 20.0, 240.0, 222.5],
    ],
    "f4",
)
BOTH = pytest.mark.parametrize("decode", [decode_heatmaps, portable_decode_heatmaps])


def smooth_maps(count, keypoints=3, size=14, seed=0):
    """Random maps with a few peaks each."""
    noise = np.random.default_rng(seed).normal(0, 3, (count, 5, 5, keypoints)).astype("f4")
    return np.stack([cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in noise])


def slow(maps, rois):
    """Decode one map at a time by OpenCV, whose kernel also has a = -0.75."""
    found = np.zeros((len(maps), maps.shape[-1], 3))
    for i, (heatmap, (x1, y1, x2, y2)) in enumerate(zip(maps, rois, strict=True)):
        sides = np.maximum([x2 - x1, y2 - y1], 1)
        pixels = np.ceil(sides).astype(int)
        for p in range(maps.shape[-1]):
            large = cv2.resize(heatmap[..., p], tuple(pixels), interpolation=cv2.INTER_CUBIC)
            row, column = np.unravel_index(large.argmax(), large.shape)
            place = (np.array([column, row]) + 0.5) * sides / pixels + (x1, y1)
            score = 1 / np.exp(heatmap[..., p] - large.max()).sum()
            found[i, p] = (*place, score)
    return found


@BOTH
def test_keypoints_are_those_of_opencv(decode):
    maps = smooth_maps(len(ROIS))
    found = decode(tf.constant(maps), tf.constant(ROIS)).numpy()
    np.testing.assert_allclose(found, slow(maps, ROIS), rtol=1e-4, atol=1e-3)


@BOTH
def test_a_logit_is_the_value_at_the_keypoint(decode):
    maps = smooth_maps(len(ROIS))
    found = decode(tf.constant(maps), tf.constant(ROIS), True).numpy()
    expected = slow(maps, ROIS)
    np.testing.assert_allclose(found[..., :2], expected[..., :2], atol=1e-3)
    logits = np.log(expected[..., 2] * np.exp(maps).sum((1, 2)))
    np.testing.assert_allclose(found[..., 2], logits, rtol=1e-3, atol=1e-3)


def test_large_boxes_are_refined_to_the_pixel():
    """Larger than the grid of portable kernels, which looks at every third pixel first."""
    rois = np.array([[5.5, 3.0, 5.5 + 2.6 * GRID, 40.0], [0, 0, 300.0, 2.2 * GRID]], "f4")
    maps = smooth_maps(2, size=56, seed=2)
    found = portable_decode_heatmaps(tf.constant(maps), tf.constant(rois)).numpy()
    np.testing.assert_allclose(found, slow(maps, rois), rtol=1e-4, atol=1e-3)


@BOTH
def test_scores_are_near_the_softmax_of_the_cells(decode):
    maps = smooth_maps(2, size=56)
    found = decode(tf.constant(maps), tf.constant(ROIS[:2])).numpy()
    softmax = np.exp(maps) / np.exp(maps).sum((1, 2), keepdims=True)
    np.testing.assert_allclose(found[0, :, 2], softmax.max((1, 2))[0], rtol=0.1)


def test_cells_and_borders():
    rois = np.array([[10, 20, 38, 76]], "f4")
    keypoints = [
        [10, 20, 2],  # the upper left corner
        [38, 76, 1],  # the lower right one belongs to the last cell
        [24.2, 48.9, 2],  # 0.507 and 0.516 of the sides
        [38.01, 50, 2],  # outside
        [24, 48, 0],  # not labelled
        [9.99, 50, 2],
    ]
    cells, valid = keypoint_targets(tf.constant([keypoints], tf.float32), tf.constant(rois), 56)
    np.testing.assert_array_equal(valid[0], [True, True, True, False, False, False])
    np.testing.assert_array_equal(cells[0], [0, 56 * 56 - 1, 28 * 56 + 28, 0, 0, 0])


def test_no_cell_of_an_empty_box():
    cells, valid = keypoint_targets(
        tf.constant([[[5.0, 5.0, 2.0], [6.0, 6.0, 2.0]]]), tf.constant([[5.0, 5.0, 5.0, 5.0]]), 56
    )
    assert not valid.numpy()[0, 1]
    assert np.isfinite(cells.numpy()).all()
