import cv2
import numpy as np
import pytest

from rcnn_keras.proposals import objectness_cues

HEIGHT, WIDTH = 46, 60


@pytest.fixture(scope="module")
def image():
    """Two flat things on a ramp, under some grain."""
    rng = np.random.default_rng(0)
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = np.linspace(60, 190, WIDTH)[:, None]
    image[10:30, 8:28] = (200, 40, 30)
    cv2.circle(image, (45, 28), 10, (30, 90, 220), -1)
    return cv2.add(image, rng.integers(0, 12, image.shape, np.uint8))


@pytest.fixture(scope="module")
def windows():
    """Random ones of all sizes, some on whole pixels, and some on the border."""
    rng = np.random.default_rng(1)
    corner = rng.uniform(0, 0.9, (40, 2)) * (WIDTH, HEIGHT)
    windows = np.concatenate([corner, corner + rng.uniform(0.3, 40, (40, 2))], 1)
    windows[:15] = np.ceil(windows[:15])
    fixed = [[0, 0, WIDTH, HEIGHT], [8, 10, 28, 30], [0, 0, 1, 1], [59.8, 45.7, 60, 46]]
    return np.concatenate([windows, fixed]).clip(0, [WIDTH, HEIGHT] * 2).astype(np.float32)


def whole(window):
    """Rows and columns of a window rounded to at least one pixel."""
    x1, y1 = min(round(float(window[0])), WIDTH - 1), min(round(float(window[1])), HEIGHT - 1)
    x2, y2 = max(round(float(window[2])), x1 + 1), max(round(float(window[3])), y1 + 1)
    return x1, y1, x2, y2


def inside(x1, y1, x2, y2):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[y1:y2, x1:x2] = True
    return mask


def stretched(x1, y1, x2, y2, factor):
    """The same centre, `factor` times the sides, inside the image."""
    x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, factor * (x2 - x1) / 2, factor * (y2 - y1) / 2
    return max(x - w, 0), max(y - h, 0), min(x + w, WIDTH), min(y + h, HEIGHT)


@pytest.mark.parametrize("theta", [1.1, 1.5, 3.0])
def test_color_contrast_equals_that_computed_with_masks(image, windows, theta):
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(int)
    bins = [
        (light // 32, *(min(max((c - 128) // 12, -4), 3) for c in color))
        for light, *color in lab.reshape(-1, 3).tolist()
    ]
    names = sorted(set(bins))
    bins = np.array([names.index(bin) for bin in bins]).reshape(HEIGHT, WIDTH)
    expected = []
    for window in windows:
        window = whole(window)
        around = inside(*whole(stretched(*window, theta))) & ~inside(*window)
        if not around.any():
            expected.append(0)
            continue
        p = np.bincount(bins[inside(*window)], minlength=len(names)) / inside(*window).sum()
        q = np.bincount(bins[around], minlength=len(names)) / around.sum()
        seen = p + q > 0
        expected.append(np.sum((p - q)[seen] ** 2 / (p + q)[seen]) / 2)
    contrast = objectness_cues.color_contrast(image, windows, theta)
    assert contrast.dtype == np.float32
    np.testing.assert_allclose(contrast, expected, atol=1e-5)
    assert 0.3 < np.max(expected) <= 1 + 1e-6


@pytest.mark.parametrize("theta", [1.25, 3.0])
def test_edge_density_equals_that_computed_with_masks(image, windows, theta):
    edges = objectness_cues._edges(image)
    expected = []
    for window in windows:
        window = whole(window)
        x1, y1, x2, y2 = np.rint(stretched(*window, 1 / theta)).astype(int)
        ring = inside(*window) & ~inside(x1, y1, x2, y2)
        perimeter = 2 * (window[2] - window[0] + window[3] - window[1])
        expected.append(edges[ring].sum() / perimeter)
    density = objectness_cues.edge_density(image, windows, theta)
    np.testing.assert_allclose(density, expected, atol=1e-6)
    assert np.max(expected) > 0.2


@pytest.mark.parametrize("theta", [30.0, 300.0])
def test_superpixels_straddling_equals_that_computed_with_masks(image, windows, theta):
    segmentation = cv2.ximgproc.segmentation.createGraphSegmentation(0.8, theta, 1)
    labels = segmentation.processImage(image)
    assert labels.max() > 2
    expected = []
    for window in windows:
        mask = inside(*whole(window))
        straddling = 0
        for label in range(labels.max() + 1):
            superpixel = labels == label
            straddling += min((superpixel & mask).sum(), (superpixel & ~mask).sum())
        expected.append(1 - straddling / mask.sum())
    found = objectness_cues.superpixels_straddling(image, windows, theta)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found[-4] == 1  # the whole image cuts nothing


def test_an_object_scores_higher_in_each_cue_than_windows_that_cut_it(image):
    windows = np.float32([[7, 9, 29, 31], [17, 19, 39, 41]])
    for cue, theta in (
        (objectness_cues.color_contrast, 1.5),
        (objectness_cues.edge_density, 1.5),
        (objectness_cues.superpixels_straddling, 60.0),
    ):
        whole, cut = cue(image, windows, theta)
        assert whole > 1.5 * cut


ALL = [
    (objectness_cues.color_contrast, 1.5),
    (objectness_cues.edge_density, 1.5),
    (objectness_cues.superpixels_straddling, 60.0),
]


@pytest.mark.parametrize(("cue", "theta"), ALL)
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 30), (40, 30)])
def test_cues_are_finite_on_flat_and_tiny_images(cue, theta, size):
    image = np.full((*size, 3), 90, np.uint8)
    windows = np.float32([[0, 0, size[1], size[0]], [0, 0, 0.2, 0.2]])
    values = cue(image, windows, theta)
    assert values.shape == (2,)
    assert np.isfinite(values).all()
    if cue is objectness_cues.edge_density or cue is objectness_cues.color_contrast:
        np.testing.assert_array_equal(values, 0)
    assert cue(image, windows[:0], theta).shape == (0,)
