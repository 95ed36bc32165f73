import numpy as np
import pytest

from rcnn_keras.proposals import sample_windows
from rcnn_keras.proposals.objectness_cues import (
    check_windows,
    overlaps,
    scaled,
    suppress,
    to_pixels,
)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


@pytest.mark.parametrize("size", [(300, 400), (8, 8), (1, 1), (20, 3000)])
def test_windows_lie_in_the_image(size):
    windows = sample_windows(*size, 500)
    assert windows.shape == (500, 4)
    assert windows.dtype == np.float32
    check_windows(windows, *size)
    assert (windows[:, 2:] - windows[:, :2]).min() > 0.99


def test_windows_depend_on_size_count_and_seed_alone():
    first = sample_windows(300, 400, 50, seed=3)
    np.testing.assert_array_equal(first, sample_windows(300, 400, 50, seed=3))
    np.testing.assert_array_equal(first, sample_windows(300, 400, 90, seed=3)[:50])
    assert np.abs(first - sample_windows(300, 400, 50, seed=4)).max() > 1
    assert sample_windows(300, 400, 0).shape == (0, 4)


def test_windows_are_of_all_sizes_and_aspects():
    windows = sample_windows(1000, 1000, 20_000).astype(float)
    width, height = (windows[:, 2:] - windows[:, :2]).T
    side, aspect = np.sqrt(width * height), width / height
    assert 39 < side.min() < 42
    assert side.max() > 900
    # half the side, twice the windows
    bands = [np.mean((side >= low) & (side < 2 * low)) for low in (50, 100, 200)]
    assert bands[0] / bands[1] == pytest.approx(2, rel=0.05)
    assert bands[1] / bands[2] == pytest.approx(2, rel=0.05)
    assert aspect.min() == pytest.approx(1 / 3, rel=0.02)
    assert aspect.max() == pytest.approx(3, rel=0.02)
    assert np.median(aspect) == pytest.approx(1, rel=0.03)


def test_windows_cover_random_boxes_of_all_sizes():
    """From a tenth to a half of the image's side."""
    rng = np.random.default_rng(0)
    size = rng.uniform(40, 200, (300, 2))
    corner = rng.uniform(0, 1, (300, 2)) * (400 - size)
    objects = np.concatenate([corner, corner + size], 1)
    assert np.mean(overlaps(sample_windows(400, 400, 2000), objects).max(0) > 0.5) > 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 5, 3), "not 0x5"), ((5, 5, -1), "not -1 and 0"), ((5, 5, 3, -2), "not 3 and -2")],
)
def test_sampling_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        sample_windows(*arguments)


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0, 0, 41, 30], "box 1 is"),
        ([-0.5, 0, 4, 3], "box 1 is"),
        ([0, 0, 4, 30.5], "30x40 pixels"),
        ([5, 5, 5, 9], "box 1 is"),
        ([5, 9, 9, 5], "box 1 is"),
        ([np.nan, 0, 4, 3], "nan"),
    ],
)
def test_boxes_outside_the_image_are_refused(box, message):
    good = [0, 0, 40, 30]
    assert check_windows(np.array([good]), 30, 40).dtype == np.float32
    with pytest.raises(ValueError, match=message):
        check_windows(np.array([good, box]), 30, 40)


@pytest.mark.parametrize("boxes", [np.ones((3, 5)), np.ones(4), np.ones((2, 4), bool), [["a"] * 4]])
def test_arrays_that_are_not_boxes_are_refused(boxes):
    with pytest.raises(ValueError, match=r"shape \(n, 4\)"):
        check_windows(boxes, 30, 40)


def test_an_empty_array_of_boxes_is_accepted():
    for boxes in ([], np.zeros((0, 4))):
        assert check_windows(boxes, 30, 40).shape == (0, 4)


def test_pixels_are_rounded_and_at_least_one():
    windows = np.float32([[1.4, 2.6, 5.5, 7.4], [3.2, 3.2, 3.3, 3.4], [9.8, 6.9, 10, 7]])
    expected = [[1, 3, 6, 7], [3, 3, 4, 4], [9, 6, 10, 7]]
    np.testing.assert_array_equal(to_pixels(windows, 7, 10), expected)


def test_scaled_windows_keep_their_centre():
    windows = np.float32([[10, 10, 20, 14], [0, 0, 20, 20]])
    expected = [[5, 8, 25, 16], [0, 0, 30, 30]]
    np.testing.assert_allclose(scaled(windows, 2, 40, 60), expected)


def test_overlaps_equal_those_of_slow_loops():
    a, b = sample_windows(30, 40, 20), sample_windows(30, 40, 7, seed=1)
    expected = [[iou(x, y) for y in b.astype(float)] for x in a.astype(float)]
    np.testing.assert_allclose(overlaps(a, b), expected, atol=1e-5)
    assert overlaps(a, b[:0]).shape == (20, 0)


@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("count", [5, 1000])
def test_suppression_equals_that_of_slow_loops(threshold, count):
    windows = sample_windows(60, 80, 300)
    scores = np.random.default_rng(0).integers(0, 40, 300) / 40  # many are equal
    kept = []
    for k in sorted(range(300), key=lambda k: -scores[k]):
        if all(iou(*windows[[k, j]].astype(float)) <= threshold for j in kept):
            kept.append(k)
    assert 5 < len(kept) < 300
    np.testing.assert_array_equal(suppress(windows, scores, threshold, count), kept[:count])


def test_suppression_of_no_windows_keeps_none():
    assert suppress(np.zeros((0, 4), np.float32), np.zeros(0), 0.5, 9).shape == (0,)
