"""The windows and the cues of objectness.

Alexe, Deselaers, Ferrari, "Measuring the Objectness of Image Windows" (PAMI 2012). An object
differs from what surrounds it (colour contrast) and has a closed outline (edge density, superpixels
straddling). Each cue has one parameter theta, which is fitted. The paper's fourth cue, multi-scale
saliency, found more objects in one dataset and fewer in another, and is left out.

    image           (H, W, 3) uint8 RGB
    height, width   of an image in pixels
    windows, boxes  (n, 4) xyxy in pixels of that image, continuous as all boxes
    pixels          (n, 4) int32 xyxy: rows y1..y2-1 and columns x1..x2-1
    corners         (4, n) indices into an integral image, flattened

Integral images make thousands of windows cost little more than one.
"""

import cv2
import numpy as np

SMALLEST = 0.04  # side of the smallest window as a part of the image's longer side

LARGEST_ASPECT = 3.0  # of width to height or of height to width


def sample_windows(height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    """Return windows of random size, aspect ratio and position.

    The side, the square root of the area, is between 1/25 of the image's longer side and all of
    it. There are twice as many windows of half the side; four times as many would cover small and
    large objects equally well, but leave few large windows. The logarithm of width / height is
    uniform, and so is the position.

    Args:
        height: of the image in pixels.
        width: of the image in pixels.
        count: n, how many. A smaller count gives the first windows of a larger one.
        seed: the same arguments give the same windows.

    Returns:
        `(n, 4)` float32 `xyxy` inside the image, each side at least one pixel.

    Raises:
        ValueError: for an image without pixels, or a negative count or seed.
    """
    if min(height, width) < 1:
        raise ValueError(f"windows need an image of at least 1x1 pixels, not {height}x{width}")
    if count < 0 or seed < 0:
        raise ValueError(f"count and seed must not be negative, not {count} and {seed}")
    u = np.random.default_rng(seed).random((count, 4))
    # With u uniform in 0..1, the side 1 / (1 + u * (1 / SMALLEST - 1)) has a density of 1 / side^2,
    # which is one of 1 / side over the logarithm of the side.
    side = max(height, width) / (1 + u[:, 0] * (1 / SMALLEST - 1))
    aspect = np.sqrt(LARGEST_ASPECT ** (2 * u[:, 1] - 1))
    extent = np.array([width, height])
    size = np.stack([side * aspect, side / aspect], 1).clip(1, extent)
    corner = u[:, 2:] * (extent - size)
    windows = np.concatenate([corner, corner + size], 1)
    return np.minimum(windows, [*extent, *extent]).astype(np.float32)


def check_windows(windows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return windows as float32 `(n, 4)`.

    Raises:
        ValueError: for another shape, and for a window that is not finite, not inside the image or
            without area; names the first such window.
    """
    windows = np.asarray(windows)
    if windows.size == 0:
        return np.zeros((0, 4), np.float32)
    if windows.ndim != 2 or windows.shape[1] != 4 or windows.dtype.kind not in "iuf":
        raise ValueError(
            f"boxes must be numbers of shape (n, 4), not {windows.dtype} of {windows.shape}"
        )
    x1, y1, x2, y2 = windows.T
    good = (x1 >= 0) & (x1 < x2) & (x2 <= width) & (y1 >= 0) & (y1 < y2) & (y2 <= height)
    if not good.all():
        first = int(np.argmin(good))
        raise ValueError(
            f"box {first} is {windows[first].tolist()}: not a box with an area inside the image of "
            f"{height}x{width} pixels (height x width)"
        )
    return windows.astype(np.float32)


def to_pixels(windows: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return windows rounded to whole pixels inside the image, `(n, 4)` int32.

    Each side has at least one pixel.
    """
    extent = np.array([width, height])
    first = np.rint(windows[:, :2]).clip(0, extent - 1)
    last = np.rint(windows[:, 2:]).clip(first + 1, extent)
    return np.concatenate([first, last], 1).astype(np.int32)


def scaled(windows: np.ndarray, factor: float, height: int, width: int) -> np.ndarray:
    """Return windows whose sides are `factor` times as long, about the same centres, clipped."""
    centre = (windows[:, :2] + windows[:, 2:]) / 2
    half = factor * (windows[:, 2:] - windows[:, :2]) / 2
    corners = np.concatenate([centre - half, centre + half], 1)
    return corners.clip(0, [width, height, width, height])


def areas(windows: np.ndarray) -> np.ndarray:
    """Return the area `(n,)` of each window."""
    return (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])


def overlaps(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the IoU `(n, m)` of every window with every one of m boxes."""
    x1, y1, x2, y2 = windows.T[:, :, None]
    width = np.minimum(x2, boxes[:, 2]) - np.maximum(x1, boxes[:, 0])
    height = np.minimum(y2, boxes[:, 3]) - np.maximum(y1, boxes[:, 1])
    shared = np.maximum(width, 0) * np.maximum(height, 0)
    return shared / (areas(windows)[:, None] + areas(boxes) - shared)


def suppress(
    windows: np.ndarray, scores: np.ndarray, iou_threshold: float, count: int
) -> np.ndarray:
    """Return the indices of the windows that greedy suppression keeps, best first, `count` at most.

    A window is dropped if its IoU with a kept window of a higher score is above the threshold; of
    equal scores the first comes first. `ops.nms_loop` keeps the same windows; this compares with
    the kept ones only and is ten times as fast on the thousands of windows of an image.
    """
    columns = np.ascontiguousarray(windows.T, np.float32)
    kept = np.empty((4, min(count, len(windows))), np.float32)
    area = np.empty(kept.shape[1], np.float32)
    indices: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        n = len(indices)
        if n == kept.shape[1]:
            break
        x1, y1, x2, y2 = columns[:, index]
        width = np.minimum(kept[2, :n], x2) - np.maximum(kept[0, :n], x1)
        height = np.minimum(kept[3, :n], y2) - np.maximum(kept[1, :n], y1)
        shared = np.maximum(width, 0) * np.maximum(height, 0)
        own = (x2 - x1) * (y2 - y1)
        if not np.any(shared > iou_threshold * (area[:n] + own - shared)):
            kept[:, n], area[n] = columns[:, index], own
            indices.append(index)
    return np.array(indices, np.intp)


LIGHTNESS_STEP, COLOR_STEP, COLOR_LEVELS = 32, 12, 8  # of 8-bit L, a and b; a and b about 128

STRONG_EDGES = 0.8  # quantile of the gradients above which an edge starts

WEAK_TO_STRONG = 0.4  # share of that gradient from which an edge continues

SMOOTHING = 0.8  # sigma of the superpixels, in pixels

SMALLEST_SUPERPIXEL = 1 / 2000  # of the image


def color_contrast(image: np.ndarray, windows: np.ndarray, theta: float) -> np.ndarray:
    """Return how much the colours of each window differ from those around it (the paper's CC).

    Args:
        image: as above.
        windows: as above.
        theta: above 1. The surroundings are the part of the image that the window covers in
            addition if its sides are `theta` times as long.

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
        theta: above 1. The inner ring is the window without the window of the same centre whose
            sides are `theta` times shorter.

    Returns:
        `(n,)` float32: Canny edge pixels in the ring per pixel of the window's perimeter.
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
        theta: the scale k of Felzenszwalb and Huttenlocher's graph segmentation; larger values give
            larger superpixels.

    Returns:
        `(n,)` float32 in 0..1: 1 minus the sum, over the superpixels s, of the smaller of the areas
        of s inside and outside the window, divided by the window's area.
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
    """Return the bin `(H, W)` of each pixel; bins are numbered from 0 without gaps."""
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.int32)
    half = COLOR_LEVELS // 2
    color = ((lab[..., 1:] - 128) // COLOR_STEP).clip(-half, half - 1) + half
    bins = (lab[..., 0] // LIGHTNESS_STEP * COLOR_LEVELS + color[..., 0]) * COLOR_LEVELS
    return np.unique(bins + color[..., 1], return_inverse=True)[1].reshape(image.shape[:2])


def _edges(image: np.ndarray) -> np.ndarray:
    """Return Canny's edges `(H, W)` as bool, with thresholds from the image's own gradients."""
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
    """Return the number `(n,)` of true pixels in each window from an integral image."""
    both, neither, above, beside = integral.ravel()[corners]
    return both + neither - above - beside
