"""What folding batch norm into the convolutions gains in a SavedModel, and what it changes.

    python tools/benchmark_export.py            # Mask R-CNN, ResNet-50-FPN, 800x1216
    python tools/benchmark_export.py --backbone resnet18_fpn --size 480 640

Weights are drawn as `make parity` draws them. Every way runs in turn in one process; times are
medians, differences are from `detect` of the detector as it is.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(Path(__file__).parent / "parity"))

import numpy as np
import tensorflow as tf
from seeded import seeded_image, seeded_tensor

import rcnn_keras as rk
from rcnn_keras.convert.torchvision import detector_slots
from rcnn_keras.export.saved_model import saved_model
from rcnn_keras.export.served import ServedDetector

CLASS_GAIN = 1.0  # scores that differ, so that rounding does not change their order


def main() -> None:
    """Read the command line, and print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="resnet50_fpn")
    parser.add_argument("--size", type=int, nargs=2, default=(800, 1216))
    parser.add_argument("--steps", type=int, default=5)
    args = parser.parse_args()
    model = rk.models.MaskRCNN(
        args.backbone,
        [f"class {number}" for number in range(90)],
        min_size=min(args.size),
        max_size=max(args.size),
    )
    for name, slot in detector_slots(model).items():
        slot.variable.assign(slot.arrange(seeded_tensor(name, slot.shape, class_gain=CLASS_GAIN)))
    image = seeded_image(*args.size)
    expected = model.detect(image)[0]
    ways = {"as it is": tf.function(ServedDetector(model).on_images, autograph=False)}
    with tempfile.TemporaryDirectory() as folder:
        for name, winograd in (("SavedModel", False), ("SavedModel, Winograd", True)):
            start = time.perf_counter()
            path = saved_model(model, Path(folder, name), winograd=winograd)
            megabytes = sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) / 1e6
            print(f"{name}: {time.perf_counter() - start:.1f} s to write, {megabytes:.1f} MB")
            loaded = tf.saved_model.load(path)
            ways[name] = loaded.serving_default
            ways[name].keeps = loaded  # the variables live as long as this
    print(f"{len(expected)} detections, {model.count_params() * 4 / 1e6:.1f} MB of weights")
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    inputs = {"images": tf.constant(image[None])}
    for step in range(args.steps + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            found = {key: value.numpy() for key, value in way(inputs).items()}
            if step:  # the first traces
                seconds[name].append(time.perf_counter() - start)
                continue
            count = int(found["num_detections"][0])
            same = count == len(expected) and np.array_equal(found["labels"][0], expected.labels)
            boxes, scores = (
                np.abs(found[key][0] - getattr(expected, key)).max() if same else np.nan
                for key in ("boxes", "scores")
            )
            print(f"{name}: boxes {boxes:.1e} px, scores {scores:.1e} from detect")
    first = statistics.median(seconds["as it is"])
    for name, times in seconds.items():
        median = statistics.median(times)
        print(f"{name}: {median:.3f} s, {median / first:.2f}")


if __name__ == "__main__":
    main()
