"""Boxes and anchors: geometry, deltas, and the grids that anchors stand on.

A box is `(x1, y1, x2, y2)` in continuous pixels, of area `(x2 - x1) * (y2 - y1)`: no `+ 1`. Deltas
are offsets from reference boxes, anchors or proposals (R-CNN, appendix C). Anchors are boxes of a
few sizes and shapes at every position of a map (Faster R-CNN, 3.1).
"""

import math
from collections.abc import Sequence

import numpy as np
from keras import ops

from rcnn_keras.ops.types import Tensor


def area(boxes: Tensor) -> Tensor:
    """Return the area of each box, `(..., 4)` to `(...)`, in square pixels; never negative."""
    width = ops.maximum(boxes[..., 2] - boxes[..., 0], 0)
    height = ops.maximum(boxes[..., 3] - boxes[..., 1], 0)
    return width * height


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the intersection over union of every pair of boxes.

    Args:
        a: `(..., N, 4)` boxes.
        b: `(..., M, 4)` boxes; leading dimensions broadcast against those of `a`.

    Returns:
        `(..., N, M)` values in 0..1; 0 where both boxes have no area.
    """
    a_columns = [a[..., :, None, k] for k in range(4)]
    b_columns = [b[..., None, :, k] for k in range(4)]
    width = ops.minimum(a_columns[2], b_columns[2]) - ops.maximum(a_columns[0], b_columns[0])
    height = ops.minimum(a_columns[3], b_columns[3]) - ops.maximum(a_columns[1], b_columns[1])
    intersection = ops.maximum(width, 0) * ops.maximum(height, 0)
    union = area(a)[..., :, None] + area(b)[..., None, :] - intersection
    return ops.where(union > 0, intersection / ops.where(union > 0, union, 1), 0)


def clip_boxes(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Clip boxes to their images.

    Args:
        boxes: `(B, ..., 4)` boxes.
        image_sizes: `(B, 2)` heights and widths in pixels.

    Returns:
        Boxes of the same shape with x in 0..width and y in 0..height.
    """
    limits = _per_box(ops.cast(image_sizes, boxes.dtype), boxes)
    height, width = limits[..., 0], limits[..., 1]
    return ops.stack(
        [
            ops.minimum(ops.maximum(boxes[..., 0], 0), width),
            ops.minimum(ops.maximum(boxes[..., 1], 0), height),
            ops.minimum(ops.maximum(boxes[..., 2], 0), width),
            ops.minimum(ops.maximum(boxes[..., 3], 0), height),
        ],
        axis=-1,
    )


def inside_image(boxes: Tensor, image_sizes: Tensor) -> Tensor:
    """Tell which `(B, N, 4)` boxes cross no border of their `(B, 2)` image: `(B, N)` bool."""
    limits = _per_box(ops.cast(image_sizes, boxes.dtype), boxes)
    low = ops.logical_and(boxes[..., 0] >= 0, boxes[..., 1] >= 0)
    high = ops.logical_and(boxes[..., 2] <= limits[..., 1], boxes[..., 3] <= limits[..., 0])
    return ops.logical_and(low, high)


def valid_boxes(boxes: Tensor, min_size: float = 0.0) -> Tensor:
    """Tell which `(..., 4)` boxes have both sides of at least `min_size` pixels: `(...)` bool."""
    width = boxes[..., 2] - boxes[..., 0]
    height = boxes[..., 3] - boxes[..., 1]
    return ops.logical_and(width >= min_size, height >= min_size)


def _per_box(image_sizes: Tensor, boxes: Tensor) -> Tensor:
    """Shape `(B, 2)` sizes so that they broadcast against `(B, ..., 4)` boxes."""
    for _ in range(len(boxes.shape) - 2):
        image_sizes = image_sizes[:, None]
    return image_sizes


MAX_LOG_SCALE = math.log(1000.0 / 16)  # the largest growth that a delta may ask for before exp


def encode_boxes(
    boxes: Tensor, references: Tensor, weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0)
) -> Tensor:
    """Return the deltas that turn `references` into `boxes`.

    Args:
        boxes: `(..., 4)` boxes.
        references: `(..., 4)` anchors or proposals.
        weights: factors of `(dx, dy, dw, dh)`; Fast R-CNN's heads use `(10, 10, 5, 5)`.

    Returns:
        `(..., 4)` float32 deltas `(dx, dy, dw, dh)`. A side of zero is taken as a millionth of a
        pixel, so that padding gives large but finite numbers.
    """
    x, y, w, h = _centre_and_size(boxes)
    rx, ry, rw, rh = _centre_and_size(references)
    w, h, rw, rh = (ops.maximum(side, 1e-6) for side in (w, h, rw, rh))
    deltas = ((x - rx) / rw, (y - ry) / rh, ops.log(w / rw), ops.log(h / rh))
    return ops.stack([d * k for d, k in zip(deltas, weights, strict=True)], axis=-1)


def decode_boxes(
    deltas: Tensor,
    references: Tensor,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    max_log_scale: float = MAX_LOG_SCALE,
) -> Tensor:
    """Move and scale `references` by `deltas`: the inverse of `encode_boxes`.

    Args:
        deltas: `(..., 4)` deltas.
        references: `(..., 4)` anchors or proposals, broadcast against `deltas`.
        weights: as in `encode_boxes`.
        max_log_scale: `dw` and `dh` are clamped at this, log(1000/16) by default.

    Returns:
        `(..., 4)` boxes, not clipped.
    """
    rx, ry, rw, rh = _centre_and_size(references)
    dx, dy, dw, dh = (deltas[..., k] / weights[k] for k in range(4))
    x, y = dx * rw + rx, dy * rh + ry
    w = ops.exp(ops.minimum(dw, max_log_scale)) * rw
    h = ops.exp(ops.minimum(dh, max_log_scale)) * rh
    return ops.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)


def _centre_and_size(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x1, y1, x2, y2 = (boxes[..., k] for k in range(4))
    width, height = x2 - x1, y2 - y1
    return x1 + width / 2, y1 + height / 2, width, height


def base_anchors(
    sizes: Sequence[float], aspect_ratios: Sequence[float], rounding: bool = True
) -> np.ndarray:
    """Return the anchors of one position, centred on the origin.

    Args:
        sizes: square roots of the anchors' areas, in pixels.
        aspect_ratios: heights over widths.
        rounding: round the corners to whole pixels, as torchvision does.

    Returns:
        `(len(sizes) * len(aspect_ratios), 4)` float32, sizes varying fastest: torchvision's order.
    """
    sides = np.asarray(sizes, np.float32)
    heights = np.sqrt(np.asarray(aspect_ratios, np.float32))
    h = (heights[:, None] * sides).reshape(-1)
    w = ((1 / heights)[:, None] * sides).reshape(-1)
    corners = np.stack([-w, -h, w, h], axis=1) / 2
    return np.round(corners) if rounding else corners


def grid_anchors(
    base: np.ndarray, feature_size: Sequence[int | Tensor], stride: Sequence[int | Tensor]
) -> Tensor:
    """Lay the anchors of one position over a whole feature map.

    Args:
        base: `(k, 4)` anchors of one position.
        feature_size: height and width of the map, numbers or scalar tensors.
        stride: pixels of the image from one position to the next, down and across.

    Returns:
        `(height * width * k, 4)` float32 boxes in image pixels, row by row; not clipped.
    """
    y = ops.cast(ops.arange(feature_size[0]) * stride[0], "float32")
    x = ops.cast(ops.arange(feature_size[1]) * stride[1], "float32")
    y, x = ops.meshgrid(y, x, indexing="ij")
    shifts = ops.reshape(ops.stack([x, y, x, y], axis=-1), (-1, 1, 4))
    return ops.reshape(shifts + ops.convert_to_tensor(base, "float32"), (-1, 4))
