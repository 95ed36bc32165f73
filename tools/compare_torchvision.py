"""Train by a recipe that torchvision was trained by too, and set the scores side by side.

    python tools/compare_torchvision.py bccd --data ../shared/data/bccd --seed 0 --out ours.jsonl
    python tools/compare_torchvision.py --table ours.jsonl torchvision.jsonl

The recipe: ResNet-18-FPN from random weights with trained batch norm, every image resized to one
size, both flips, batches of 4, 64 RoIs an image, SGD 0.01 with momentum 0.9, 100 steps of warm-up,
a tenth of the rate after 2/3 and a hundredth after 8/9 of the steps. Torch's weight decay of 1e-4
enters the momentum and acts as 1e-3 of Keras' decoupled kind. Each run appends one JSON line.
"""

import argparse
import json
import time
from pathlib import Path

import keras
import numpy as np

import rcnn_keras as rk
from rcnn_keras.training.optimizers import build_optimizer
from rcnn_keras.training.schedules import LinearWarmup, StepDecay

RECIPES = {
    "bccd": {
        "anchors": (8, 16, 32, 64, 128),
        "min_size": 240,
        "max_size": 320,
        "train": ("train", "val"),
        "score": "test",
        "epochs": 12,
        "detections": 100,
    },
}


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


def train(name: str, data: Path, seed: int, epochs: int | None, save: Path | None) -> dict:
    """Train by the recipe and return its line of results."""
    recipe = RECIPES[name]
    epochs = epochs or recipe["epochs"]
    keras.utils.set_random_seed(seed)
    images = data / "images"
    parts = [rk.data.load_coco(data / f"{s}.json", images=images) for s in recipe["train"]]
    dataset = sum(parts[1:], parts[0])
    test = rk.data.load_coco(data / f"{recipe['score']}.json", images=images)

    model = rk.models.FasterRCNN(
        "resnet18_fpn",
        dataset.classes,
        min_size=recipe["min_size"],
        max_size=recipe["max_size"],
        antialias=True,
        anchor_sizes=tuple((size,) for size in recipe["anchors"]),
        box_batch_size_per_image=64,
        box_detections_per_img=recipe["detections"],
        seed=seed,
    )
    batches = dataset.batches(4, shuffle=True, augment=rk.data.flips(True, True), seed=seed)
    total = len(dataset) // 4 * epochs
    drops = [-(-total * 2 // 3), -(-total * 8 // 9)]
    rate = LinearWarmup(StepDecay(0.01, drops), 99, 0.01)
    model.compile(build_optimizer("sgd", model, rate, momentum=0.9, weight_decay=1e-3))
    timer = StepTimer()
    model.fit(
        batches,
        steps_per_epoch=len(dataset) // 4,
        epochs=epochs,
        verbose=2,
        callbacks=[rk.callbacks.CocoEvaluation(test, every=max(epochs // 3, 1)), timer],
    )
    found, inference = {}, []
    for record in test:
        start = time.perf_counter()
        found[record.image_id] = model.detect(record.path)[0]
        inference.append(time.perf_counter() - start)
    scores = rk.evaluation.CocoScores(test, found, recipe["detections"]).summary()
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
        values = [line["bbox_AP"], line["bbox_AP50"], *line["bbox_AP_by_class"].values()]
        cells = " | ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {who} | {line['data']} | {line['seed']} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", choices=RECIPES)
    parser.add_argument("--data", type=Path, help="folder with train.json .. and images/")
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
