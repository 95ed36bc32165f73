"""Write the numbers of torchvision that the tests of `rcnn_keras.ops` compare with.

    pip install torch torchvision
    python tools/parity/store_ops.py

Run it in an environment of its own: it needs torch, torchvision and numpy, and neither TensorFlow
nor this package. It writes `tests/ops/torchvision_ops.npz`, inputs beside outputs, in the layout
of this package: maps `(B, H, W, C)`, boxes `(B, R, 4)`. Keys read `function/name`. Every input is
drawn from a fixed seed, so that the same releases write the same bytes.
"""

import argparse
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parents[2] / "tests" / "ops" / "torchvision_ops.npz"
NMS_THRESHOLDS = (0.3, 0.5, 0.7)


def boxes_of(rng, count, low, high, largest):
    """Draw `(count, 4)` boxes with their first corner in low..high and sides up to `largest`."""
    corner = rng.uniform(low, high, (count, 2))
    return np.concatenate([corner, corner + rng.uniform(0, largest, (count, 2))], 1).astype("f4")


def channels_first(maps):
    """Return `(B, H, W, C)` maps as a torch tensor `(B, C, H, W)` that collects gradients."""
    import torch

    return torch.tensor(maps.transpose(0, 3, 1, 2).copy(), requires_grad=True)


def channels_last(maps):
    """Return a torch tensor `(n, C, H, W)` as an array `(n, H, W, C)`."""
    return maps.detach().numpy().transpose(0, 2, 3, 1)


def roi_align_numbers(rng):
    """One map with boxes inside, over the border, flat, far outside; with gradients."""
    import torch
    from torchvision.ops import roi_align

    features = rng.normal(size=(2, 13, 17, 3)).astype("f4")  # an image of 104 x 136 at 1/8
    odd = [
        [0, 0, 136, 104],  # the whole image
        [-30, -25, 20, 18],  # over the upper left corner
        [120, 90, 170, 140],  # over the lower right corner
        [-60, -60, 260, 260],  # around the image
        [40.3, 30.2, 40.3, 60.7],  # no width
        [55.1, 47.9, 55.1, 47.9],  # a point
        [50.2, 40.1, 51.0, 40.8],  # less than one position wide
        [-900, -900, -700, -800],  # far outside
        [900, 30, 990, 80],  # far outside
    ]
    boxes = np.stack(
        [np.concatenate([np.float32(odd), boxes_of(rng, 5, -10, 90, 60)]) for _ in range(2)]
    )
    weights = rng.normal(size=(*boxes.shape[:2], 7, 7, 3)).astype("f4")
    numbers = {"features": features, "boxes": boxes, "weights": weights}
    for name, aligned in (("legacy", False), ("aligned", True)):
        maps = channels_first(features)
        rois = list(torch.tensor(boxes))
        pooled = roi_align(maps, rois, 7, 1 / 8, sampling_ratio=2, aligned=aligned)
        goal = torch.tensor(weights.reshape(-1, 7, 7, 3).transpose(0, 3, 1, 2).copy())
        (pooled * goal).sum().backward()
        numbers[name] = channels_last(pooled).reshape(weights.shape)
        numbers[f"{name}_gradient"] = channels_last(maps.grad)
    return numbers


def multilevel_numbers(rng):
    """Three pyramid levels of two images of 512 x 640."""
    import torch
    from torchvision.ops import MultiScaleRoIAlign

    maps = [rng.normal(size=(2, 512 // s, 640 // s, 1)).astype("f4") for s in (8, 16, 32)]
    sides = rng.uniform(30, 530, (2, 12, 1)) * rng.uniform(0.9, 1.05, (2, 12, 2))
    corner = rng.uniform(-20, 1, (2, 12, 2)) + rng.uniform(0, 1, (2, 12, 2)) * (560 - sides)
    boxes = np.concatenate([corner, corner + sides], axis=2).astype("f4")
    pool = MultiScaleRoIAlign(["0", "1", "2"], output_size=5, sampling_ratio=2)
    features = {str(k): channels_first(level) for k, level in enumerate(maps)}
    pooled = pool(features, list(torch.tensor(boxes)), [(512, 640)] * 2)
    numbers = {f"features{k}": level for k, level in enumerate(maps)}
    return numbers | {"boxes": boxes, "pooled": channels_last(pooled).reshape(2, 12, 5, 5, 1)}


def level_numbers(rng):
    """Levels 2 to 5 of boxes at and around the sizes where the level changes."""
    import torch
    from torchvision.ops.poolers import LevelMapper

    sides = np.float32([0, 1, 55.9, 56, 111.99, 112, 223.9, 224, 224.1, 447.9, 448, 449, 2000])
    squares = np.stack([0 * sides, 0 * sides, sides, sides], axis=1)
    boxes = np.concatenate([squares, boxes_of(rng, 60, -50, 300, 700)])
    return {"boxes": boxes, "levels": LevelMapper(2, 5)([torch.tensor(boxes)]).numpy()}


def nms_numbers(rng):
    """Crowded boxes with distinct scores, alone and in groups; kept indices padded with -1."""
    import torch
    from torchvision.ops import batched_nms, nms

    boxes = boxes_of(rng, 80, 0, 60, 60)
    boxes[10:14] = boxes[20:24]  # copies
    boxes[30, 2:] = boxes[30, :2]  # no area
    scores = rng.permutation(80).astype("f4") / 80
    groups = rng.integers(0, 5, 80)
    numbers = {"boxes": boxes, "scores": scores, "groups": groups, "thresholds": NMS_THRESHOLDS}
    tensors = [torch.tensor(value) for value in (boxes, scores, groups)]
    for name, run, inputs in (("kept", nms, tensors[:2]), ("grouped", batched_nms, tensors)):
        rows = [run(*inputs, threshold).numpy() for threshold in NMS_THRESHOLDS]
        numbers[name] = np.stack(
            [np.pad(row, (0, 80 - len(row)), constant_values=-1) for row in rows]
        )
    return numbers


def iou_numbers(rng):
    """Overlaps of every pair."""
    import torch
    from torchvision.ops import box_iou

    a, b = boxes_of(rng, 9, -20, 60, 50), boxes_of(rng, 12, -20, 60, 50)
    return {"a": a, "b": b, "iou": box_iou(torch.tensor(a), torch.tensor(b)).numpy()}


def anchor_numbers(rng):
    """Anchors on maps whose sizes divide the image's badly; one pyramid, one single map."""
    import torch
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.image_list import ImageList

    numbers = {}
    cases = {
        "pyramid": (((32,), (64,), (128,)), ((28, 42), (14, 21), (7, 11)), (217, 333)),
        "single": (((8, 17, 100),), ((5, 3),), (83, 50)),
    }
    for name, (sizes, shapes, image_size) in cases.items():
        ratios = ((0.5, 1.0, 2.0),) * len(sizes)
        images = ImageList(torch.zeros(1, 3, *image_size), [image_size])
        maps = [torch.zeros(1, 1, *shape) for shape in shapes]
        numbers[f"{name}_image_size"] = image_size
        numbers[f"{name}_shapes"] = shapes
        numbers[f"{name}_sizes"] = sizes
        numbers[f"{name}_anchors"] = AnchorGenerator(sizes, ratios)(images, maps)[0].numpy()
    return numbers


def box_coder_numbers(rng):
    """Deltas of boxes from references, and boxes from deltas, some beyond the clamp."""
    import torch
    from torchvision.models.detection._utils import BoxCoder

    boxes, references = boxes_of(rng, 20, 0, 200, 90) + 1, boxes_of(rng, 20, 0, 200, 90)
    boxes[:, 2:] += 1
    references[:, 2:] += 1
    deltas = rng.normal(size=(20, 4)).astype("f4")
    deltas[:3, 2:] = [[30, 1], [1, 40], [25, 25]]
    numbers = {"boxes": boxes, "references": references, "deltas": deltas}
    for name, weights in (("rpn", (1.0, 1.0, 1.0, 1.0)), ("head", (10.0, 10.0, 5.0, 5.0))):
        coder = BoxCoder(weights)
        tensors = [torch.tensor(value) for value in (boxes, references, deltas)]
        numbers[f"{name}_encoded"] = coder.encode_single(*tensors[:2]).numpy()
        numbers[f"{name}_decoded"] = coder.decode_single(tensors[2], tensors[1]).numpy()
    return numbers


def matcher_numbers(rng):
    """Matches (-1 below, -2 between the thresholds) of anchors that all touch some box."""
    import torch
    from torchvision.models.detection._utils import Matcher
    from torchvision.ops import box_iou

    gt_boxes, anchors = boxes_of(rng, 6, 0, 60, 60), boxes_of(rng, 150, 0, 60, 60)
    gt_boxes[:, 2:] += 10
    near = np.repeat(gt_boxes[:4], 10, axis=0)  # the last two have no anchor drawn for them
    anchors[:40] = near + rng.normal(0, 3, near.shape)
    overlaps = box_iou(torch.tensor(gt_boxes), torch.tensor(anchors))
    best = overlaps[4].argmax()
    overlaps[:, best + 1] = overlaps[:, best]  # two anchors share a box's best overlap
    return {
        "iou": overlaps.numpy(),
        "rpn": Matcher(0.7, 0.3, allow_low_quality_matches=True)(overlaps).numpy(),
        "head": Matcher(0.5, 0.5, allow_low_quality_matches=False)(overlaps).numpy(),
    }


def loss_numbers(rng):
    """Both stages' losses over all samples, with their gradients."""
    import torch
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.roi_heads import fastrcnn_loss
    from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

    def leaf(*shape):
        return torch.tensor(rng.normal(size=shape).astype("f4"), requires_grad=True)

    def goals_for(deltas, *shape):
        """Draw targets near and far, for both pieces of smooth L1."""
        scale = rng.choice([0.05, 1.0], (len(deltas), 1))
        noise = rng.normal(size=deltas.shape) * scale
        return (deltas.detach().numpy() + noise).reshape(shape).astype("f4")

    rpn = RegionProposalNetwork(
        AnchorGenerator(), RPNHead(1, 1), 0.7, 0.3, 1000, 0.5, {}, {}, 0.7
    )  # 1000 samples an image, so that the sampler takes every anchor that is not ignored
    kinds = rng.choice([1, 0, -1], (2, 24), p=[0.3, 0.5, 0.2])
    logits, deltas = leaf(48, 1), leaf(48, 4)
    goals = goals_for(deltas, 2, 24, 4)
    objectness, box = rpn.compute_loss(
        logits, deltas, list(torch.tensor(kinds).float()), list(torch.tensor(goals))
    )
    (objectness + box).backward()
    numbers = {
        "rpn_logits": logits.detach().numpy().reshape(2, 24),
        "rpn_deltas": deltas.detach().numpy().reshape(2, 24, 4),
        "rpn_kinds": kinds,
        "rpn_target_deltas": goals,
        "rpn_objectness_loss": objectness.item(),
        "rpn_box_loss": box.item(),
        "rpn_logits_gradient": logits.grad.numpy().reshape(2, 24),
        "rpn_deltas_gradient": deltas.grad.numpy().reshape(2, 24, 4),
    }

    classes = rng.integers(0, 4, (2, 16))
    logits, deltas = leaf(32, 4), leaf(32, 16)  # deltas of the background come first
    own = deltas.reshape(32, 4, 4)[torch.arange(32), torch.tensor(classes).flatten()]
    goals = goals_for(own, 2, 16, 4)
    class_loss, box = fastrcnn_loss(
        logits, deltas, list(torch.tensor(classes)), list(torch.tensor(goals))
    )
    (class_loss + box).backward()
    return numbers | {
        "head_logits": logits.detach().numpy().reshape(2, 16, 4),
        "head_deltas": deltas.detach().numpy().reshape(2, 16, 4, 4)[:, :, 1:],
        "head_classes": classes,
        "head_target_deltas": goals,
        "class_loss": class_loss.item(),
        "box_loss": box.item(),
        "head_logits_gradient": logits.grad.numpy().reshape(2, 16, 4),
        "head_deltas_gradient": deltas.grad.numpy().reshape(2, 16, 4, 4)[:, :, 1:],
    }


PARTS = {
    "roi_align": roi_align_numbers,
    "multilevel": multilevel_numbers,
    "levels": level_numbers,
    "nms": nms_numbers,
    "iou": iou_numbers,
    "anchors": anchor_numbers,
    "box_coder": box_coder_numbers,
    "matcher": matcher_numbers,
    "losses": loss_numbers,
}


def main() -> None:
    """Write the file and say what it holds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    import torch
    import torchvision

    versions = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    numbers = {"versions": np.array(versions)}
    for seed, (part, compute) in enumerate(PARTS.items()):
        for name, value in compute(np.random.default_rng(seed)).items():
            numbers[f"{part}/{name}"] = np.asarray(value)
    np.savez_compressed(args.out, **numbers)
    print(f"{args.out}: {len(numbers)} arrays, {args.out.stat().st_size / 1e3:.0f} kB, {versions}")


if __name__ == "__main__":
    main()
