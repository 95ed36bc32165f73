"""Measure how many images per second the input pipeline delivers.

    python tools/benchmark_data.py
    python tools/benchmark_data.py --json train.json --images images --min-size 240 --max-size 320

Beside each pipeline stands a plain Python loop of Pillow and numpy on one thread: decode, resize,
scale the boxes, pad and stack, without augmentation. Pillow averages over the pixels when it
shrinks, which costs it more than the default of `Batches`.
"""

import argparse
import itertools
import os
import platform
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from rcnn_keras.data.augmentation import color_jitter, compose, flips, scale_jitter
from rcnn_keras.data.batches import Batches
from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import resized_size
from rcnn_keras.data.padding import SIZE_MULTIPLE
from rcnn_keras.data.shapes import draw_shapes

AUGMENTATIONS = {
    "none": None,
    "flips": flips(),
    "all": compose(flips(), scale_jitter(), color_jitter()),
}


def main() -> None:
    """Print one table."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        if options.json:
            dataset = load_coco(options.json, options.images)
        else:
            dataset = draw_jpegs(options.count, tuple(options.drawn_size), Path(folder))
        sizes = {"min_size": options.min_size, "max_size": options.max_size}
        print(machine())
        print(f"{dataset!r}, min_size {options.min_size}, max_size {options.max_size}\n")
        print("| batch size | augment | Batches (images/s) | Pillow loop (images/s) | ratio |")
        print("| ---: | --- | ---: | ---: | ---: |")
        for batch_size, name in itertools.product(options.batch_size, options.augment):
            augment = AUGMENTATIONS[name]
            batches = Batches(dataset, batch_size, shuffle=True, augment=augment, **sizes)
            stream = iter(batches.tf_dataset(repeat=True))
            rate = images_per_second(stream, batch_size, options.seconds)
            del stream  # or its threads would read ahead beside the loop
            loop = images_per_second(
                plain_batches(dataset, batch_size, **sizes), batch_size, options.seconds
            )
            print(f"| {batch_size} | {name} | {rate:.1f} | {loop:.1f} | {rate / loop:.2f} |")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", help="COCO annotations; default: drawn shapes")
    parser.add_argument("--images", help="folder of the images; default: the one of the JSON")
    parser.add_argument("--count", type=int, default=64, help="images to draw")
    parser.add_argument(
        "--drawn-size", type=int, nargs=2, default=(480, 640), metavar=("HEIGHT", "WIDTH")
    )
    parser.add_argument("--min-size", type=int, default=800)
    parser.add_argument("--max-size", type=int, default=1333)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[2, 8])
    parser.add_argument(
        "--augment", nargs="+", choices=list(AUGMENTATIONS), default=list(AUGMENTATIONS)
    )
    parser.add_argument("--seconds", type=float, default=10, help="to measure each number for")
    return parser.parse_args()


def machine() -> str:
    """One line on what the numbers were measured on."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text().splitlines() if cpu_info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {os.cpu_count()} cores, TensorFlow {tf.__version__}"


def draw_jpegs(count: int, size: tuple[int, int], folder: Path) -> DetectionDataset:
    """Draw shapes and store them as photographs are stored."""
    drawn = draw_shapes(count, size=size, out=folder)
    records = []
    for record in drawn:
        path = Path(record.path).with_suffix(".jpg")
        Image.open(record.path).convert("RGB").save(path, quality=90)
        records.append(replace(record, path=str(path)))
    return DetectionDataset(records, drawn.classes, name="drawn shapes")


def plain_batches(
    dataset: DetectionDataset, batch_size: int, min_size: int, max_size: int
) -> Iterator[tuple[dict, dict]]:
    """Yield what `Batches` yields, from one thread of Pillow and numpy, for ever."""
    records = itertools.cycle(dataset)
    while True:
        chosen = list(itertools.islice(records, batch_size))
        sizes = [resized_size(r.height, r.width, min_size, max_size) for r in chosen]
        height, width = -(-np.max(sizes, axis=0) // SIZE_MULTIPLE) * SIZE_MULTIPLE
        images = np.zeros((batch_size, height, width, 3), np.float32)
        boxes = np.zeros((batch_size, dataset.max_objects, 4), np.float32)
        labels = np.full((batch_size, dataset.max_objects), -1, np.int32)
        crowd = np.zeros((batch_size, dataset.max_objects), bool)
        for i, (record, (h, w)) in enumerate(zip(chosen, sizes, strict=True)):
            image = Image.open(record.path).convert("RGB")
            images[i, :h, :w] = image.resize((w, h), Image.Resampling.BILINEAR)
            n = len(record)
            boxes[i, :n] = record.boxes * np.tile([w / record.width, h / record.height], 2)
            labels[i, :n], crowd[i, :n] = record.labels, record.crowd
        ids = np.array([record.image_id for record in chosen])
        inputs = {"images": images, "image_sizes": np.array(sizes, np.int32), "image_ids": ids}
        yield inputs, {"boxes": boxes, "labels": labels, "crowd": crowd}


def images_per_second(stream: Iterator, batch_size: int, seconds: float) -> float:
    """Read batches for some seconds, after one that starts the threads."""
    next(stream)
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(stream)
        images += batch_size
    return images / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
