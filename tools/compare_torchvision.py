"""Train by a recipe that torchvision was trained by too, and set the scores side by side.

    git clone https://github.com/Shenggan/BCCD_Dataset
    python tools/compare_torchvision.py bccd --data BCCD_Dataset/BCCD --seed 0 --out ours.jsonl
    python tools/compare_torchvision.py --table ours.jsonl torchvision.jsonl

`bccd` is `configs/faster_rcnn_resnet18_fpn_bccd.yaml`: the numbers stand there. Its data are the
blood cells of https://github.com/Shenggan/BCCD_Dataset (MIT), as published in Pascal VOC form or as
train.json, val.json and test.json (COCO) with the images beside them or in images/. Each run
appends one JSON line; `tools/torchvision_baseline.py` writes torchvision's.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np

import rcnn_keras as rk
from rcnn_keras.training.configuration import Configuration, load_configuration
from rcnn_keras.training.datasets import read_data
from rcnn_keras.training.run import build_model, training_batches

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = {"bccd": CONFIGS / "faster_rcnn_resnet18_fpn_bccd.yaml"}
CLASSES = {"bccd": ["RBC", "WBC", "Platelets"]}


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


def configure(name: str, data: Path, seed: int, epochs: int | None) -> Configuration:
    """Return the recipe for a data folder: trained on train and val, scored on test."""
    data = data.resolve()
    if (data / "train.json").exists():
        form, sources = "coco", [{"annotations": f"{data}/{s}.json"} for s in ("train", "val")]
        test = {"annotations": f"{data}/test.json"}
    else:
        form, sources = "voc", [{"root": str(data), "split": s} for s in ("train", "val")]
        test = {"root": str(data), "split": "test"}
    changes = [
        f"data.format={form}",
        f"data.classes={json.dumps(CLASSES[name])}",
        f"data.train={json.dumps(sources)}",
        f"data.val={json.dumps(test)}",
        f"training.seed={seed}",
    ]
    recipe = load_configuration(RECIPES[name], changes)
    if epochs is None:
        return recipe
    drops = [m * epochs / recipe.training.epochs for m in recipe.schedule.milestones]
    changes += [f"training.epochs={epochs}", f"schedule.milestones={drops}"]
    return load_configuration(RECIPES[name], changes)


def train(name: str, data: Path, seed: int, epochs: int | None, save: Path | None) -> dict:
    """Train by the recipe and return its line of results."""
    configuration = configure(name, data, seed, epochs)
    dataset, test = read_data(configuration.data)
    model = build_model(configuration, dataset)
    epochs = configuration.training.epochs
    timer = StepTimer()
    model.fit(
        training_batches(configuration, dataset),
        epochs=epochs,
        verbose=2,
        callbacks=[rk.callbacks.CocoEvaluation(test, every=max(epochs // 3, 1)), timer],
    )
    found, inference = {}, []
    for record in test:
        start = time.perf_counter()
        found[record.image_id] = model.detect(record.path)[0]
        inference.append(time.perf_counter() - start)
    scores = rk.evaluation.CocoScores(test, found).summary()
    if save is not None:
        model.save(save)
    return {
        "data": name,
        "seed": seed,
        "epochs": epochs,
        "step_s": round(float(np.median(timer.seconds)), 3),
        "inference_s": round(float(np.median(inference)), 3),
        "bbox_AP": round(scores["AP"], 4),
        "bbox_AP50": round(scores["AP50"], 4),
        "bbox_AP_by_class": {c: round(scores[f"AP/{c}"], 4) for c in test.classes},
    }


def table(ours: Path, theirs: Path) -> str:
    """Return a Markdown table of two files of results."""
    rows = []
    for who, path in (("rcnn_keras", ours), ("torchvision", theirs)):
        for text in path.read_text().splitlines():
            rows.append((who, json.loads(text)))
    classes = list(rows[0][1]["bbox_AP_by_class"])
    lines = [f"| | data | seed | AP | AP50 | {' | '.join(classes)} |"]
    lines.append("| --- | --- | --- |" + " --- |" * (len(classes) + 2))
    for who, line in rows:
        by_class = [line["bbox_AP_by_class"][c] for c in classes]
        cells = " | ".join(f"{v:.3f}" for v in (line["bbox_AP"], line["bbox_AP50"], *by_class))
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
    line = json.dumps(train(args.name, args.data, args.seed, args.epochs, args.save))
    print(line)
    if args.out:
        with args.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
