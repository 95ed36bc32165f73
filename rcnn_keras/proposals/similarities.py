"""What selective search compares regions by, to read and to plot.

Uijlings et al., "Selective Search for Object Recognition" (IJCV 2013), "Complementary Similarity
Measures". The search itself computes them inside OpenCV, whose texture comes from Scharr's filter.

    H, W   height and width of the image
    C      channels, 3 in most colour spaces
    mask   `(H, W)` bool, the region's pixels
    size   of a region, a box or an image: its area in pixels
"""

import cv2
import numpy as np

COLOUR_BINS = 25
TEXTURE_BINS = 10
DIRECTIONS = 8
SIGMA = 1.0
FLAT = 1e-3  # a slope below it, in values a pixel, is rounding
RADIUS = 4  # of the filter, beyond which the Gaussian is below 0.1 % of its height


def colour_histogram(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return how a region's pixels spread over 25 equal bins of 0..256, for each channel.

    Args:
        image: `(H, W, C)` uint8 in any colour space.
        mask: the region, at least one pixel.

    Returns:
        `(25 * C,)` float64, channel after channel, with the sum 1.

    Raises:
        ValueError: if image and mask do not fit, or the mask is empty.
    """
    _check_region(image, mask)
    bins = image[mask].astype(np.int64) * COLOUR_BINS // 256
    return _histogram(bins, COLOUR_BINS)


def gaussian_derivatives(image: np.ndarray) -> np.ndarray:
    """Return the derivatives of an image in eight directions, smoothed with sigma 1.

    Direction i points at 45 i degrees, from right over down; each opposes another. Beyond its
    border the image is mirrored.

    Args:
        image: `(H, W, C)` uint8.

    Returns:
        `(8, H, W, C)` float32, in steps of the image's values a pixel.
    """
    x = np.arange(-RADIUS, RADIUS + 1)
    smooth = np.exp(-(x**2) / (2 * SIGMA**2))
    smooth /= smooth.sum()
    # Correlated with a ramp of slope 1 it gives 1, as a derivative should.
    slope = x * smooth / (x**2 * smooth).sum()
    pixels = image.astype(np.float32)
    along_x = cv2.sepFilter2D(pixels, -1, slope, smooth, borderType=cv2.BORDER_REFLECT)
    along_y = cv2.sepFilter2D(pixels, -1, smooth, slope, borderType=cv2.BORDER_REFLECT)
    angles = np.arange(DIRECTIONS) * (2 * np.pi / DIRECTIONS)
    derivatives = [np.cos(a) * along_x + np.sin(a) * along_y for a in angles]
    return np.stack(derivatives).astype(np.float32).reshape(DIRECTIONS, *image.shape)


def texture_histogram(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return how steeply a region's pixels rise in eight directions, for each channel.

    The positive part of each Gaussian derivative is spread over 10 equal bins from 0 to the
    steepest rise of the channel anywhere in the image; what falls in a direction rises in the
    opposite one.

    Args:
        image: `(H, W, C)` uint8 in any colour space.
        mask: the region, at least one pixel.

    Returns:
        `(10 * 8 * C,)` float64, channel after channel and in it direction after direction, with the
        sum 1.

    Raises:
        ValueError: if image and mask do not fit, or the mask is empty.
    """
    _check_region(image, mask)
    rises = gaussian_derivatives(image)
    rises[rises < FLAT] = 0
    steepest = rises.max(axis=(0, 1, 2))
    share = rises[:, mask] / np.where(steepest > 0, steepest, 1)  # (8, size, C)
    bins = np.minimum((share * TEXTURE_BINS).astype(np.int64), TEXTURE_BINS - 1)
    size, channels = bins.shape[1:]
    return _histogram(bins.transpose(1, 2, 0).reshape(size, channels * DIRECTIONS), TEXTURE_BINS)


def histogram_intersection(a: np.ndarray, b: np.ndarray) -> float:
    """Return the similarity of two histograms of sum 1: the sum of the smaller ones, 0..1."""
    return float(np.minimum(a, b).sum())


def size_similarity(size_a: float, size_b: float, image_size: float) -> float:
    """Return 1 less the share of the image that two regions fill: small ones are joined first."""
    return 1 - (size_a + size_b) / image_size


def fill_similarity(
    size_a: float, size_b: float, box_a: np.ndarray, box_b: np.ndarray, image_size: float
) -> float:
    """Return 1 less the share of the image in the regions' common box that neither fills.

    Args:
        size_a: of the first region.
        size_b: of the second one, which shares no pixel with it.
        box_a: `(4,)` `xyxy`, the box around the first region.
        box_b: likewise around the second one.
        image_size: of the image.
    """
    low = np.minimum(box_a[:2], box_b[:2])
    high = np.maximum(box_a[2:], box_b[2:])
    return 1 - (float(np.prod(high - low)) - size_a - size_b) / image_size


def merge_histograms(a: np.ndarray, size_a: float, b: np.ndarray, size_b: float) -> np.ndarray:
    """Return the histogram of two regions that become one: the mean, weighted by their sizes."""
    return (size_a * a + size_b * b) / (size_a + size_b)


def _histogram(bins: np.ndarray, count: int) -> np.ndarray:
    """Return `(n * count,)` shares of the `(size, n)` numbers of bins, column after column."""
    columns = np.arange(bins.shape[1]) * count
    counts = np.bincount((bins + columns).ravel(), minlength=bins.shape[1] * count)
    return counts / counts.sum()


def _check_region(image: np.ndarray, mask: np.ndarray) -> None:
    if image.ndim != 3 or image.dtype != np.uint8:
        raise ValueError(f"image must be (H, W, C) uint8, not {image.dtype} {image.shape}")
    if mask.shape != image.shape[:2] or mask.dtype != bool:
        raise ValueError(f"mask must be bool {image.shape[:2]}, not {mask.dtype} {mask.shape}")
    if not mask.any():
        raise ValueError("mask must have at least one pixel")
