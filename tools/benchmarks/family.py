"""Put the whole family side by side: all four on drawn shapes, the three of boxes on a data set.

    python tools/benchmarks/family.py --out runs/family
    python tools/benchmarks/family.py --train bccd/train.json --val bccd/test.json
    python tools/benchmarks/family.py --out runs/family --only-timing

Mask R-CNN needs masks, which drawn shapes have. A stopped comparison goes on. The pages are
OUT/family.html and OUT/family.md; docs/design/family.md draws the conclusions.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import rcnn_keras as rk
from rcnn_keras.comparison import Settings, compare, use_threads, write_pages

SCENES = {"train": 0, "val": 1}  # and their seeds


def main() -> None:
    """Read the command line, compare, and write the page of all data sets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/family"))
    parser.add_argument("--train", type=Path, help="COCO file of boxes to train on as well")
    parser.add_argument("--val", type=Path, help="COCO file to score on")
    parser.add_argument("--train-count", type=int, default=100, help="images of --train")
    parser.add_argument("--val-count", type=int, default=36, help="images of --val")
    parser.add_argument("--scenes", type=int, default=200, help="drawn to train on")
    parser.add_argument("--val-scenes", type=int, default=60, help="drawn to score on")
    parser.add_argument("--side", type=int, default=128, help="of a scene in pixels")
    parser.add_argument("--min-size", type=int, default=240, help="of the images of --train")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=500, help="of R-CNN's fine-tuning")
    parser.add_argument("--vgg16-images", type=int, default=1)
    parser.add_argument("--only-timing", action="store_true", help="measure the times again")
    args = parser.parse_args()
    if (args.train is None) != (args.val is None):
        parser.error("--train and --val go together")

    use_threads(2)
    common = {"epochs": args.epochs, "steps": args.steps}
    data = drawn(args.out / "shapes", args.scenes, args.val_scenes, args.side)
    # The papers' network is timed on images of the usual size, where there are some.
    vgg16 = {"vgg16_images": 0 if args.train else args.vgg16_images}
    runs = {"shapes": Settings(**data, **common, **vgg16, min_size=args.side)}
    if args.train:
        counts = args.train_count, args.val_count
        data = thinned(args.out / "boxes", args.train, args.val, *counts)
        vgg16 = {"vgg16_images": args.vgg16_images}
        runs["boxes"] = Settings(**data, **common, **vgg16, min_size=args.min_size)
    for name, settings in runs.items():
        compare(settings, args.out / name / "compared", only_timing=args.only_timing)
    print(pages(args, list(runs)))


def drawn(folder: Path, scenes: int, val_scenes: int, side: int) -> dict[str, Path]:
    """Draw scenes to train and to score on; return their files."""
    for (part, seed), count in zip(SCENES.items(), (scenes, val_scenes), strict=True):
        rk.data.draw_shapes(count, size=(side, side), seed=seed, out=folder / part)
    train, val = (folder / part / "annotations.json" for part in SCENES)
    return {"data": train, "val": val}


def thinned(
    folder: Path, train: Path, val: Path, train_count: int, val_count: int
) -> dict[str, Path]:
    """Write COCO files with some of the images, evenly over each; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source, count in (("train", train, train_count), ("val", val, val_count)):
        dataset = rk.data.load_coco(source)
        count = min(count, len(dataset))
        records = [dataset[i * len(dataset) // count] for i in range(count)]
        rk.data.DetectionDataset(records, dataset.classes, name=source.parent.name).save_coco(
            folder / f"{name}.json"
        )
    return {"data": folder / "train.json", "val": folder / "val.json"}


def pages(args: argparse.Namespace, names: list[str]) -> Path:
    """Write one page of all data sets."""
    studies = {}
    for name in names:
        study = json.loads((args.out / name / "compared" / "study.json").read_text("utf-8"))
        links = [f"{name}/compared/{picture}" for picture in study["pictures"]]
        studies[name] = study | {"pictures": links, "command": ""}
    studies["shapes"]["data"]["name"] = "drawn shapes"
    if "boxes" in studies:
        studies["boxes"]["data"]["name"] = f"{args.train.parent.name}, boxes alone"
    studies[names[-1]]["command"] = command(args)
    return write_pages(args.out, list(studies.values()))


def command(args: argparse.Namespace) -> str:
    """Return what makes the page again, with the last two parts of each path."""
    words = ["python tools/benchmarks/family.py --out runs/family", f"--epochs {args.epochs}"]
    if args.train:
        for name, path in (("train", args.train), ("val", args.val)):
            words.append(f"--{name} {path.parent.name}/{path.name}")
        words.append(f"--train-count {args.train_count} --val-count {args.val_count}")
    return " ".join(words)


if __name__ == "__main__":
    main()
