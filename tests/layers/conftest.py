"""Slow references in float64 numpy, written as the papers say it, one box at a time."""

import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest


@pytest.fixture
def reference():
    return SimpleNamespace(iou=iou, nms=nms, decode=decode, clip=clip, conv=conv)


@pytest.fixture
def mixed_bfloat16():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return width * height / (areas - width * height)


def nms(boxes, scores, threshold):
    """Indices of the boxes that are kept, best first."""
    kept = []
    for i in np.argsort(-np.asarray(scores), kind="stable"):
        if all(iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(int(i))
    return kept


def decode(delta, box, weights=(1, 1, 1, 1)):
    dx, dy, dw, dh = (float(d) / w for d, w in zip(delta, weights, strict=True))
    x1, y1, x2, y2 = (float(c) for c in box)
    width, height = x2 - x1, y2 - y1
    x, y = x1 + width / 2 + dx * width, y1 + height / 2 + dy * height
    width *= math.exp(min(dw, math.log(1000 / 16)))
    height *= math.exp(min(dh, math.log(1000 / 16)))
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def clip(box, size):
    height, width = size
    x1, y1, x2, y2 = box
    return [
        min(max(x1, 0), width),
        min(max(y1, 0), height),
        min(max(x2, 0), width),
        min(max(y2, 0), height),
    ]


def conv(x, kernel, bias):
    """A convolution of stride 1 that keeps the size of `(B, H, W, C)`, zeros around it."""
    x, kernel, bias = (np.asarray(a, np.float64) for a in (x, kernel, bias))
    size = kernel.shape[0]
    border = (size - 1) // 2
    padded = np.pad(x, ((0, 0), (border, border), (border, border), (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[-1])) + bias
    for i in range(x.shape[1]):
        for j in range(x.shape[2]):
            patch = padded[:, i : i + size, j : j + size]
            out[:, i, j] += np.einsum("byxc,yxcd->bd", patch, kernel)
    return out
