"""Time COCO scoring at the size of COCO's validation set, beside pycocotools and its kin.

    python tools/benchmarks/coco_scoring.py
    python tools/benchmarks/coco_scoring.py --others-python eval-env/bin/python --kinds bbox segm

`--others-python` is a Python with `pip install pycocotools faster-coco-eval hotcoco
ultrafast-pycocotools`, or with some of them. Images, objects (ellipses as polygons, one in a
hundred a crowd) and detections are generated: moved copies of objects and boxes at random, with
scores of three decimals, so that some are equal. Each evaluator runs in a process of its own:

    ours, stream   `CocoScores.add` with the `Detections` of one image after the other, as a model
                   gives them: of masks the 28 x 28 grids, which have to be pasted and encoded
    ours, rows     `CocoScores` on COCO's result rows, which the others get too, made beforehand
    others         `COCO(truth)`, `loadRes(rows)`, `COCOeval(..)`, `evaluate`, `accumulate`

"Read" is what comes before `evaluate`, and of ours the adding. Peak memory is that of the process
beyond what it had when data and packages were loaded. The last column is the largest difference of
precision (at all thresholds, recalls, classes and area ranges) and recall from pycocotools.
"""

import argparse
import contextlib
import io
import json
import resource
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path

import numpy as np

SIZE = (480, 640)
MASK = 28
OTHERS = {
    "pycocotools": ("pycocotools.coco", "pycocotools.cocoeval", "COCOeval"),
    "faster-coco-eval": ("faster_coco_eval", "faster_coco_eval", "COCOeval_faster"),
    "hotcoco": ("hotcoco", "hotcoco", "COCOeval"),
    "ultrafast-pycocotools": ("ultrafast_pycocotools", "ultrafast_pycocotools", "COCOeval"),
}
OURS = ("ours, stream", "ours, rows")


def generate(folder: Path, options: argparse.Namespace) -> None:
    """Write the truth as `truth.json` and the detections as `found.npz`."""
    draw = np.random.default_rng(0)
    images, classes = options.images, options.classes
    count = draw.multinomial(options.objects, np.full(images, 1 / images))
    image = np.repeat(np.arange(images), count)
    boxes = random_boxes(draw, len(image))
    labels = np.minimum(draw.geometric(4 / classes, len(image)) - 1, classes - 1)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    annotations = []
    for i, (number, label) in enumerate(zip(image.tolist(), labels.tolist(), strict=True)):
        x1, y1, x2, y2 = boxes[i]
        points = ([x1 + x2, y1 + y2] + circle * [x2 - x1, y2 - y1]) / 2
        annotations.append(
            {
                "id": i + 1,
                "image_id": number + 1,
                "category_id": label + 1,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "area": np.pi / 4 * (x2 - x1) * (y2 - y1),
                "iscrowd": int(i % 100 == 99),
                "segmentation": [points.round(2).ravel().tolist()],
            }
        )
    names = [{"id": k + 1, "name": f"class {k}"} for k in range(classes)]
    sized = {"height": SIZE[0], "width": SIZE[1]}
    listed = [{"id": i + 1, "file_name": f"{i}.jpg", **sized} for i in range(images)]
    truth = {"images": listed, "annotations": annotations, "categories": names}
    (folder / "truth.json").write_text(json.dumps(truth, default=float))
    found = [
        detections(draw, boxes[first:stop], labels[first:stop], options)
        for first, stop in zip(np.cumsum(count) - count, np.cumsum(count), strict=True)
    ]
    stacked = map(np.stack, zip(*found, strict=True))
    columns = dict(zip(("boxes", "scores", "labels"), stacked, strict=True))
    np.savez(folder / "found.npz", **columns)


def random_boxes(draw: np.random.Generator, count: int) -> np.ndarray:
    """Return boxes inside an image, small ones as often as large ones, `(count, 4)` float32."""
    sides = np.exp(draw.uniform(np.log(6), np.log(400), (count, 2)))
    corner = draw.uniform(0, 1, (count, 2)) * (np.array(SIZE[::-1]) - sides)
    return np.concatenate([corner, corner + sides], axis=1).astype(np.float32)


def detections(
    draw: np.random.Generator, boxes: np.ndarray, labels: np.ndarray, options: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return boxes, scores and labels found in an image with these objects, best score first."""
    near = min(4 * len(boxes), options.detections)
    of = np.arange(near) % max(len(boxes), 1)
    sides = np.tile(boxes[of, 2:] - boxes[of, :2], 2)
    moved = boxes[of] + sides * draw.normal(0, 0.08, (near, 4))
    moved = np.clip(moved, 0, np.tile(SIZE[::-1], 2))
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    all_boxes = np.concatenate([moved, random_boxes(draw, options.detections - near)])
    other = draw.integers(0, options.classes, options.detections)
    named = np.where(draw.uniform(size=near) < 0.85, labels[of], other[:near])
    scores = np.concatenate([draw.beta(2, 2, near), draw.beta(1, 4, options.detections - near)])
    order = np.argsort(-scores, kind="stable")
    all_labels = np.concatenate([named, other[near:]]).astype(np.int32)
    return all_boxes[order].astype("f4"), scores.round(3)[order].astype("f4"), all_labels[order]


def grids() -> np.ndarray:
    """Return some masks inside their boxes, as a detector gives them: `(8, 28, 28)` in 0..1."""
    y, x = np.mgrid[-1 : 1 : MASK * 1j, -1 : 1 : MASK * 1j]
    radii = np.linspace(0.75, 1.05, 8)[:, None, None]
    return (1 / (1 + np.exp(8 * (np.hypot(x, y) - radii)))).astype(np.float32)


def of_image(found: dict[str, np.ndarray], i: int, kind: str, classes: list[str]):
    """Return an image's `Detections`; its masks are made only now."""
    from rcnn_keras.data.detections import Detections

    columns = [found[name][i] for name in ("boxes", "scores", "labels")]
    masks = grids()[np.arange(len(columns[0])) % 8] if kind == "segm" else None
    return Detections(*columns, classes, SIZE, masks)


def write_rows(folder: Path, kind: str) -> None:
    """Write the detections as COCO's result rows."""
    from rcnn_keras.evaluation import coco_results

    dataset, found = read(folder)
    rows = []
    for i, record in enumerate(dataset):
        rows += coco_results(dataset, {record.image_id: of_image(found, i, kind, dataset.classes)})
    if kind == "segm":  # or pycocotools would take a mask's size from the box
        for row in rows:
            del row["bbox"]
    (folder / f"rows_{kind}.json").write_text(json.dumps(rows))


def read(folder: Path):
    """Return truth and detections as ours takes them; the images themselves do not exist."""
    from rcnn_keras.data import DetectionDataset, Record

    truth = json.loads((folder / "truth.json").read_bytes())
    of: dict[int, list] = {image["id"]: [] for image in truth["images"]}
    for annotation in truth["annotations"]:
        of[annotation["image_id"]].append(annotation)
    records = []
    for image in truth["images"]:
        own = of[image["id"]]
        boxes = np.array([a["bbox"] for a in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        columns = [
            boxes,
            np.array([a["category_id"] - 1 for a in own]),
            np.array([a["iscrowd"] for a in own], bool),
            tuple(a["segmentation"] for a in own),
            np.array([a["area"] for a in own]),
        ]
        size = image["height"], image["width"]
        records.append(Record(image["id"], image["file_name"], *size, *columns))
    dataset = DetectionDataset(records, [c["name"] for c in truth["categories"]])
    return dataset, dict(np.load(folder / "found.npz"))


def run_ours(folder: Path, kind: str, name: str) -> dict:
    """Score with this package."""
    from rcnn_keras.evaluation import CocoScores

    dataset, found = read(folder)
    if name == "ours, rows":
        rows = json.loads((folder / f"rows_{kind}.json").read_bytes())
    before, start = resident_mb(), time.perf_counter()
    if name == "ours, rows":
        scores = CocoScores(dataset, rows, kind=kind)
    else:
        scores = CocoScores(dataset, kind=kind)
        for i, record in enumerate(dataset):
            scores.add(record.image_id, of_image(found, i, kind, dataset.classes))
    read_in = time.perf_counter()
    precision, recall = scores.precision_and_recall()
    end = time.perf_counter()
    np.savez(folder / f"{name}_{kind}.npz", precision=precision, recall=recall)
    return {"read": read_in - start, "score": end - read_in, "mb": peak_mb() - before}


def run_other(folder: Path, kind: str, name: str) -> dict:
    """Score with another package."""
    coco_module, evaluation_module, evaluator = OTHERS[name]
    COCO = import_module(coco_module).COCO
    COCOeval = getattr(import_module(evaluation_module), evaluator)
    rows = json.loads((folder / f"rows_{kind}.json").read_bytes())
    before, start = resident_mb(), time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "truth.json"))
        evaluation = COCOeval(truth, truth.loadRes(rows), kind)
        read_in = time.perf_counter()
        evaluation.evaluate()
        evaluation.accumulate()
    end = time.perf_counter()
    arrays = {k: np.asarray(evaluation.eval[k])[..., -1] for k in ("precision", "recall")}
    np.savez(folder / f"{name}_{kind}.npz", **arrays)
    return {"read": read_in - start, "score": end - read_in, "mb": peak_mb() - before}


def resident_mb() -> float:
    """Return the memory that the process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def peak_mb() -> float:
    """Return the most memory that the process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def difference(folder: Path, name: str, kind: str) -> str:
    """Return how far an evaluator's precision and recall are from pycocotools'."""
    expected, got = (folder / f"{n}_{kind}.npz" for n in ("pycocotools", name))
    if not expected.exists() or name == "pycocotools":
        return ""
    a, b = np.load(expected), np.load(got)
    return f"{max(np.abs(a[k] - b[k]).max() for k in ('precision', 'recall')):.1g}"


def main() -> None:
    """Print a table for each kind of scores."""
    options = parse_arguments()
    if options.worker:
        name, folder, kind = options.worker
        if name == "rows":
            return write_rows(Path(folder), kind)
        run = run_ours if name in OURS else run_other
        return print(json.dumps(run(Path(folder), kind, name)))
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        generate(folder, options)
        print(
            f"{options.images} images, {options.objects} objects of {options.classes} classes, "
            f"{options.detections} detections an image"
        )
        for kind in options.kinds:
            measure(folder, kind, options)


def measure(folder: Path, kind: str, options: argparse.Namespace) -> None:
    """Let every evaluator run, and print what came out."""
    work(sys.executable, "rows", folder, kind)
    print(f"\n| {kind} | read, s | score, s | together, s | peak, MB | difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    others = [*OTHERS] if options.others_python else ["pycocotools"]
    for name in (*others, *OURS):
        python = sys.executable if name in OURS or not options.others_python else None
        done = work(python or options.others_python, name, folder, kind)
        if done.returncode:
            print(f"| {name} | {done.stderr.strip().splitlines()[-1][:80]} | | | | |", flush=True)
            continue
        got = json.loads(done.stdout.splitlines()[-1])
        cells = [f"{got['read']:.2f}", f"{got['score']:.2f}", f"{got['read'] + got['score']:.2f}"]
        cells += [f"{got['mb']:.0f}", difference(folder, name, kind)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def work(python: str, name: str, folder: Path, kind: str) -> subprocess.CompletedProcess:
    """Run one evaluator in a process of its own."""
    command = [python, __file__, "--worker", name, str(folder), kind]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--objects", type=int, default=36_000)
    parser.add_argument("--classes", type=int, default=80)
    parser.add_argument("--detections", type=int, default=100, help="of each image")
    parser.add_argument("--kinds", nargs="+", choices=["bbox", "segm"], default=["bbox", "segm"])
    parser.add_argument("--others-python", help="a Python that has other evaluators")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
