"""Weights of linear interpolation, against numpy."""

import numpy as np

from rcnn_keras.ops.interpolation import neighbours, weights_at

VALUES = np.array([3.0, -1.0, 4.0, 1.5], "float32")
POINTS = np.array([-2.0, 0.0, 0.25, 1.0, 2.75, 3.0, 9.0], "float32")


def test_neighbours_interpolate_and_stay_on_the_axis():
    positions, weights = (np.asarray(x) for x in neighbours(POINTS, np.float32(3)))
    found = (VALUES[positions] * weights).sum(axis=-1)
    np.testing.assert_allclose(found, np.interp(POINTS, np.arange(4), VALUES), rtol=1e-6)
    np.testing.assert_array_equal(weights.sum(axis=-1), 1)
    assert positions.min() == 0
    assert positions.max() == 3


def test_weights_at_all_positions_interpolate():
    points = POINTS.clip(0, 3)
    weights = np.asarray(weights_at(points, np.arange(4, dtype="float32")))
    assert weights.shape == (7, 4)
    np.testing.assert_allclose(weights @ VALUES, np.interp(points, np.arange(4), VALUES), rtol=1e-6)
