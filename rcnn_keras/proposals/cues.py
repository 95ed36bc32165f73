"""What tells an object's window from the background's: the cues of objectness.

Alexe, Deselaers, Ferrari, "Measuring the Objectness of Image Windows" (PAMI 2012). An object
differs from what surrounds it (colour contrast) and has a closed outline (edge density, superpixels
straddling). Each cue has one parameter theta, which is learnt. The paper's fourth one, multi-scale
saliency, found more objects in one data set and fewer in another, and is left out.

    image     (H, W, 3) uint8 RGB
    windows   (n, 4) xyxy inside the image, rounded to whole pixels before anything is counted
    corners   (4, n) indices into an integral image, flattened

Thousands of windows cost little more than one: what is counted is counted once for all of them, in
integral images.
"""

import cv2
import numpy as np

from rcnn_keras.proposals.windows import areas, scaled, to_pixels

LIGHTNESS_STEP, COLOR_STEP, COLOR_LEVELS = 32, 12, 8  # of 8-bit L, a and b; a and b about 128
STRONG_EDGES = 0.8  # share of the pixels whose gradient starts no edge
WEAK_TO_STRONG = 0.4  # gradients from this part of it on continue an edge
SMOOTHING = 0.8  # sigma of the superpixels, in pixels
SMALLEST_SUPERPIXEL = 1 / 2000  # of the image


def color_contrast(image: np.ndarray, windows: np.ndarray, theta: float) -> np.ndarray:
    """Return how much the colours of each window differ from those around it (the paper's CC).

    Args:
        image: as above.
        windows: as above.
        theta: above 1. The surroundings are what the window covers in addition when its sides are
            `theta` times as long, as far as it lies in the image.

    Returns:
        `(n,)` float32: half the chi-square distance of the two normalised Lab histograms, 0..1; 0
        where there are no surroundings.
    """
    height, width = image.shape[:2]
    bins = _color_bins(image)
    inner = to_pixels(windows, height, width)
    outer = to_pixels(scaled(inner, theta, height, width), height, width)
    inner_corners, outer_corners = _corners(inner, width), _corners(outer, width)
    inner_area = areas(inner).astype(np.float32)
    around_area = (areas(outer) - areas(inner)).astype(np.float32)
    distance = np.zeros(len(windows), np.float32)
    for bin in range(bins.max() + 1):
        integral = _integral(bins == bin)
        inside = _sums(integral, inner_corners)
        around = (_sums(integral, outer_corners) - inside) / np.maximum(around_area, 1)
        inside = inside / inner_area
        distance += (inside - around) ** 2 / np.maximum(inside + around, 1e-12)
    return np.where(around_area > 0, distance / 2, 0).astype(np.float32)


def edge_density(image: np.ndarray, windows: np.ndarray, theta: float) -> np.ndarray:
    """Return how many edges run along the inside of each window's border (the paper's ED).

    Args:
        image: as above.
        windows: as above.
        theta: above 1. The inner ring is the window without the one of the same centre whose sides
            are `theta` times shorter.

    Returns:
        `(n,)` float32: Canny edge pixels in the ring for each pixel of the window's perimeter.
    """
    height, width = image.shape[:2]
    outer = to_pixels(windows, height, width)
    inner = np.rint(scaled(outer, 1 / theta, height, width)).astype(np.int32)
    integral = _integral(_edges(image))
    in_ring = _sums(integral, _corners(outer, width)) - _sums(integral, _corners(inner, width))
    perimeter = 2 * (outer[:, 2:] - outer[:, :2]).sum(1)
    return (in_ring / perimeter).astype(np.float32)


def superpixels_straddling(image: np.ndarray, windows: np.ndarray, theta: float) -> np.ndarray:
    """Return how well superpixels lie either inside or outside each window (the paper's SS).

    Args:
        image: as above.
        windows: as above.
        theta: the scale k of Felzenszwalb and Huttenlocher's graph segmentation; the larger, the
            larger the superpixels.

    Returns:
        `(n,)` float32 in 0..1: 1 less the sum, over the superpixels s, of the smaller one of the
        areas of s inside and outside the window, divided by the window's area.
    """
    height, width = image.shape[:2]
    smallest = max(1, round(SMALLEST_SUPERPIXEL * height * width))
    segmentation = cv2.ximgproc.segmentation.createGraphSegmentation(SMOOTHING, theta, smallest)
    labels = segmentation.processImage(image)
    pixels = to_pixels(windows, height, width)
    corners = _corners(pixels, width)
    straddling = np.zeros(len(windows), np.int32)
    for label in range(labels.max() + 1):
        integral = _integral(labels == label)
        inside = _sums(integral, corners)
        straddling += np.minimum(inside, integral[-1, -1] - inside)
    return (1 - straddling / areas(pixels)).astype(np.float32)


def _color_bins(image: np.ndarray) -> np.ndarray:
    """Return the number `(H, W)` of each pixel's bin; every number from 0 on occurs."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.int32)
    half = COLOR_LEVELS // 2
    color = ((lab[..., 1:] - 128) // COLOR_STEP).clip(-half, half - 1) + half
    bins = (lab[..., 0] // LIGHTNESS_STEP * COLOR_LEVELS + color[..., 0]) * COLOR_LEVELS
    return np.unique(bins + color[..., 1], return_inverse=True)[1].reshape(image.shape[:2])


def _edges(image: np.ndarray) -> np.ndarray:
    """Return Canny's edges `(H, W)` as bool; what a strong gradient is depends on the image."""
    gray = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (0, 0), 1.0)
    dx, dy = cv2.Sobel(gray, cv2.CV_16S, 1, 0), cv2.Sobel(gray, cv2.CV_16S, 0, 1)
    strong = float(np.quantile(np.hypot(dx, dy), STRONG_EDGES))
    return cv2.Canny(dx, dy, WEAK_TO_STRONG * strong, strong, L2gradient=True) > 0


def _integral(mask: np.ndarray) -> np.ndarray:
    """Return the integral image `(H + 1, W + 1)` int32 of a bool mask."""
    return cv2.integral(mask.view(np.uint8))


def _corners(pixels: np.ndarray, width: int) -> np.ndarray:
    x1, y1, x2, y2 = pixels.T
    row = width + 1
    return np.stack([y2 * row + x2, y1 * row + x1, y1 * row + x2, y2 * row + x1])


def _sums(integral: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return the sum `(n,)` of what an integral image counts in each window."""
    both, neither, above, beside = integral.ravel()[corners]
    return both + neither - above - beside
