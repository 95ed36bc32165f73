"""Measure how many images per second the input pipeline delivers, from files and from records.

    python tools/benchmarks/input_pipeline.py
    python tools/benchmarks/input_pipeline.py --json train.json --images images --sizes 240x320
    python tools/benchmarks/input_pipeline.py --masks --sizes 512x512 800x1216 --step

Beside each pipeline stands a plain Python loop of Pillow and numpy on one thread: decode, resize,
scale the boxes, pad and stack, without augmentation. Pillow averages over the pixels when it
shrinks, which costs it more than the default of `Batches`. With `--masks` the pipeline
carries masks, and the loop does not.

`--step` also times the training step of a ResNet-50-FPN at each size, Mask R-CNN with `--masks`, in
the same process and with all cores, batch size 2. What two training processes need is twice its
images a second; the last column is how many times that the pipeline gives, with as many cores.
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

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from rcnn_keras.data.augmentation import ColorJitter, Compose, RandomFlip, ScaleJitter
from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import resized_size
from rcnn_keras.data.pipeline import SIZE_MULTIPLE, Batches
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.data.tfrecord import save_tfrecord
from rcnn_keras.models import FasterRCNN, MaskRCNN

STEP_BATCH, STEPS = 2, 3
AUGMENTATIONS = {
    "none": None,
    "flips": RandomFlip(),
    "all": Compose(RandomFlip(), ScaleJitter(), ColorJitter()),
}


def main() -> None:
    """Print one table."""
    options = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        if options.json:
            dataset = load_coco(options.json, options.images)
        else:
            dataset = draw_jpegs(options.count, tuple(options.drawn_size), Path(folder))
        print(f"{machine()}\n{dataset!r}")
        sources = [dataset, save_tfrecord(dataset, Path(folder, "records"))]
        for size in options.sizes:
            measure(sources, size, options)


def measure(
    sources: list[DetectionDataset], size: tuple[int, int], options: argparse.Namespace
) -> None:
    """Print the table of one size, from image files and from record files."""
    sizes = dict(zip(("min_size", "max_size"), size, strict=True))
    needed = None
    if options.step:
        needed = 2 * step_rate(sources[0], sizes, options)
        print(f"\nTwo training processes at {size[0]}x{size[1]} need {needed:.2f} images/s")
    columns = ("batch size", "augment", "files, images/s", "records, images/s", "Pillow, images/s")
    print(f"\n| {size[0]}x{size[1]}: {' | '.join(columns)} | files / Pillow | times the need |")
    print("| ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for batch_size, name in itertools.product(options.batch_size, options.augment):
        more = {"augment": AUGMENTATIONS[name], "masks": options.masks}
        rates = []
        for dataset in sources:
            batches = Batches(dataset, batch_size, shuffle=True, **more, **sizes)
            stream = iter(batches.tf_dataset(repeat=True))
            rates.append(images_per_second(stream, batch_size, options.seconds))
            del stream  # or its threads would read ahead beside what is measured next
        plain = plain_batches(sources[0], batch_size, **sizes)
        loop = images_per_second(plain, batch_size, options.seconds)
        cells = f"{batch_size} | {name} | {rates[0]:.1f} | {rates[1]:.1f} | {loop:.1f}"
        times = f"{min(rates) / needed:.1f}" if needed else ""
        print(f"| {cells} | {rates[0] / loop:.2f} | {times} |", flush=True)


def step_rate(
    dataset: DetectionDataset, sizes: dict[str, int], options: argparse.Namespace
) -> float:
    """Return the images a second that a training step takes in, its data in memory."""
    architecture = MaskRCNN if options.masks else FasterRCNN
    model = architecture("resnet50_fpn", dataset.classes, **sizes)
    model.compile(keras.optimizers.SGD(1e-5))
    batch = next(iter(Batches(dataset, STEP_BATCH, masks=options.masks, **sizes)))
    step = tf.function(model.train_step)
    step(batch)
    seconds = []
    for _ in range(STEPS):
        start = time.perf_counter()
        step(batch)
        seconds.append(time.perf_counter() - start)
    return STEP_BATCH / float(np.median(seconds))


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
    parser.add_argument(
        "--sizes",
        type=size_of,
        nargs="+",
        default=[(512, 512), (800, 1216)],
        help="MINxMAX, least pixels of the shorter side and most of the longer one",
    )
    parser.add_argument("--masks", action="store_true", help="carry masks")
    parser.add_argument("--step", action="store_true", help="time training steps too")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[2, 8])
    parser.add_argument(
        "--augment", nargs="+", choices=list(AUGMENTATIONS), default=list(AUGMENTATIONS)
    )
    parser.add_argument("--seconds", type=float, default=10, help="to measure each number for")
    return parser.parse_args()


def size_of(text: str) -> tuple[int, int]:
    """Read `512x640`."""
    shorter, _, longer = text.partition("x")
    return int(shorter), int(longer)


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
