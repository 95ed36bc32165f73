"""Train Cascade R-CNN and Faster R-CNN by one recipe, and score boxes at high IoUs.

    python tools/benchmarks/cascade.py faster_rcnn --data BCCD --seed 0 --out cascade.jsonl
    python tools/benchmarks/cascade.py cascade_rcnn --data BCCD --seed 0 --out cascade.jsonl
    python tools/benchmarks/cascade.py --table cascade.jsonl

The recipe is `configs/faster_rcnn_resnet18_fpn_bccd.yaml` for both, steps included; the data are
those of `tools/benchmarks/accuracy.py bccd`, or others with `--classes`. Each run appends a line.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

import rcnn_keras as rk
from rcnn_keras.runs.configuration import Configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.run import build_model, training_batches

sys.path.insert(0, str(Path(__file__).resolve().parent))
from accuracy import StepTimer, configure

ARCHITECTURES = ("faster_rcnn", "cascade_rcnn")
IOUS = (0.5, 0.75, 0.8, 0.9)


def configured(
    architecture: str, data: Path, seed: int, epochs: int | None, changes: list[str]
) -> Configuration:
    """Return the recipe of `accuracy.py` with another architecture."""
    return configure("bccd", data, seed, epochs, [*changes, f"model.architecture={architecture}"])


def train(configuration: Configuration) -> dict:
    """Train, detect in the test images, and return the line of results."""
    dataset, test = read_data(configuration.data)
    model = build_model(configuration, dataset)
    timer = StepTimer()
    epochs = configuration.training.epochs
    model.fit(training_batches(configuration, dataset), epochs=epochs, verbose=2, callbacks=[timer])
    found, inference = {}, []
    for record in test:
        start = time.perf_counter()
        found[record.image_id] = model.detect(record.path)[0]
        inference.append(time.perf_counter() - start)
    return {
        "architecture": configuration.model.architecture,
        "seed": configuration.training.seed,
        "epochs": epochs,
        "parameters": model.count_params(),
        "step_s": round(float(np.median(timer.seconds)), 3),
        "inference_s": round(float(np.median(inference)), 3),
        **score(test, found, model.detection_layer.max_detections),
    }


def score(dataset: rk.data.DetectionDataset, found: dict, max_detections: int) -> dict:
    """Return AP, and AP at each of `IOUS`: the mean over classes."""
    scores = rk.evaluation.CocoScores(dataset, found, max_detections)
    line = {"AP": round(scores.summary()["AP"], 4)}
    for iou in IOUS:
        curves = scores.precision_recall(iou).values()
        line[f"AP{iou * 100:.0f}"] = round(
            float(np.mean([precision.mean() for _, precision in curves])), 4
        )
    return line


def table(path: Path) -> str:
    """Return the Markdown table of a file of results, and the means of each architecture."""
    lines = [json.loads(text) for text in path.read_text("utf-8").splitlines()]
    names = ["AP", *(f"AP{iou * 100:.0f}" for iou in IOUS)]
    rows = [
        f"| | seed | {' | '.join(names)} | a step | an image |",
        "| --- | --- |" + " --- |" * (len(names) + 2),
    ]
    for architecture in ARCHITECTURES:
        own = sorted(
            (line for line in lines if line["architecture"] == architecture),
            key=lambda line: line["seed"],
        )
        if not own:
            continue
        keys = (*names, "step_s", "inference_s")
        mean = {key: np.mean([line[key] for line in own]) for key in keys}
        for line in [*own, {"architecture": architecture, "seed": "mean", **mean}]:
            cells = " | ".join(f"{line[name]:.3f}" for name in names)
            times = f"{line['step_s']:.2f} s | {line['inference_s']:.3f} s"
            rows.append(f"| {architecture} | {line['seed']} | {cells} | {times} |")
    return "\n".join(rows)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("architecture", nargs="?", choices=ARCHITECTURES)
    parser.add_argument("--data", type=Path, help="folder of the data, VOC or COCO")
    parser.add_argument("--classes", help="names with commas between; default those of BCCD")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--set", action="append", default=[], help="change key.sub=value")
    parser.add_argument("--out", type=Path, help="append the line of results to this file")
    parser.add_argument("--table", type=Path, help="print the table of a file of results")
    args = parser.parse_args()
    if args.table:
        print(table(args.table))
        return
    if args.architecture is None or args.data is None:
        parser.error("an architecture and --data are needed")
    changes = list(args.set)
    if args.classes:
        changes.append(f"data.classes={json.dumps(args.classes.split(','))}")
    configuration = configured(args.architecture, args.data, args.seed, args.epochs, changes)
    line = json.dumps(train(configuration))
    print(line)
    if args.out:
        with args.out.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
