"""Train one detector jointly and by the paper's four alternating steps, and compare their AP.

    python tools/benchmarks/alternating_training.py        # drawn shapes, as many steps of both
    python tools/benchmarks/alternating_training.py --set model.backbone=zf \\
        --set "model.anchor_sizes=[[16, 32, 64, 128]]"
    python tools/benchmarks/alternating_training.py --train bccd/train.json --val bccd/test.json \\
        --config configs/faster_rcnn_resnet18_fpn_bccd.yaml

Both start from the same random weights, take the same recipe and are scored once, after the last
epoch. The epochs of the alternating training are those of each of its steps: 1 and 3 train the RPN,
2 and 4 the second stage, and 3 and 4 are the cheaper ones, as the convolutions are frozen.
"""

import argparse
import csv
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import rcnn_keras as rk
from rcnn_keras.runs.configuration import Configuration, load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.run import train, training_batches

CONFIGS = Path(__file__).parents[2] / "configs"
SHAPES = CONFIGS / "faster_rcnn_resnet18_fpn_shapes.yaml"
SCENES = {"train": (380, 0), "val": (80, 1)}  # how many, and the seed


def main() -> None:
    """Read the command line, train twice and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=Path, help="COCO file to train on; default: drawn shapes")
    parser.add_argument("--val", type=Path, help="COCO file to score on")
    parser.add_argument("--config", type=Path, default=SHAPES)
    parser.add_argument("--epochs", type=int, default=12, help="of joint training")
    parser.add_argument("--rpn-epochs", type=int, default=3, help="of steps 1 and 3")
    parser.add_argument("--detector-epochs", type=int, default=3, help="of steps 2 and 4")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes")
    parser.add_argument("--out", type=Path, default=Path("runs/compare_training"))
    args = parser.parse_args()
    if (args.train is None) != (args.val is None):
        parser.error("--train and --val go together")

    files = {"train": args.train, "val": args.val} if args.train else drawn(args.out / "data")
    changes = [f"data.{part}.annotations={path.resolve()}" for part, path in files.items()]
    changes += [f"training.seed={args.seed}", *args.changes]
    rows = []
    for name, configuration in both(
        args.config, changes, args.epochs, args.rpn_epochs, args.detector_epochs
    ).items():
        start = time.perf_counter()
        train(configuration, args.out / name, overwrite=True)
        minutes = (time.perf_counter() - start) / 60
        rows.append((name, *result(configuration, args.out / name), minutes))
    print(f"\n{table(rows)}")


def drawn(folder: Path) -> dict[str, Path]:
    """Draw scenes of 128x128 pixels to train and to score on."""
    for part, (count, seed) in SCENES.items():
        rk.data.draw_shapes(count, size=(128, 128), seed=seed, out=folder / part)
    return {part: folder / part / "annotations.json" for part in SCENES}


def both(
    config: Path, changes: list[str], epochs: int, rpn_epochs: int, detector_epochs: int
) -> dict[str, Configuration]:
    """Return the configurations of joint and of alternating training, scored once.

    The rate drops at the same share of each training as in the recipe.
    """
    recipe = load_configuration(config, changes)
    milestones = getattr(recipe.schedule, "milestones", ())
    changes = [*changes, "training.checkpoint=null", "training.early_stopping_patience=null"]

    def lasting(count: int, *more: str) -> Configuration:
        moved = [epoch * count / recipe.training.epochs for epoch in milestones]
        drops = [f"schedule.milestones={moved}"] if moved else []
        return load_configuration(config, [*changes, f"training.epochs={count}", *drops, *more])

    steps = f"training.alternating={{detector_epochs: {detector_epochs}}}"
    return {
        "joint": lasting(epochs, f"training.evaluate_every={epochs}"),
        "alternating": lasting(rpn_epochs, "training.evaluate_every=1", steps),
    }


def result(configuration: Configuration, run: Path) -> tuple[float, float, int]:
    """Return AP, AP50 and the number of steps of a finished run."""
    scores = json.loads((run / "scores.json").read_text("utf-8"))
    with (run / "history.csv").open(newline="", encoding="utf-8") as file:
        epochs = len(list(csv.DictReader(file)))
    train_set, _ = read_data(configuration.data, masks=configuration.trains_masks)
    return scores["AP"], scores["AP50"], epochs * len(training_batches(configuration, train_set))


def table(rows: list[tuple[str, float, float, int, float]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| training | AP | AP50 | steps | minutes |", "| --- " * 5 + "|"]
    for name, ap, ap50, steps, minutes in rows:
        lines.append(f"| {name} | {ap:.3f} | {ap50:.3f} | {steps:,} | {minutes:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
