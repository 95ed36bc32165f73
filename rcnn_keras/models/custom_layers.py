"""Checks of the layers that users bring: each runs once, on zeros, before the detector is built.

A small image stands for all: its maps have the strides of the detector's levels.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras.layers import Layer

PLACES = ("anchor_generator", "rpn_head", "box_head", "mask_head", "roi_pooling")


def with_kernels_of(layer: Layer, kernels: str) -> Layer:
    """Return a layer of this package with the detector's kernels, and any other as it is."""
    if getattr(layer, "kernels", kernels) == kernels:
        return layer
    return type(layer).from_config(layer.get_config() | {"kernels": kernels})


def zero_maps(strides: Sequence[int], channels: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return an image `(1, H, W, 3)` and its maps `(1, H / stride, W / stride, C)`, all zeros."""
    size = 2 * max(strides)
    images = np.zeros((1, size, size, 3), "float32")
    return images, [np.zeros((1, size // s, size // s, channels), "float32") for s in strides]


def check_anchors(generator: Layer, head: Layer, strides: Sequence[int], channels: int) -> None:
    """Check that an anchor generator and an RPN head fit the maps and each other.

    Args:
        generator: see `FasterRCNN`, as for `head`.
        head: of the region proposal network.
        strides: of the levels of the RPN.
        channels: of every level.

    Raises:
        ValueError: naming what does not fit, and the shapes.
    """
    images, maps = zero_maps(strides, channels)
    anchors = _called("anchor_generator", generator, images, maps)
    if not isinstance(anchors, (list, tuple)) or len(anchors) != len(maps):
        raise ValueError(
            f"anchor_generator must return a list of boxes (A, 4), one for each of {len(maps)} "
            f"levels; it returns {_shapes(anchors)}"
        )
    for level, boxes in zip(maps, anchors, strict=True):
        if len(boxes.shape) != 2 or boxes.shape[1] != 4 or boxes.shape[0] % level[0, ..., 0].size:
            raise ValueError(
                "anchor_generator must return boxes (H * W * k, 4) for a map of H x W; for "
                f"{level.shape[1]} x {level.shape[2]} it returns {tuple(boxes.shape)}"
            )
    found = _called("rpn_head", head, maps)
    if not isinstance(found, (list, tuple)) or len(found) != 2:
        raise ValueError(
            f"rpn_head must return (logits, deltas), two lists; it returns {_shapes(found)}"
        )
    for what, values, end in (("logits", found[0], ()), ("deltas", found[1], (4,))):
        expected = [(1, boxes.shape[0], *end) for boxes in anchors]
        if _shapes(values) != expected:
            raise ValueError(
                f"rpn_head must return {what} of shapes {expected}, one for each of "
                f"anchor_generator's anchors on an image of {images.shape[1]} x "
                f"{images.shape[2]}; it returns {_shapes(values)}"
            )


def check_pooling(
    pooling: Layer, strides: Sequence[int], channels: int, size: int | None
) -> tuple[int, ...]:
    """Check that a pooling layer takes RoIs in both forms; return the shape of what a RoI gives.

    Args:
        pooling: see `FasterRCNN`.
        strides: of the levels.
        channels: of every level.
        size: S that the box head needs; None for any.

    Raises:
        ValueError: naming the shapes.
    """
    images, maps = zero_maps(strides, channels)
    rois = np.array([[[0, 0, 8, 8], [0, 0, *images.shape[1:3]]]], "float32")
    padded = tuple(_called("roi_pooling", pooling, maps, rois).shape)
    rows = tuple(_called("roi_pooling", pooling, maps, rois[0], np.zeros(2, "int32")).shape)
    expected = "(S, S, C)" if size is None else (size, size, channels)
    shape = padded[2:]
    wrong = len(shape) != 3 if size is None else shape != expected
    if padded[:2] != (1, 2) or rows != (2, *shape) or wrong:
        raise ValueError(
            f"roi_pooling must return (B, R, *shape) for RoIs (B, R, 4) and (n, *shape) for RoIs "
            f"(n, 4) with image (n,), where shape is {expected}; for 1 image of 2 RoIs it returns "
            f"{padded} and {rows}"
        )
    return shape


def check_box_head(head: Layer, pooled: Sequence[int], num_classes: int) -> None:
    """Check the outputs of a box head on `(B, R, *pooled)`; ValueError names the shapes."""
    found = _called("box_head", head, np.zeros((1, 2, *pooled), "float32"))
    expected = [(1, 2, num_classes + 1), (1, 2, num_classes, 4)]
    if _shapes(found) != expected:
        raise ValueError(
            f"box_head must return logits (B, R, K + 1), the background first, and deltas "
            f"(B, R, K, 4): {expected} for 1 image, 2 RoIs and {num_classes} classes; it returns "
            f"{_shapes(found)}"
        )


def check_mask_head(head: Layer, pooled: Sequence[int], num_classes: int) -> None:
    """Check the outputs of a mask head on `(n, *pooled)`; ValueError names the shapes."""
    shape = _shapes(_called("mask_head", head, np.zeros((2, *pooled), "float32")))
    one = shape[0] if isinstance(shape, list) and len(shape) == 1 else ()
    if len(one) != 4 or one[0] != 2 or one[1] != one[2] or one[3] != num_classes:
        raise ValueError(
            f"mask_head must return logits (n, M, M, K) with K = {num_classes} classes; for 2 "
            f"RoIs it returns {shape}"
        )


def _called(name: str, layer: Layer, *arguments: Any) -> Any:
    try:
        return layer(*arguments)
    except Exception as error:
        shapes = ", ".join(str(_shapes(value)) for value in arguments)
        raise ValueError(f"{name} cannot be called with arrays of {shapes}: {error}") from error


def _shapes(values: Any) -> list[tuple[int, ...]]:
    return [tuple(getattr(value, "shape", ())) for value in keras.tree.flatten(values)]
