"""Run torchvision on the cases of the comparison, and write what each stage gives.

Called by run.py with the Python of an environment that has torch and torchvision.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from cases import ALL_SAMPLES, LITE_CHANNELS, LITE_UNITS, Case, drawn_objects, load_module
from torch import nn
from torchvision.models import detection


def build(case, drawing, dtype):
    """Return torchvision's model with the case's weights."""
    if case.lite:
        from lite_backbone import lite_detector

        masks = case.model.startswith("mask")
        model = lite_detector(masks, 90, LITE_CHANNELS, LITE_UNITS, **case.arguments)
    else:
        build = getattr(detection, case.model)
        model = build(weights=None, weights_backbone=None, **case.arguments)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = drawing.seeded_state(shapes, case.seed, case.class_gain)
    model.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return model.to(dtype).eval(), shapes


def images_of(case, drawing, dtype):
    """Return the images as torchvision wants them, `(3, H, W)` in 0..1."""
    arrays = [drawing.seeded_image(*size, case.seed + k) for k, size in enumerate(case.sizes)]
    return [torch.from_numpy(array).permute(2, 0, 1).to(dtype) / 255 for array in arrays]


def channels_last(maps):
    """Return `(n, C, H, W)` as an array `(n, H, W, C)`."""
    return maps.detach().permute(0, 2, 3, 1).numpy()


def forward(case, model, images):
    """Return what every stage gives at inference."""
    seen = {}

    def keep(name, module):
        module.register_forward_hook(lambda _, inputs, output: seen.__setitem__(name, output))

    keep("transform", model.transform)
    keep("features", model.backbone)
    keep("rpn", model.rpn.head)
    keep("anchors", model.rpn.anchor_generator)
    # A copy, as torchvision goes on to paste the masks into the images in place.
    model.roi_heads.register_forward_hook(
        lambda _, inputs, output: seen.__setitem__("found", [dict(found) for found in output[0]])
    )
    filter_proposals = model.rpn.filter_proposals

    def filtered(*args):
        seen["proposals"] = filter_proposals(*args)
        return seen["proposals"]

    model.rpn.filter_proposals = filtered
    if model.roi_heads.has_keypoint():
        keep("heatmaps", model.roi_heads.keypoint_predictor)
    with torch.no_grad():
        detections = model(images)
    batch, found = seen["transform"][0], seen["found"]
    out = {"images": channels_last(batch.tensors), "image_sizes": np.array(batch.image_sizes)}
    for level, maps in enumerate(seen["features"].values()):
        out[f"features{level}"] = channels_last(maps)
    for level, (logits, deltas) in enumerate(zip(*seen["rpn"], strict=True)):
        out[f"logits{level}"] = channels_last(logits).reshape(len(images), -1)
        out[f"deltas{level}"] = channels_last(deltas).reshape(len(images), -1, 4)
    out["anchors"] = seen["anchors"][0].numpy()
    for k in range(len(images)):
        out[f"proposals{k}"] = seen["proposals"][0][k].numpy()
        out[f"proposal_scores{k}"] = seen["proposals"][1][k].numpy()
        out[f"boxes{k}"] = detections[k]["boxes"].numpy()
        out[f"scores{k}"] = detections[k]["scores"].numpy()
        out[f"labels{k}"] = detections[k]["labels"].numpy() - 1
        if "masks" in found[k]:
            out[f"masks{k}"] = found[k]["masks"][:, 0].numpy()
        if "keypoints" in found[k]:
            points = detections[k]["keypoints"][..., :2], detections[k]["keypoints_scores"]
            out[f"keypoints{k}"] = torch.cat([points[0], points[1][..., None]], 2).numpy()
            first = sum(len(found[i]["boxes"]) for i in range(k))
            maps = seen["heatmaps"][first : first + len(found[k]["boxes"])]
            out[f"keypoint_margins{k}"] = keypoint_margins(maps, found[k]["boxes"])
    return out


def keypoint_margins(maps, boxes):
    """Return by how much the best pixel of each resized heat map is better than the second."""
    margins = []
    for heatmap, box in zip(maps, boxes, strict=True):
        width, height = (box[2:] - box[:2]).clamp(min=1).ceil().int().tolist()
        resized = F.interpolate(
            heatmap[:, None], (height, width), mode="bicubic", align_corners=False
        )
        best = resized.flatten(1).topk(min(2, height * width)).values
        margins.append(best[:, 0] - best[:, -1])
    return torch.stack(margins).numpy()


def training(case, model, images):
    """Return losses and gradients over all samples, the backbone's batch norm standing still."""
    model.train()
    for module in model.backbone.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    for sampler in (model.rpn.fg_bg_sampler, model.roi_heads.fg_bg_sampler):
        sampler.batch_size_per_image = ALL_SAMPLES
    targets = []
    for k in range(len(images)):
        truth = drawn_objects(case, k)
        targets.append(
            {
                "boxes": torch.from_numpy(truth["boxes"]).to(images[0].dtype),
                "labels": torch.from_numpy(truth["labels"]) + 1,
                "masks": torch.from_numpy(truth["masks"]),
                "keypoints": torch.from_numpy(truth["keypoints"]),
            }
        )
    losses = model(images, targets)
    sum(losses.values()).backward()
    out = {f"loss/{name}": loss.detach().numpy() for name, loss in losses.items()}
    for name, parameter in model.named_parameters():
        out[f"gradient/{name}"] = parameter.grad.numpy()
    return out


def run(case, drawing, dtype):
    """Return the numbers of a case, computed in `dtype`."""
    model, shapes = build(case, drawing, dtype)
    stage = forward if case.objects is None else training
    out = stage(case, model, images_of(case, drawing, dtype))
    return out | {"shapes": np.array(json.dumps(shapes))}


def furthest_gradient(single, double):
    """Return how far float32 is from float64 at the worst tensor, as a part of its norm."""
    errors = [0.0]
    for name, exact in double.items():
        norm = np.linalg.norm(exact) if name.startswith("gradient/") else 0
        if norm > 0:
            errors.append(np.linalg.norm(single[name] - exact) / norm)
    return np.array(max(errors))


def main():
    """Read the command line, run the cases and write a file for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cases", type=Path, help="JSON list of cases")
    parser.add_argument("out", type=Path, help="folder of the files, 0.npz and so on")
    parser.add_argument("--weights-module", type=Path, required=True)
    args = parser.parse_args()
    drawing = load_module(args.weights_module)
    for number, fields in enumerate(json.loads(args.cases.read_text())):
        case = Case(**fields)
        out = run(case, drawing, torch.float32)
        if case.objects is not None:
            out["floor"] = furthest_gradient(out, run(case, drawing, torch.float64))
        np.savez(args.out / f"{number}.npz", **out)


if __name__ == "__main__":
    main()
