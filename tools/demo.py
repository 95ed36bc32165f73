"""The whole road on drawn images: draw, train, score, save, detect, report.

    python tools/demo.py            # writes runs/demo, a few minutes on two cores

Draws scenes of textured, overlapping shapes with boxes and masks as COCO JSON, trains a small
Mask R-CNN on them, scores it on scenes it has not seen, and writes pictures, curves and
report.html. `make demo` runs it; `configs/mask_rcnn_lite0_shapes.yaml` is its recipe.
"""

import argparse
import json
import os
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import rcnn_keras as rk
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.run import train

CONFIG = Path(__file__).parents[1] / "configs" / "mask_rcnn_lite0_shapes.yaml"


def main() -> None:
    """Read the command line and run the demo."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    parser.add_argument("--train-scenes", type=int, default=380)
    parser.add_argument("--val-scenes", type=int, default=80)
    parser.add_argument("--epochs", type=int, help="default: the recipe's")
    args = parser.parse_args()
    start = time.perf_counter()

    folders = {name: (args.out / "data" / name).resolve() for name in ("train", "val")}
    print(f"Drawing {args.train_scenes} + {args.val_scenes} scenes into {args.out / 'data'}")
    rk.data.draw_shapes(args.train_scenes, size=(128, 128), seed=0, out=folders["train"])
    rk.data.draw_shapes(args.val_scenes, size=(128, 128), seed=1, out=folders["val"])

    changes = [f"data.{name}.annotations={f}/annotations.json" for name, f in folders.items()]
    if args.epochs:
        changes.append(f"training.epochs={args.epochs}")
    train(load_configuration(CONFIG, changes), args.out, overwrite=True)

    scores = json.loads((args.out / "scores.json").read_text("utf-8"))
    minutes = (time.perf_counter() - start) / 60
    print(f"\nOn {args.val_scenes} unseen scenes:")
    for what, kind in (("boxes", ""), ("masks", "mask_")):
        ap, ap50 = (scores[f"{kind}{name}"] for name in ("AP", "AP50"))
        print(f"{what}: AP {ap:.3f}, AP50 {ap50:.3f}")
    print(f"{minutes:.1f} minutes. Open {args.out / 'report.html'}")


if __name__ == "__main__":
    main()
