"""Boxes that end at the last pixel inside, in which matterport/Mask_RCNN computes.

Its boxes in 0..1 are these over the sides of the image less one. A box of this package ends a pixel
after the last one that is inside.
"""

import math
from collections.abc import Sequence

from keras import ops

from rcnn_keras.ops.boxes import decode_boxes
from rcnn_keras.ops.types import Tensor

END = (0.0, 0.0, 1.0, 1.0)


def to_inclusive(boxes: Tensor) -> Tensor:
    """Return `(..., 4)` boxes `xyxy` that end at the last pixel inside."""
    return boxes - ops.array(END, "float32")


def to_exclusive(boxes: Tensor) -> Tensor:
    """Undo `to_inclusive`."""
    return boxes + ops.array(END, "float32")


def decode_inclusive(deltas: Tensor, references: Tensor, weights: Sequence[float]) -> Tensor:
    """Do what `decode_boxes` does, on inclusive boxes, which may grow without limit.

    Args:
        deltas: as in `decode_boxes`.
        references: this package's boxes, as the result.
        weights: as in `decode_boxes`.
    """
    return to_exclusive(decode_boxes(deltas, to_inclusive(references), weights, math.inf))


def clip_to_windows(boxes: Tensor, windows: Tensor) -> Tensor:
    """Clip boxes to windows as inclusive ones: what lies outside becomes a pixel at the edge.

    Args:
        boxes: `(B, n, 4)`.
        windows: `(B, 4)` `xyxy`, of at least a pixel.
    """
    first, last = windows[:, None, :2], windows[:, None, 2:]
    low = ops.concatenate([first, first + 1], axis=-1)
    high = ops.concatenate([last - 1, last], axis=-1)
    return ops.minimum(ops.maximum(boxes, low), high)
