"""What each part of the recipe for small data gains, and how AP grows with the number of images.

    python tools/benchmarks/finetuning.py parts --data DIR/bccd DIR/cards --seeds 0 1 --out RUNS
    python tools/benchmarks/finetuning.py images --data DIR/bccd --counts 10 30 100 300 --out RUNS

`parts` trains by the configuration that `rcnn init` writes, then with one part changed at a time.
`images` trains by it on the first COUNT of the training images in the order of their names' hashes,
from ImageNet weights and from random ones. DIR/NAME has COCO files of its splits; those that `rcnn
init` does not take for training (`test` where there is one, else `val`) are scored. Every run has a
folder in RUNS; those that are finished are not trained again, so a stopped measurement goes on.
"""

import argparse
import json
import time
from pathlib import Path

import rcnn_keras as rk
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.recipe import find_sources, recipe
from rcnn_keras.runs.run import train

RANDOM = ["model.backbone_weights=null", "model.norm=batch", "optimizer.backbone_rate=1"]
PARTS = {
    "the recipe": [],
    "random weights": RANDOM,
    "backbone at the whole rate": ["optimizer.backbone_rate=1"],
    "a rate for each stage (0.7)": ["optimizer.layer_decay=0.7"],
    "two frozen stages": ["model.frozen_stages=2"],
    "trained batch norm": ["model.norm=batch"],
    "stochastic depth 0.2": ["model.stochastic_depth=0.2"],
    "256 channels in the pyramid": ["model.fpn_channels=256"],
    "no warm-up": ["schedule.warmup_steps=0"],
    "a constant rate": ["schedule.name=constant"],
    "moving average (0.99)": ["optimizer.ema_momentum=0.99"],
    "no ScaleJitter": ['data.augment=[{"RandomFlip": {"horizontal": true}}]'],
}


def splits(folder: Path) -> tuple[list[Path], Path]:
    """Return the files of a dataset to train on and the one to score."""
    test = folder / "test.json"
    if test.exists():
        return [folder / "train.json", folder / "val.json"], test
    return [folder / "train.json"], folder / "val.json"


def run(
    folder: Path, out: Path, changes: list[str], seed: int, images: int | None = None
) -> dict[str, float]:
    """Train by the recipe with some changes, unless that was done, and return the scores."""
    scores = out / "scores.json"
    if not scores.exists():
        files, test = splits(folder)
        data = sum((rk.data.load_coco(f) for f in files[1:]), start=rk.data.load_coco(files[0]))
        if images is not None and images < len(data):
            data = data.split(images / len(data))[0]
        out.mkdir(parents=True, exist_ok=True)
        data.save_coco(out / "train_images.json")
        sources = find_sources(out / "train_images.json", test)
        config = out / "recipe.yaml"
        config.write_text(recipe(data, sources, config), "utf-8")
        settings = [*changes, f"training.seed={seed}", "data.check_images=false"]
        start = time.perf_counter()
        train(load_configuration(config, settings), out / "run", overwrite=True)
        found = json.loads((out / "run" / "scores.json").read_text("utf-8"))
        found["minutes"] = (time.perf_counter() - start) / 60
        scores.write_text(json.dumps(found), "utf-8")
    return json.loads(scores.read_text("utf-8"))


def cell(scores: list[dict[str, float]], mask: bool) -> str:
    """Return the mean AP of some seeds with their spread, in percent."""
    values = [100 * found["mask_AP" if mask else "AP"] for found in scores]
    mean = sum(values) / len(values)
    return f"{mean:.1f}" + (f" ± {(max(values) - min(values)) / 2:.1f}" if len(values) > 1 else "")


def main() -> None:
    """Read the command line, train what is missing, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["parts", "images"])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--only", nargs="+", choices=PARTS, help="parts; default: all")
    parser.add_argument("--counts", type=int, nargs="+", default=[10, 30, 100, 300])
    args = parser.parse_args()
    rows: dict[str, list[str]] = {}
    if args.what == "parts":
        columns = [folder.name for folder in args.data]
        cases = {name: [(name, PARTS[name], f, None) for f in args.data] for name in PARTS}
        cases = {name: cases[name] for name in args.only or PARTS}
    else:
        columns = ["random weights", "ImageNet weights"]
        cases = {
            f"{folder.name}, {count} images": [
                (f"{count} images, {start}", changes, folder, count)
                for start, changes in (("random", RANDOM), ("ImageNet", []))
            ]
            for folder in args.data
            for count in args.counts
        }
    for row, columns_of_row in cases.items():
        rows[row] = []
        for name, changes, folder, count in columns_of_row:
            found = []
            for seed in args.seeds:
                place = args.out / folder.name / name.replace(" ", "_") / f"seed_{seed}"
                found.append(run(folder, place, changes, seed, count))
            rows[row].append(cell(found, "mask_AP" in found[0]))
            minutes = ", ".join(f"{scores['minutes']:.1f}" for scores in found)
            print(f"{folder.name}, {name}: {rows[row][-1]} ({minutes} minutes)", flush=True)
    print(f"\n| | {' | '.join(columns)} |\n| --- |{' --- |' * len(columns)}")
    for row, cells in rows.items():
        print(f"| {row} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
