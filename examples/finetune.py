"""Fine-tune a trained detector on few labelled images, and train the same from random weights.

    python examples/finetune.py        # a few minutes on two cores; after `make demo`
    python examples/finetune.py --data nuclei/train.json --val nuclei/val.json

The detector is that of the demo, `runs/demo/best.keras`; without it, the demo runs first. By
default the images are another kind of drawn scenes, negatives, with two classes that the detector
does not know: round and angular. The recipe is `configs/mask_rcnn_finetune.yaml`. From
random weights the same network trains as long on the same images, with nothing frozen and a higher
rate. Both are scored once, after the last epoch.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image, ImageOps

import rcnn_keras as rk
from rcnn_keras.presets import preset_arguments
from rcnn_keras.runs.configuration import Configuration, load_configuration
from rcnn_keras.runs.run import train
from rcnn_keras.runs.schema import NO_KEYS

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "configs" / "mask_rcnn_finetune.yaml"
SHAPES = ("round", "angular")
RANDOM_RATE = 0.001  # of the demo's recipe, which trains from random weights too
SCORES = ("AP", "AP50", "mask_AP", "mask_AP50")


def main() -> None:
    """Read the command line, train twice and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", type=Path, default=Path("runs/demo/best.keras"))
    parser.add_argument("--data", type=Path, help="COCO file to train on; default: drawn scenes")
    parser.add_argument("--val", type=Path, help="COCO file to score on")
    parser.add_argument("--images", type=int, default=60, help="images to train on")
    parser.add_argument("--val-images", type=int, default=80, help="at most, to score on")
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random-rate", type=float, default=RANDOM_RATE)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune"))
    args = parser.parse_args()
    if (args.data is None) != (args.val is None):
        parser.error("--data and --val go together")

    if not args.detector.exists():
        print(f"{args.detector} is not there: training it by the demo first", flush=True)
        demo = [sys.executable, str(ROOT / "tools" / "demo.py"), "--out", str(args.detector.parent)]
        subprocess.run(demo, check=True)
    sources = {"train": (args.data, args.images), "val": (args.val, args.val_images)}
    changes = [f"training.seed={args.seed}", *args.changes]
    for seed, (part, (file, count)) in enumerate(sources.items()):
        folder = (args.out / "data" / part).resolve()
        dataset = some_of(file, count, args.seed) if file else negatives(count, seed, folder)
        folder.mkdir(parents=True, exist_ok=True)
        dataset.save_coco(folder / "annotations.json")
        changes.append(f"data.{part}.annotations={folder / 'annotations.json'}")
        print(f"{part}: {dataset}", flush=True)

    rows = []
    for name, configuration in both(args.detector, changes, args.epochs, args.random_rate).items():
        start = time.perf_counter()
        train(configuration, args.out / name, overwrite=True)
        minutes = (time.perf_counter() - start) / 60
        scores = json.loads((args.out / name / "scores.json").read_text("utf-8"))
        rows.append((name, configuration.training.epochs, minutes, scores))
    print(f"\n{table(rows)}")


def both(
    detector: Path, changes: list[str], epochs: int | None, random_rate: float
) -> dict[str, Configuration]:
    """Return the configurations of fine-tuning and of the same network from random weights."""
    epochs = epochs or load_configuration(CONFIG).training.epochs
    changes = [*changes, f"training.epochs={epochs}", f"training.evaluate_every={epochs}"]
    network = preset_arguments(str(detector)) | {"backbone_weights": None, "norm": "batch"}
    keys = [name for name in network if name not in NO_KEYS]
    new = [f"model.{name}={json.dumps(network[name])}" for name in keys]
    new += ["model.preset=null", *changes, "model.frozen_stages=0"]
    new.append(f"optimizer.learning_rate={random_rate}")
    return {
        "finetuned": load_configuration(CONFIG, [f"model.preset={detector.resolve()}", *changes]),
        "random": load_configuration(CONFIG, new),
    }


def negatives(count: int, seed: int, folder: Path) -> rk.data.DetectionDataset:
    """Draw scenes as negatives, with circles as round and all other shapes as angular."""
    drawn = rk.data.draw_shapes(count, size=(128, 128), seed=seed + 100, out=folder)
    label = np.array([int(name != "circle") for name in drawn.classes], np.int32)
    for record in drawn:
        with Image.open(record.path) as picture:
            ImageOps.invert(picture.convert("RGB")).save(record.path)
    records = [replace(record, labels=label[record.labels]) for record in drawn]
    return rk.data.DetectionDataset(records, SHAPES, name="negatives")


def some_of(file: Path, count: int, seed: int) -> rk.data.DetectionDataset:
    """Return `count` images of a COCO file, drawn at random."""
    dataset = rk.data.load_coco(file)
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:count]
    return rk.data.DetectionDataset(
        [dataset[i] for i in sorted(chosen)],
        dataset.classes,
        category_ids=dataset.category_ids,
        name=dataset.name,
    )


def table(rows: list[tuple]) -> str:
    """Return the scores as a Markdown table."""
    names = {"finetuned": "fine-tuned", "random": "from random weights"}
    lines = ["| | epochs | minutes | AP | AP50 | mask AP | mask AP50 |", "| --- " * 7 + "|"]
    for name, epochs, minutes, scores in rows:
        cells = [f"{scores[score]:.3f}" for score in SCORES]
        cells = [names[name], str(epochs), f"{minutes:.1f}", *cells]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
