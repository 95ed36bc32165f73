"""Candidate windows of an image, and what makes windows fit for counting pixels in them.

height, width   of an image in pixels
windows, boxes  (n, 4) xyxy in pixels of that image, continuous as all boxes
pixels          (n, 4) int32 xyxy: rows y1..y2-1 and columns x1..x2-1
"""

import numpy as np

SMALLEST = 0.04  # side of the smallest window as a part of the image's longer side
LARGEST_ASPECT = 3.0  # of width to height or of height to width


def sample_windows(height: int, width: int, count: int, seed: int = 0) -> np.ndarray:
    """Return windows of all sizes, aspects and places, drawn at random.

    The side is the square root of the area, from 1/25 of the image's longer side up to the whole
    of it. There are twice as many windows of half the side; four times as many would cover small
    and large objects alike, but leave few windows that are large. The logarithm of width / height
    is uniform, and so is the place.

    Args:
        height: of the image in pixels.
        width: likewise.
        count: n, how many. Fewer windows are the beginning of more.
        seed: the same arguments give the same windows.

    Returns:
        `(n, 4)` float32 `xyxy` inside the image, each side at least one pixel.

    Raises:
        ValueError: for an image without pixels or a negative count or seed.
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

    A window goes when its IoU with a better one that stays is above the threshold; of equal scores
    the first one is the better. `ops.nms_loop` keeps the same; this looks at the kept ones alone
    and is ten times as fast on the thousands of windows of an image.
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
