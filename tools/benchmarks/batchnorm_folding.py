"""What folding batch norm into the convolutions gains in a SavedModel, and what it changes.

    python tools/benchmarks/batchnorm_folding.py            # Mask R-CNN, ResNet-50-FPN, 800x1216
    python tools/benchmarks/batchnorm_folding.py --backbone resnet18_fpn --size 480 640
    python tools/benchmarks/batchnorm_folding.py --model runs/demo/best.keras \\
        --images runs/demo/data/val

The graphs of `serving_default` run in turn in one process; medians of the process's CPU seconds,
which other programs disturb less than time on the clock. Without a model, weights are drawn as
`make parity` draws them; with one, also the largest differences from `detect`.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parents[1] / "parity"))

import keras
import numpy as np
import tensorflow as tf
from seeded import seeded_image, seeded_tensor

import rcnn_keras as rk
from rcnn_keras.convert.torchvision import detector_targets
from rcnn_keras.export.preparation import folded
from rcnn_keras.export.served_detector import ServedDetector


def main() -> None:
    """Read the command line, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50_fpn")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216))
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--model", type=Path, help="a .keras file, in place of drawn weights")
    parser.add_argument("--images", type=Path, help="folder of PNG files, with --model")
    args = parser.parse_args()
    if args.model:
        model = keras.models.load_model(args.model, compile=False)
        images = [rk.data.read_image(path) for path in sorted(args.images.glob("*.png"))]
        images = images[: args.steps + 1]
    else:
        model = drawn(args.backbone, args.size)
        images = [seeded_image(*args.size)] * (args.steps + 1)
    ways = {
        "as it is": model,
        "folded": folded(model),
        "folded, Winograd": folded(model, winograd=True),
    }
    runs = {
        name: tf.function(
            ServedDetector(detector).on_images, autograph=False, reduce_retracing=True
        )
        for name, detector in ways.items()
    }
    expected = model.detect(images) if args.model else None
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    differences: dict[str, list[float]] = {name: [] for name in ways}
    for number, image in enumerate(images):
        for name, run in runs.items():
            start = time.process_time()
            found = {key: value.numpy() for key, value in run({"images": image[None]}).items()}
            if number:  # the first traces
                seconds[name].append(time.process_time() - start)
            if expected:
                differences[name].append(difference(found, expected[number]))
    first = statistics.median(seconds["as it is"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name}: {median:.3f} s, {median / first:.2f}", end="")
        print(f", boxes within {max(differences[name]):.1e} px" if expected else "")


def drawn(backbone: str, size: tuple[int, int]) -> rk.models.MaskRCNN:
    """Return a Mask R-CNN of 90 classes for images of this size."""
    classes = [f"class {number}" for number in range(90)]
    model = rk.models.MaskRCNN(backbone, classes, min_size=min(size), max_size=max(size))
    for name, slot in detector_targets(model).items():
        slot.variable.assign(slot.arrange(seeded_tensor(name, slot.shape)))
    return model


def difference(found: dict[str, np.ndarray], expected: rk.Detections) -> float:
    """Return by how many pixels the boxes differ at the most, infinity for other detections."""
    count = int(found["num_detections"][0])
    if not np.array_equal(found["labels"][0][:count], expected.labels):
        return float("inf")
    return float(np.abs(found["boxes"][0][:count] - expected.boxes).max(initial=0))


if __name__ == "__main__":
    main()
