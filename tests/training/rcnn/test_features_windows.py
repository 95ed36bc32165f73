import numpy as np
import pytest

from rcnn_keras.data import Record
from rcnn_keras.training.rcnn.features import image_windows

# Two cats and a dog; a crowd and a box without area are no ground truth.
RECORD = Record(
    1,
    "a.png",
    100,
    100,
    boxes=[[0, 0, 10, 10], [40, 40, 60, 80], [90, 90, 100, 100], [0, 50, 9, 90], [5, 5, 5, 9]],
    labels=[0, 1, 0, 1, 0],
    crowd=[False, False, False, True, False],
    proposals=[[0, 0, 10, 20], [40, 40, 60, 70], [20, 0, 30, 10], [0, 50, 9, 90]],
)


def test_overlaps_equal_those_computed_by_hand():
    windows = image_windows(RECORD, 3)
    assert len(windows) == 3 + 4
    np.testing.assert_array_equal(windows.labels, [0, 1, 0, -1, -1, -1, -1])
    expected = [[1, 0, 0], [0, 1, 0], [1, 0, 0], [0.5, 0, 0], [0, 0.75, 0], [0] * 3, [0] * 3]
    np.testing.assert_allclose(windows.overlaps, expected, rtol=1e-6)
    np.testing.assert_array_equal(windows.nearest[:5], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(windows.classes(0.5), [1, 2, 1, 1, 2, 0, 0])
    np.testing.assert_array_equal(windows.classes(0.6), [1, 2, 1, 0, 2, 0, 0])


def test_targets_equal_those_computed_by_hand():
    """P = (0, 0, 10, 20), G = (0, 0, 10, 10): G_y is 5 above P_y, of P's 20; half as high."""
    targets = image_windows(RECORD, 3).targets()
    np.testing.assert_allclose(targets[:3], 0, atol=1e-7)
    np.testing.assert_allclose(targets[3], [0, -0.25, 0, np.log(0.5)], rtol=1e-6)
    np.testing.assert_allclose(targets[4], [0, 5 / 30, 0, np.log(40 / 30)], rtol=1e-6)


@pytest.mark.parametrize("proposals", [np.zeros((0, 4)), [[1, 2, 3, 4]]])
def test_windows_of_an_image_without_objects_are_background(proposals):
    empty = Record(2, "b.png", 9, 9, np.zeros((0, 4)), [], [], proposals=proposals)
    windows = image_windows(empty, 2)
    assert len(windows) == len(proposals)
    assert not windows.overlaps.any()
    assert not windows.classes(0.5).any()


def test_a_record_without_proposals_is_refused():
    with pytest.raises(ValueError, match=r"c\.png has no proposals"):
        image_windows(Record(3, "c.png", 9, 9, np.zeros((0, 4)), [], []), 2)
