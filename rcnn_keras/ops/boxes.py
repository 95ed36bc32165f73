"""Geometry of boxes.

A box is `(x1, y1, x2, y2)` in continuous pixels, of area `(x2 - x1) * (y2 - y1)`: no `+ 1`.
"""

from keras import ops


def area(boxes):
    """Return the area of each box, `(..., 4)` to `(...)`, in square pixels; never negative."""
    width = ops.maximum(boxes[..., 2] - boxes[..., 0], 0)
    height = ops.maximum(boxes[..., 3] - boxes[..., 1], 0)
    return width * height


def iou(a, b):
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


def clip_boxes(boxes, image_sizes):
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


def inside_image(boxes, image_sizes):
    """Tell which `(B, N, 4)` boxes cross no border of their `(B, 2)` image: `(B, N)` bool."""
    limits = _per_box(ops.cast(image_sizes, boxes.dtype), boxes)
    low = ops.logical_and(boxes[..., 0] >= 0, boxes[..., 1] >= 0)
    high = ops.logical_and(boxes[..., 2] <= limits[..., 1], boxes[..., 3] <= limits[..., 0])
    return ops.logical_and(low, high)


def valid_boxes(boxes, min_size=0.0):
    """Tell which `(..., 4)` boxes have both sides of at least `min_size` pixels: `(...)` bool."""
    width = boxes[..., 2] - boxes[..., 0]
    height = boxes[..., 3] - boxes[..., 1]
    return ops.logical_and(width >= min_size, height >= min_size)


def _per_box(image_sizes, boxes):
    """Shape `(B, 2)` sizes so that they broadcast against `(B, ..., 4)` boxes."""
    for _ in range(len(boxes.shape) - 2):
        image_sizes = image_sizes[:, None]
    return image_sizes
