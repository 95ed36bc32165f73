"""Boxes as offsets from reference boxes (anchors or proposals), as in R-CNN, appendix C."""

import math

from keras import ops

MAX_LOG_SCALE = math.log(1000.0 / 16)  # the largest growth that a delta may ask for before exp


def encode_boxes(boxes, references, weights=(1.0, 1.0, 1.0, 1.0)):
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


def decode_boxes(deltas, references, weights=(1.0, 1.0, 1.0, 1.0)):
    """Move and scale `references` by `deltas`: the inverse of `encode_boxes`.

    Args:
        deltas: `(..., 4)` deltas; `dw` and `dh` are clamped at log(1000/16).
        references: `(..., 4)` anchors or proposals, broadcast against `deltas`.
        weights: as in `encode_boxes`.

    Returns:
        `(..., 4)` boxes, not clipped.
    """
    rx, ry, rw, rh = _centre_and_size(references)
    dx, dy, dw, dh = (deltas[..., k] / weights[k] for k in range(4))
    x, y = dx * rw + rx, dy * rh + ry
    w = ops.exp(ops.minimum(dw, MAX_LOG_SCALE)) * rw
    h = ops.exp(ops.minimum(dh, MAX_LOG_SCALE)) * rh
    return ops.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)


def _centre_and_size(boxes):
    x1, y1, x2, y2 = (boxes[..., k] for k in range(4))
    width, height = x2 - x1, y2 - y1
    return x1 + width / 2, y1 + height / 2, width, height
