"""Train torchvision's Faster R-CNN by the recipe of `compare_torchvision.py`, and score it.

    pip install torch torchvision pycocotools pillow
    python tools/torchvision_baseline.py bccd --data bccd --seed 0 --out torchvision.jsonl

Needs neither TensorFlow nor this package. The data folder has train.json, val.json and test.json
(COCO) with the images beside them or in images/; where there is this package, it makes them from
the published Pascal VOC folder:

    for split in ("train", "val", "test"):
        rk.data.load_voc("BCCD_Dataset/BCCD", split).save_coco(f"bccd/{split}.json")

Every image is resized to one size by Pillow. Each run appends one JSON line. `inference_s` is from
the file to the boxes, `step_s` without reading the images.
"""

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

# The numbers of configs/faster_rcnn_resnet18_fpn_bccd.yaml; a test holds them together.
HEIGHT, WIDTH = 240, 320
ANCHOR_SIZES = ((8,), (16,), (32,), (64,), (128,))
ROIS = 64  # an image
BATCH = 4
RATE, MOMENTUM = 0.01, 0.9
WEIGHT_DECAY = 1e-4  # enters the momentum, which gathers it up to the 1e-3 of Keras' decoupled kind
WARMUP = 100  # step s has (s + 1) / 100 of the rate
DROPS = (2 / 3, 8 / 9)  # of all steps; each leaves a tenth of the rate
EPOCHS = 12


@dataclass
class Example:
    """An image file and its objects: `boxes` xyxy in pixels as resized, `labels` from 1."""

    image_id: int
    path: Path
    scale: tuple  # width and height of the file over those of the resized image
    boxes: list
    labels: list

    def image(self):
        """Return the resized image, `(3, HEIGHT, WIDTH)` float in 0..1."""
        import numpy as np
        import torch
        from PIL import Image

        with Image.open(self.path) as file:
            resized = file.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255

    def flipped(self):
        """Return image and targets for training, mirrored by chance along each axis."""
        import torch

        image, boxes = self.image(), torch.tensor(self.boxes).reshape(-1, 4)
        if torch.rand(()) < 0.5:
            image, boxes = image.flip(2), boxes[:, [2, 1, 0, 3]]
            boxes[:, 0::2] = WIDTH - boxes[:, 0::2]
        if torch.rand(()) < 0.5:
            image, boxes = image.flip(1), boxes[:, [0, 3, 2, 1]]
            boxes[:, 1::2] = HEIGHT - boxes[:, 1::2]
        return image, {"boxes": boxes, "labels": torch.tensor(self.labels, dtype=torch.int64)}


def read_examples(coco, images: Path) -> list[Example]:
    """Return the images of a `pycocotools` COCO object; label i is the i-th category."""
    labels = {id: label for label, id in enumerate(sorted(coco.cats), start=1)}
    examples = []
    for image in coco.imgs.values():
        across, down = image["width"] / WIDTH, image["height"] / HEIGHT
        example = Example(image["id"], images / image["file_name"], (across, down), [], [])
        for item in coco.imgToAnns[image["id"]]:
            if item.get("iscrowd"):
                continue  # neither object nor background to score by; torchvision has no such thing
            x, y, width, height = item["bbox"]
            example.boxes.append([x / across, y / down, (x + width) / across, (y + height) / down])
            example.labels.append(labels[item["category_id"]])
        examples.append(example)
    return examples


def build_model(classes: int):
    """Build the detector from random weights, batch norm trained."""
    from torch import nn
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, norm_layer=nn.BatchNorm2d
    )
    return FasterRCNN(
        backbone,
        num_classes=classes + 1,
        min_size=HEIGHT,
        max_size=WIDTH,
        rpn_anchor_generator=AnchorGenerator(ANCHOR_SIZES, ((0.5, 1.0, 2.0),) * len(ANCHOR_SIZES)),
        box_batch_size_per_image=ROIS,
    )


def rate_factor(step: int, steps: int) -> float:
    """Return the share of the rate that step number `step` (from 0) of `steps` has."""
    return min((step + 1) / WARMUP, 1) * 0.1 ** sum(step >= drop * steps for drop in DROPS)


def train(model, examples: list[Example], epochs: int) -> list[float]:
    """Train in whole batches, in a new order each epoch; return the seconds of each step."""
    import torch

    steps = len(examples) // BATCH * epochs
    optimizer = torch.optim.SGD(
        model.parameters(), lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps))
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
        boxes = (found["boxes"] * torch.tensor(example.scale * 2)).tolist()
        seconds.append(time.perf_counter() - start)
        for (x1, y1, x2, y2), label, score in zip(
            boxes, found["labels"].tolist(), found["scores"].tolist(), strict=True
        ):
            row = {"image_id": example.image_id, "category_id": categories[label - 1]}
            rows.append(row | {"bbox": [x1, y1, x2 - x1, y2 - y1], "score": score})
    return rows, seconds


def score(coco, rows: list) -> dict:
    """Return AP, AP50 and AP by class, as the COCO challenge counts."""
    from pycocotools.cocoeval import COCOeval

    evaluation = COCOeval(coco, coco.loadRes(rows), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = evaluation.eval["precision"][..., 0, -1]  # (thresholds, recalls, classes)

    def mean(values):
        return round(float(values[values > -1].mean()), 4)

    names = [coco.cats[id]["name"] for id in evaluation.params.catIds]
    return {
        "bbox_AP": mean(precision),
        "bbox_AP50": mean(precision[0]),
        "bbox_AP_by_class": {name: mean(precision[:, :, k]) for k, name in enumerate(names)},
    }


def run(name: str, data: Path, seed: int, epochs: int) -> dict:
    """Train on train and val, score on test; return the line of results."""
    import torch
    from pycocotools.coco import COCO

    torch.manual_seed(seed)
    parts = {split: COCO(data / f"{split}.json") for split in ("train", "val", "test")}
    images = data / "images" if (data / "images").is_dir() else data
    examples = {split: read_examples(coco, images) for split, coco in parts.items()}
    categories = sorted(parts["test"].cats)
    model = build_model(len(categories))
    steps = train(model, examples["train"] + examples["val"], epochs)
    rows, seconds = detect(model, examples["test"], categories)
    return {
        "data": name,
        "seed": seed,
        "epochs": epochs,
        "step_s": round(statistics.median(steps), 3),
        "inference_s": round(statistics.median(seconds), 3),
        **score(parts["test"], rows),
    }


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=("bccd",))
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
