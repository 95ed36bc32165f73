import cv2
import numpy as np
import pytest

from rcnn_keras.data.images import read_image
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.proposals.selective_search import (
    colour_histogram,
    fill_similarity,
    gaussian_derivatives,
    histogram_intersection,
    merge_histograms,
    size_similarity,
    texture_histogram,
)

segmentation = cv2.ximgproc.segmentation


@pytest.fixture(scope="module")
def regions():
    """A noisy drawn image, its regions by OpenCV's segmentation, and their sizes."""
    image = read_image(draw_shapes(1, size=(90, 120), seed=5)[0].path)
    noise = np.random.default_rng(0).integers(-40, 41, image.shape)
    image = np.clip(image + noise, 0, 255).astype(np.uint8)
    numbers = segmentation.createGraphSegmentation(0.8, 100, 100).processImage(image)
    sizes = np.bincount(numbers.ravel()).astype(np.int32)
    assert len(sizes) >= 5
    return image, numbers, sizes


def strategy(name, regions):
    image, numbers, sizes = regions
    own = getattr(segmentation, f"createSelectiveSearchSegmentationStrategy{name}")()
    own.setImage(image, numbers, sizes[:, None].copy())
    return own


def pairs(count=5):
    return [(i, j) for i in range(count) for j in range(i)]


def box_around(mask):
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


def test_colour_similarity_equals_opencv_before_and_after_a_merge(regions):
    image, numbers, sizes = regions
    own = strategy("Color", regions)
    histograms = [colour_histogram(image, numbers == i) for i in range(5)]
    for i, j in pairs():
        expected = pytest.approx(own.get(i, j), abs=1e-5)
        assert histogram_intersection(histograms[i], histograms[j]) == expected
    own.merge(0, 1)
    merged = merge_histograms(histograms[0], sizes[0], histograms[1], sizes[1])
    assert histogram_intersection(merged, histograms[2]) == pytest.approx(own.get(0, 2), abs=1e-5)
    both = colour_histogram(image, (numbers == 0) | (numbers == 1))
    np.testing.assert_allclose(merged, both, atol=1e-12)


def test_colour_histogram_equals_that_counted_by_hand():
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = (0, 10, 255), (11, 10, 245)
    image[1] = 99  # outside the region
    mask = np.array([[True, True], [False, False]])
    histogram = colour_histogram(image, mask)
    assert histogram.shape == (75,)
    bins = {0: 1 / 6, 1: 1 / 6, 25: 2 / 6, 50 + 23: 1 / 6, 50 + 24: 1 / 6}  # 10.24 values a bin
    expected = np.zeros(75)
    for place, share in bins.items():
        expected[place] = share
    np.testing.assert_allclose(histogram, expected)


def test_size_and_fill_similarities_equal_opencv(regions):
    _, numbers, sizes = regions
    by_size, by_fill = strategy("Size", regions), strategy("Fill", regions)
    boxes = [box_around(numbers == i) for i in range(5)]
    for i, j in pairs():
        size = size_similarity(sizes[i], sizes[j], numbers.size)
        assert size == pytest.approx(by_size.get(i, j), abs=1e-6)
        fill = fill_similarity(sizes[i], sizes[j], boxes[i], boxes[j], numbers.size)
        assert fill == pytest.approx(by_fill.get(i, j), abs=1e-6)


def test_fill_similarity_equals_that_computed_by_hand():
    left, right = np.array([0, 0, 2, 4]), np.array([2, 0, 4, 4])
    assert fill_similarity(8, 8, left, right, 100) == 1  # nothing is left between them
    assert fill_similarity(8, 8, left, right + np.array([2, 0, 2, 0]), 100) == pytest.approx(0.92)
    assert size_similarity(8, 8, 100) == pytest.approx(0.84)


def test_texture_similarity_orders_regions_as_opencv_does():
    """Its filter differs, so that only the order of similarities is the same."""
    image = np.full((60, 90, 3), 128, np.uint8)
    image[:, :30] = np.where(np.arange(30) % 6 < 3, 40, 200)[None, :, None]
    image[:, 30:60] = np.where(np.arange(60) % 6 < 3, 40, 200)[:, None, None]
    image[:, 60:] = np.where(np.arange(30) % 6 < 3, 40, 200)[None, :, None]
    numbers = np.repeat(np.arange(3, dtype=np.int32), 30)[None].repeat(60, axis=0).copy()
    own = strategy("Texture", (image, numbers, np.full(3, 1800, np.int32)))
    first, across, again = (texture_histogram(image, numbers == i) for i in range(3))
    assert histogram_intersection(first, again) > histogram_intersection(first, across) + 0.05
    assert own.get(0, 2) > own.get(0, 1)


def test_texture_histogram_is_a_distribution(regions):
    image, numbers, _ = regions
    histogram = texture_histogram(image, numbers == 0)
    assert histogram.shape == (240,)
    np.testing.assert_allclose(histogram.reshape(24, 10).sum(axis=1), 1 / 24)


def test_rotating_an_image_rotates_the_directions():
    noise = np.random.default_rng(0).integers(0, 40, (40, 63, 3))
    image = (np.arange(63) % 9 * 20)[None, :, None].astype(np.uint8) + noise.astype(np.uint8)
    everywhere = np.ones(image.shape[:2], bool)
    upright = texture_histogram(image, everywhere).reshape(3, 8, 10)
    # A quarter turn to the right takes right to down: direction i becomes i + 2.
    turned = texture_histogram(np.ascontiguousarray(np.rot90(image, -1)), everywhere.T)
    expected = np.roll(upright, 2, axis=1)
    np.testing.assert_allclose(turned.reshape(3, 8, 10), expected, atol=1e-3)
    assert np.abs(expected - upright).max() > 5e-3


def test_an_image_without_texture_fills_only_the_first_bins():
    histogram = texture_histogram(np.full((9, 9, 3), 50, np.uint8), np.ones((9, 9), bool))
    np.testing.assert_allclose(histogram.reshape(24, 10)[:, 0], 1 / 24)


def test_derivatives_of_a_ramp_are_its_slope():
    x, y = np.meshgrid(np.arange(20), np.arange(20))
    image = (3 * x + 5 * y)[..., None].astype(np.uint8)
    found = gaussian_derivatives(image)[:, 5:-5, 5:-5, 0]
    diagonal = np.sqrt(0.5)
    first_half = [3, 8 * diagonal, 5, 2 * diagonal]
    expected = np.array([*first_half, *(-v for v in first_half)])[:, None, None]
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-4)


def test_derivatives_of_a_point_are_those_of_a_gaussian():
    image = np.zeros((15, 15, 1), np.uint8)
    image[7, 7] = 200
    found = gaussian_derivatives(image)[0, ..., 0]
    x, y = np.meshgrid(np.arange(-7, 8), np.arange(-7, 8))
    gaussian = np.exp(-(x**2 + y**2) / 2) / (2 * np.pi)
    np.testing.assert_allclose(found, 200 * -x * gaussian, atol=0.03)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (np.zeros((4, 4), np.uint8), np.ones((4, 4), bool), r"image must be .*\(4, 4\)"),
        (np.zeros((4, 4, 3)), np.ones((4, 4), bool), "image must be .*float64"),
        (np.zeros((4, 4, 3), np.uint8), np.ones((4, 5), bool), r"mask must be .*\(4, 5\)"),
        (np.zeros((4, 4, 3), np.uint8), np.ones((4, 4), int), "mask must be bool.*int64"),
        (np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), bool), "at least one pixel"),
    ],
)
@pytest.mark.parametrize("histogram", [colour_histogram, texture_histogram])
def test_images_and_masks_that_do_not_fit_are_refused(histogram, image, mask, message):
    with pytest.raises(ValueError, match=message):
        histogram(image, mask)
