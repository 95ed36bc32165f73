"""Anchors: boxes of a few sizes and shapes at every position of a map (Faster R-CNN, 3.1)."""

import numpy as np
from keras import ops


def base_anchors(sizes, aspect_ratios):
    """Return the anchors of one position, centred on the origin.

    Args:
        sizes: square roots of the anchors' areas, in pixels.
        aspect_ratios: heights over widths.

    Returns:
        `(len(sizes) * len(aspect_ratios), 4)` float32, corners rounded to whole pixels, sizes
        varying fastest: torchvision's order and rounding.
    """
    sizes = np.asarray(sizes, np.float32)
    heights = np.sqrt(np.asarray(aspect_ratios, np.float32))
    h = (heights[:, None] * sizes).reshape(-1)
    w = ((1 / heights)[:, None] * sizes).reshape(-1)
    return np.round(np.stack([-w, -h, w, h], axis=1) / 2)


def grid_anchors(base, feature_size, stride):
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
