"""Train a model of saved_models/ again, and pack it there with its scores.

    python tools/saved_models/train.py blood_cells --data BCCD
    python tools/saved_models/train.py shapes      # draws its own scenes

The recipe is `configs/saved_NAME.yaml`, run as `rcnn train` does; DIR holds the annotation files
that it names (train.json, ..) and their images. The best model of the run becomes float16 in
`saved_models/NAME/`, is loaded again from there, and scored on the images of `data.val`. `--run`
packs and scores a run that is there already.
"""

import argparse
import json
import math
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import yaml

import rcnn_keras as rk
from rcnn_keras.convert.saved_detectors import load_half_precision, save_half_precision
from rcnn_keras.runs.configuration import Configuration, load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.run import train
from rcnn_keras.runs.scoring import evaluate

ROOT = Path(__file__).resolve().parents[2]
LICENCES = {
    "shapes": "Apache-2.0",
    "blood_cells": "MIT",
    "nuclei": "CC0-1.0",
    "playing_cards": "Apache-2.0",
}
# Scenes of each kind: images, (height, width), most shapes in one, seed.
SCENES = {
    "train_small": (500, (128, 128), 6, 1000),
    "train_wide": (250, (144, 192), 9, 1001),
    "train_tall": (250, (192, 144), 9, 1002),
    "train_large": (200, (256, 256), 14, 1003),
    "val_small": (80, (128, 128), 6, 2000),
    "val_wide": (40, (144, 192), 9, 2001),
    "val_large": (40, (256, 256), 14, 2003),
}


def main() -> None:
    """Read the command line, train, pack and score."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=LICENCES)
    parser.add_argument("--data", type=Path, help="folder of the data; not for shapes")
    parser.add_argument("--out", type=Path, help="run folder; default: runs/saved_NAME")
    parser.add_argument("--run", action="store_true", help="pack the run that is in --out")
    args = parser.parse_args()
    if (args.data is None) != (args.name == "shapes"):
        parser.error("shapes draws its own scenes, every other model needs --data")
    out = args.out or Path("runs") / f"saved_{args.name}"
    data = (args.data or out / "data").resolve()
    if args.data is None and not data.exists():
        draw_scenes(data)

    configuration = on_data(ROOT / "configs" / f"saved_{args.name}.yaml", data)
    start = time.perf_counter()
    if not args.run:
        train(configuration, out, overwrite=True)
        print(f"trained in {(time.perf_counter() - start) / 60:.1f} minutes", flush=True)
    scores = publish(args.name, out / "best.keras", configuration)
    for score, value in scores.items():
        print(f"{score:<24}{value:.3f}")


def draw_scenes(folder: Path) -> None:
    """Draw the scenes of each kind into a folder, with an annotation file beside each kind's."""
    for kind, (count, size, most, seed) in SCENES.items():
        print(f"drawing {count} scenes of {size[0]}x{size[1]} into {folder / kind}", flush=True)
        rk.data.draw_shapes(count, size=size, seed=seed, max_shapes=most, out=folder / kind)


def on_data(recipe: Path, folder: Path) -> Configuration:
    """Return a recipe's configuration with its files `data/SET/..` sought in a folder."""
    section = yaml.safe_load(recipe.read_text("utf-8"))["data"]
    changes = []
    for part in ("train", "val"):
        sources = section[part] if isinstance(section[part], list) else [section[part]]
        names = [Path(*Path(source["annotations"]).parts[2:]) for source in sources]
        files = [{"annotations": str(folder / name)} for name in names]
        changes.append(f"data.{part}={json.dumps(files)}")
    return load_configuration(recipe, changes)


def publish(name: str, best: Path, configuration: Configuration) -> dict[str, float]:
    """Pack a trained model, and return the scores of what was saved."""
    folder = ROOT / "saved_models" / name
    known = {"licence": LICENCES[name]}
    save_half_precision(rk.models.from_preset(best), folder, **known, scores={})
    saved = load_half_precision(folder)
    _, val_set = read_data(configuration.data, masks=configuration.trains_masks)
    summary = evaluate(saved, val_set).summary()
    scores = {key: round(value, 4) for key, value in summary.items() if not math.isnan(value)}
    save_half_precision(saved, folder, **known, scores=scores)
    return scores


if __name__ == "__main__":
    main()
