"""Time and memory of loading an annotation file of COCO's size.

    python tools/benchmarks/annotation_loading.py
    python tools/benchmarks/annotation_loading.py --scale 0.1 0.2 1

At scale 1 the file is like COCO's `instances_train2017.json`: 118,000 images, 860,000 objects of 80
classes with polygons of 20 to 30 points. The images are links to a JPEG file or two, as `load_coco`
reads the header of each. Each file is loaded in a process of its own; memory is what it takes
beyond the imports, at its peak and once the dataset stands.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, OBJECTS, CLASSES = 118_000, 860_000, 80
SIZE = (480, 640)
MOST_LINKS = 50_000  # to one file; ext4 has 65,000
POOL = 5000  # different objects; the file is text, and all of it is parsed


def generate(folder: Path, scale: float) -> Path:
    """Write images and annotations into a folder, and return the file."""
    images, objects = round(IMAGES * scale), round(OBJECTS * scale)
    draw = np.random.default_rng(0)
    noise = draw.integers(0, 256, (*SIZE, 3), np.uint8)
    pool = [an_object(draw) for _ in range(POOL)]
    path = folder / "annotations.json"
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"images": [')
        for i in range(images):
            name = f"{i:012}.jpg"
            if i % MOST_LINKS == 0:
                first = folder / name
                Image.fromarray(noise).save(first)
            else:
                os.link(first, folder / name)
            sizes = f'"height": {SIZE[0]}, "width": {SIZE[1]}'
            file.write(f'{", " * (i > 0)}{{"id": {i + 1}, "file_name": "{name}", {sizes}}}')
        file.write('], "annotations": [')
        of = np.sort(draw.integers(1, images + 1, objects)).tolist()
        chosen = draw.integers(0, POOL, objects).tolist()
        labels = draw.integers(1, CLASSES + 1, objects).tolist()
        for i, (image, entry, label) in enumerate(zip(of, chosen, labels, strict=True)):
            ids = f'"id": {i + 1}, "image_id": {image}, "category_id": {label}'
            file.write(f"{', ' * (i > 0)}{{{ids}, {pool[entry]}}}")
        names = [{"id": k + 1, "name": f"class {k + 1}"} for k in range(CLASSES)]
        file.write(f'], "categories": {json.dumps(names)}}}')
    return path


def an_object(draw: np.random.Generator) -> str:
    """Return the rest of an annotation: an ellipse as a polygon, its box and its area."""
    half = np.exp(draw.uniform(np.log(4), np.log(120), 2))
    centre = half + draw.uniform(0, 1, 2) * (np.array(SIZE[::-1]) - 2 * half)
    angle = np.linspace(0, 2 * np.pi, draw.integers(20, 31), endpoint=False)
    points = centre + half * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    low, high = points.min(axis=0), points.max(axis=0)
    fields = {
        "iscrowd": 0,
        "area": round(float(np.pi * half.prod()), 4),
        "bbox": [round(float(v), 2) for v in (*low, *(high - low))],
        "segmentation": [[round(float(v), 2) for v in points.ravel()]],
    }
    return json.dumps(fields)[1:-1]


def load(path: str) -> None:
    """Load the file, and print what that took."""
    from rcnn_keras.data import load_coco

    before, start, cpu = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
    dataset = load_coco(path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak, after = memory_mb("VmHWM") - before, memory_mb("VmRSS") - before
    found = len(dataset), sum(map(len, dataset))
    print(json.dumps({"found": found, "s": seconds, "cpu": cpu, "peak": peak, "after": after}))


def memory_mb(name: str) -> float:
    """Return a line of the process's status: its memory now, or the most that it ever had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def main() -> None:
    """Print a table with a row for each scale."""
    options = parse_arguments()
    if options.load:
        return load(options.load)
    print("| images | objects | file, MB | load, s | of a core, s | peak, MB | stays, MB |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for scale in options.scale:
        with tempfile.TemporaryDirectory() as folder:
            path = generate(Path(folder), scale)
            megabytes = path.stat().st_size / 1e6
            command = [sys.executable, __file__, "--load", str(path)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        got = json.loads(done.stdout.splitlines()[-1])
        images, objects = got["found"]
        cells = (images, objects, *(f"{v:.0f}" for v in (megabytes, got["s"], got["cpu"])))
        cells += tuple(f"{got[key]:.0f}" for key in ("peak", "after"))
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, nargs="+", default=[1.0], help="of COCO's size")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
