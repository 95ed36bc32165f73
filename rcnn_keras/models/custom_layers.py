"""Checks of the layers that users bring: each runs once, on zeros, before the detector is built.

Small images stand for all: their maps have the strides of the detector's levels. Their height is
not their width, so that a layer that takes one for the other is found.
"""

import re
from collections.abc import Sequence
from typing import Any, get_args

import keras
import numpy as np
from keras.layers import Layer

from rcnn_keras.ops.types import Kernels

LAYER_ARGUMENTS = (
    *("anchor_generator", "rpn_head", "box_head", "mask_head", "keypoint_head", "roi_pooling"),
)
SMALLEST_IMAGE = (64, 96)  # pixels: a map of stride 16 has 4 x 6 positions

Shapes = list[tuple[int, ...]]


def with_kernels_of(layer: Layer, kernels: Kernels) -> Layer:
    """Return a layer that has an attribute `kernels` with the detector's, any other as it is."""
    own = getattr(layer, "kernels", None)
    if not isinstance(own, str) or own not in get_args(Kernels) or own == kernels:
        return layer
    return type(layer).from_config(layer.get_config() | {"kernels": kernels})


def zero_maps(strides: Sequence[int], channels: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return an image `(1, H, W, 3)` and its maps `(1, H / stride, W / stride, C)`, all zeros."""
    height, width = (max(n * max(strides), s) for n, s in zip((2, 3), SMALLEST_IMAGE, strict=True))
    maps = [np.zeros((1, height // s, width // s, channels), "float32") for s in strides]
    return np.zeros((1, height, width, 3), "float32"), maps


def check_anchor_generator(generator: Layer, strides: Sequence[int], channels: int) -> list[int]:
    """Check that an anchor generator fits the maps; return k, anchors a position, of every level.

    Args:
        generator: see `FasterRCNN`.
        strides: of the levels of the RPN.
        channels: of every level.

    Raises:
        ValueError: naming what does not fit, and the shapes.
    """
    name = "anchor_generator"
    images, maps = zero_maps(strides, channels)
    anchors = _called(name, generator, images, maps)
    if not isinstance(anchors, (list, tuple)) or len(anchors) != len(maps):
        raise ValueError(
            f"{name} must return a list of boxes (H * W * k, 4), one for each of {len(maps)} "
            f"levels; it returns {_shapes(anchors)}"
        )
    counts = []
    for level, boxes in zip(maps, anchors, strict=True):
        (shape,), (height, width) = _shapes(boxes), level.shape[1:3]
        k = shape[0] // (height * width) if shape else 0
        if k == 0 or shape != (height * width * k, 4):
            raise ValueError(
                f"{name} must return boxes (H * W * k, 4) for a map of H x W; for {height} x "
                f"{width} it returns {shape}"
            )
        _check_float32(name, "boxes", boxes)
        _check_boxes(name, keras.ops.convert_to_numpy(boxes).reshape(height, width, k, 4))
        counts.append(k)
    return counts


def _check_boxes(name: str, boxes: np.ndarray) -> None:
    """Check the boxes `(H, W, k, 4)` of a map."""
    rows, columns, *_ = boxes.shape
    if not (boxes[..., :2] < boxes[..., 2:]).all():  # false for NaN, too
        wrong = boxes[~(boxes[..., :2] < boxes[..., 2:]).all(axis=-1)][0]
        raise ValueError(
            f"{name} must return boxes (x1, y1, x2, y2) with x1 < x2 and y1 < y2; it returns "
            f"{tuple(wrong.tolist())}"
        )
    centres = (boxes[..., :2] + boxes[..., 2:]).mean(axis=2)
    if (np.diff(centres[..., 0], axis=1) < 0).any() or (np.diff(centres[..., 1], axis=0) < 0).any():
        raise ValueError(
            f"{name} must return the boxes of a map row by row, the k of a position side by side; "
            f"those for {rows} x {columns} positions are in another order"
        )


def check_rpn_head(
    head: Layer, anchors: Sequence[int], strides: Sequence[int], channels: int
) -> None:
    """Check that an RPN head fits the maps and the anchors.

    Args:
        head: see `FasterRCNN`.
        anchors: k of every level.
        strides: of the levels.
        channels: of every level.

    Raises:
        ValueError: naming what does not fit, and the shapes.
    """
    images, maps = zero_maps(strides, channels)
    found = _called("rpn_head", head, maps)
    _check_pair("rpn_head", "(logits, deltas), two lists", found)
    counts = [k * level[0, ..., 0].size for k, level in zip(anchors, maps, strict=True)]
    where = (
        f" for an image of {images.shape[1]} x {images.shape[2]} with {_listed(anchors)} anchors "
        f"at each position of the levels"
    )
    for what, values, end in (("logits", found[0], ()), ("deltas", found[1], (4,))):
        _check_outputs("rpn_head", what, values, [(1, count, *end) for count in counts], where)


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
    rois = np.array([[[0, 0, 8, 8], [0, 0, *images.shape[2:0:-1]]]], "float32")
    padded = _called("roi_pooling", pooling, maps, rois)
    rows = _called("roi_pooling", pooling, maps, rois[0], np.zeros(2, "int32"))
    shape = (_shapes(padded) or [()])[0][2:]
    expected = "(S, S, C)" if size is None else (size, size, channels)
    fits = len(shape) == 3 if size is None else shape == expected
    if _shapes([padded, rows]) != [(1, 2, *shape), (2, *shape)] or not fits:
        raise ValueError(
            f"roi_pooling must return (B, R, *shape) for RoIs (B, R, 4) and (n, *shape) for RoIs "
            f"(n, 4) with image (n,), where shape is {expected}; for 1 image of 2 RoIs it returns "
            f"{_listed(_shapes(padded))} and {_listed(_shapes(rows))}"
        )
    return shape


def check_box_head(head: Layer, pooled: Sequence[int], num_classes: int) -> None:
    """Check the outputs of a box head on `(B, R, *pooled)`; ValueError names the shapes."""
    found = _called("box_head", head, np.zeros((1, 2, *pooled), "float32"))
    _check_pair("box_head", "(logits, deltas)", found)
    where = f" for 1 image, 2 RoIs and K = {num_classes} classes"
    logits, deltas = (1, 2, num_classes + 1), (1, 2, num_classes, 4)
    _check_outputs(
        "box_head", "logits (B, R, K + 1), the background first,", found[0], [logits], where
    )
    _check_outputs("box_head", "deltas (B, R, K, 4)", found[1], [deltas], where)


def check_mask_head(head: Layer, pooled: Sequence[int], num_classes: int) -> None:
    """Check the outputs of a mask head on `(n, *pooled)`; ValueError names the shapes."""
    logits = _called("mask_head", head, np.zeros((2, *pooled), "float32"))
    shapes = _shapes(logits)
    size = shapes[0][1] if shapes and len(shapes[0]) == 4 else "M"
    where = f" for 2 RoIs and K = {num_classes} classes"
    expected: Any = [(2, size, size, num_classes)]
    _check_outputs("mask_head", "logits (n, M, M, K)", logits, expected, where)


def check_keypoint_head(head: Layer, pooled: Sequence[int], num_keypoints: int) -> None:
    """Check the outputs of a keypoint head on `(n, *pooled)`; ValueError names the shapes."""
    logits = _called("keypoint_head", head, np.zeros((2, *pooled), "float32"))
    shapes = _shapes(logits)
    size = shapes[0][1] if shapes and len(shapes[0]) == 4 else "M"
    where = f" for 2 RoIs and P = {num_keypoints} keypoints"
    expected: Any = [(2, size, size, num_keypoints)]
    _check_outputs("keypoint_head", "logits (n, M, M, P)", logits, expected, where)


def _called(name: str, layer: Layer, *arguments: Any) -> Any:
    try:
        return layer(*arguments)
    except Exception as error:
        shapes = " and ".join(_listed(_shapes(value)) for value in arguments)
        raise ValueError(
            f"{name} cannot be called with arrays of shapes {shapes}: {_cause(error)}"
        ) from error


def _cause(error: Exception) -> str:
    """Return an error's text in one line, without what Keras writes around it."""
    inner = re.search(r"\x1b\[1m(.*?)\x1b\[0m", str(error), re.DOTALL)
    return " ".join((inner[1] if inner else str(error)).split()) or type(error).__name__


def _check_pair(name: str, pair: str, values: Any) -> None:
    if not isinstance(values, (list, tuple)) or len(values) != 2:
        raise ValueError(f"{name} must return {pair}; it returns {_listed(_shapes(values))}")


def _check_outputs(name: str, what: str, values: Any, shapes: Shapes, where: str) -> None:
    """Check the shapes of one tensor or of a list, and that they are float32."""
    if _shapes(values) != shapes:
        raise ValueError(
            f"{name} must return {what} of shape {_listed(shapes)}{where}; it returns "
            f"{_listed(_shapes(values)) or 'nothing'}"
        )
    _check_float32(name, what, values)


def _check_float32(name: str, what: str, values: Any) -> None:
    for value in keras.tree.flatten(values):
        if (dtype := keras.backend.standardize_dtype(value.dtype)) != "float32":
            raise ValueError(
                f"{name} must return {what} of float32, under mixed precision too (dtype='float32' "
                f"of its last layers); it returns {dtype}"
            )


def _shapes(values: Any) -> Shapes:
    return [tuple(getattr(value, "shape", ())) for value in keras.tree.flatten(values)]


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values))
