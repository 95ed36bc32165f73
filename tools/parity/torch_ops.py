"""Run torchvision's operations on drawn inputs, and write inputs and results, gradients included.

Called by run.py with the Python of an environment that has torch and torchvision. Keys read
`operation/number/name`; maps are `(B, H, W, C)` and boxes `(B, R, 4)`.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torchvision import ops

ALIGN = [(aligned, ratio) for aligned in (False, True) for ratio in (1, 2, 3, 0)]
SIZES = ((13, 17, 5, 7, 16), (25, 38, 16, 14, 16), (60, 44, 8, 7, 8))  # H, W, C, S, stride


def drawn_boxes(rng, count, height, width):
    """Return `(2, count, 4)` boxes of all sizes; some over the border, outside, or flat."""
    side = np.exp(rng.uniform(0, np.log(1.3 * min(height, width)), (2, count, 2)))
    corner = rng.uniform(-0.1, 0.9, (2, count, 2)) * (width, height)
    boxes = np.concatenate([corner, corner + side], axis=2)
    boxes[:, 0] = [0, 0, width, height]
    boxes[:, 1] = [24, 24, 88, 120]
    boxes[:, 2] = [-900, 10, -800, 60]
    boxes[:, 3, 2] = boxes[:, 3, 0]
    boxes[:, 4, 2:] = boxes[:, 4, :2]
    return boxes.astype(np.float32)


def pooled(operation, features, boxes, rng):
    """Return the result and the gradient of a pooling operation, and the weights that led to it."""
    maps = torch.tensor(features.transpose(0, 3, 1, 2).copy(), requires_grad=True)
    result = operation(maps, list(torch.from_numpy(boxes)))
    weights = rng.normal(size=tuple(result.shape)).astype(np.float32)
    (result * torch.from_numpy(weights)).sum().backward()
    return {
        "features": features,
        "boxes": boxes,
        "weights": weights.transpose(0, 2, 3, 1),
        "result": result.detach().numpy().transpose(0, 2, 3, 1),
        "gradient": maps.grad.numpy().transpose(0, 2, 3, 1),
    }


def roi_align(rng):
    """Yield every kind of RoIAlign on every map."""
    for height, width, channels, size, stride in SIZES:
        features = rng.normal(size=(2, height, width, channels)).astype(np.float32)
        boxes = drawn_boxes(rng, 40, height * stride, width * stride)
        for aligned, ratio in ALIGN:

            def run(maps, rois, how=(size, 1 / stride, ratio, aligned)):
                return ops.roi_align(maps, rois, *how)

            numbers = pooled(run, features, boxes, rng)
            yield numbers | {"how": [size, 1 / stride, ratio, aligned]}


def roi_pool(rng):
    """Yield RoIPool on maps without ties and on maps full of them."""
    for height, width, channels, size, stride in SIZES:
        features = rng.normal(size=(2, height, width, channels)).astype(np.float32)
        boxes = drawn_boxes(rng, 40, height * stride, width * stride)
        for maps in (features, np.maximum(np.round(features), 0)):

            def run(maps, rois, how=(size, 1 / stride)):
                return ops.roi_pool(maps, rois, *how)

            yield pooled(run, maps, boxes, rng) | {"how": [size, 1 / stride]}


def suppression(rng):
    """Yield the kept boxes of NMS, alone and in groups."""
    for count, threshold in ((60, 0.3), (400, 0.5), (1000, 0.7)):
        crowds = drawn_boxes(rng, 15, 300, 400)[0]
        boxes = crowds[rng.integers(0, 15, count)] + rng.normal(0, 4, (count, 4))
        boxes = np.concatenate([boxes[:, :2], np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
        boxes = boxes.astype(np.float32)
        scores = rng.permutation(count).astype(np.float32) / count
        groups = rng.integers(0, 7, count)
        tensors = [torch.from_numpy(array) for array in (boxes, scores, groups)]
        yield {
            "boxes": boxes,
            "scores": scores,
            "groups": groups,
            "threshold": threshold,
            "kept": ops.nms(*tensors[:2], threshold).numpy(),
            "kept_in_groups": ops.batched_nms(*tensors, threshold).numpy(),
        }


def box_iou(rng):
    """Yield overlaps and their gradient; of flat boxes that has 0 / 0 in it, so there are none."""
    for count in (5, 80):
        a, b = (drawn_boxes(rng, count + 5, 300, 400)[0, 5:] for _ in range(2))
        first = torch.tensor(a, requires_grad=True)
        result = ops.box_iou(first, torch.from_numpy(b))
        weights = rng.normal(size=tuple(result.shape)).astype(np.float32)
        (result * torch.from_numpy(weights)).sum().backward()
        numbers = {"a": a, "b": b, "weights": weights, "result": result.detach().numpy()}
        yield numbers | {"gradient": first.grad.numpy()}


def main():
    """Read the command line and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    arrays = {}
    for seed, operation in enumerate((roi_align, roi_pool, suppression, box_iou)):
        for number, found in enumerate(operation(np.random.default_rng(seed))):
            for name, value in found.items():
                arrays[f"{operation.__name__}/{number}/{name}"] = np.asarray(value)
    np.savez(out, **arrays)


if __name__ == "__main__":
    main()
