"""EXIF orientation: turning stored pixels, and boxes drawn on them, upright.

Orientation 1 is upright, 2 to 4 mirror or turn by 180 degrees, 5 to 8 exchange height and width
(Exif 2.3, tag 0x0112).
"""

from typing import Any

import numpy as np
from pycocotools import mask as rle

TAG = 0x0112
EXCHANGES_SIDES = (5, 6, 7, 8)
UPSIDE_DOWN = (3, 4, 7, 8)  # what is left to do once sides are exchanged
MIRRORED = (2, 3, 6, 7)


def turn_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels or a mask, `(H, W, ...)`, upright."""
    if orientation in EXCHANGES_SIDES:
        pixels = pixels.swapaxes(0, 1)
    if orientation in UPSIDE_DOWN:
        pixels = pixels[::-1]
    if orientation in MIRRORED:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_points(points: np.ndarray, orientation: int, height: int, width: int) -> np.ndarray:
    """Return `(n, 2)` points x, y of stored pixels on the upright image of this size."""
    if orientation in EXCHANGES_SIDES:
        points = points[:, ::-1]
    x, y = points[:, 0], points[:, 1]
    if orientation in UPSIDE_DOWN:
        y = height - y
    if orientation in MIRRORED:
        x = width - x
    return np.stack([x, y], axis=1)


def turn_boxes(boxes: np.ndarray, orientation: int, height: int, width: int) -> np.ndarray:
    """Return `(n, 4)` boxes `xyxy` of stored pixels on the upright image of this size."""
    corners = turn_points(boxes.reshape(-1, 2), orientation, height, width).reshape(-1, 2, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def turn_segmentation(segmentation: Any, orientation: int, height: int, width: int) -> Any:
    """Return COCO polygons or an RLE of stored pixels on the upright image of this size."""
    if isinstance(segmentation, list):
        return [
            turn_points(np.reshape(polygon, (-1, 2)), orientation, height, width).ravel().tolist()
            for polygon in segmentation
        ]
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = rle.frPyObjects(segmentation, *segmentation["size"])
        mask = turn_pixels(rle.decode(segmentation), orientation)
        turned = rle.encode(np.asfortranarray(mask))
        return {"size": turned["size"], "counts": turned["counts"].decode("ascii")}
    return segmentation
