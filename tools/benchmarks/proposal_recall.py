"""Measure how many objects the first n proposals find, with and without objectness.

    python tools/benchmarks/proposal_recall.py --train train.json --test test.json --plot recall.png

Objectness is learnt from the one COCO file, and proposals for the images of the other are compared:
windows as they are sampled and the best of them by objectness, boxes of selective search with the
largest first and the same boxes by objectness. An object is found when a proposal overlaps it by
the IoU that is asked for. "All" has all the proposals of a row, as many as its last column says.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import read_image
from rcnn_keras.proposals import Objectness, sample_windows
from rcnn_keras.proposals.objectness_cues import areas, overlaps, suppress

COUNTS = (10, 30, 100, 300, 1000)
IOUS = (0.5, 0.7)
Ranked = dict[str, np.ndarray]  # boxes (n, 4) of each kind of proposals, best first


def main() -> None:
    """Print one table, and write one plot if it is asked for."""
    options = parse_arguments()
    test = spread(load_coco(options.test, options.test_images), options.count)
    start = time.perf_counter()
    if options.parameters:
        objectness = Objectness.load(options.parameters)
    else:
        train = load_coco(options.train, options.train_images)
        objectness = Objectness.fit(train, images=options.learn_from)
        learnt = {name: cue.theta for name, cue in objectness.cues.items()}
        print(f"{train!r}: learnt in {time.perf_counter() - start:.0f} s, theta {learnt}")
    if options.save:
        objectness.save(options.save)
    search = selective_search()
    ranks: dict[str, list[np.ndarray]] = {}
    sizes: dict[str, list[int]] = {}
    for record in test:
        image = read_image(record.path)
        objects = record.boxes[~record.crowd]
        proposals = windows(image, objectness, options.candidates)
        if search is not None:
            proposals |= searched(search(image, mode="fast"), image, objectness)
        for name, boxes in proposals.items():
            ranks.setdefault(name, []).append(first_hits(boxes, objects))
            sizes.setdefault(name, []).append(len(boxes))
    found = {name: np.concatenate(hits, axis=1) for name, hits in ranks.items()}
    print(f"{test!r}, {options.candidates} windows sampled\n")
    print(table(found, {name: float(np.mean(counts)) for name, counts in sizes.items()}))
    if options.plot:
        plot(options.plot, found, max(max(counts) for counts in sizes.values()))


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--train", help="COCO annotations to learn objectness from")
    source.add_argument("--parameters", help="or a file that Objectness.save wrote")
    parser.add_argument("--train-images", help="their folder; default: the one of the JSON")
    parser.add_argument("--test", required=True, help="COCO annotations to find the objects of")
    parser.add_argument("--test-images", help="their folder; default: the one of the JSON")
    parser.add_argument("--learn-from", type=int, default=100, help="images to learn from")
    parser.add_argument("--count", type=int, default=100, help="images to find objects in")
    parser.add_argument("--candidates", type=int, default=10_000, help="windows to sample in each")
    parser.add_argument("--save", help="where to write what was learnt")
    parser.add_argument("--plot", help="where to write recall by the number of proposals, a PNG")
    return parser.parse_args()


def spread(dataset: DetectionDataset, count: int) -> DetectionDataset:
    """Return `count` images, evenly over the dataset."""
    chosen = np.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().astype(int)
    return DetectionDataset((dataset[int(i)] for i in chosen), dataset.classes, name=dataset.name)


def selective_search() -> Callable[..., np.ndarray] | None:
    """Return the package's selective search, or None where it has none."""
    try:
        from rcnn_keras.proposals.selective_search import selective_search as search
    except ModuleNotFoundError as error:
        print(f"without selective search: {error}", file=sys.stderr)
        return None
    return search


def windows(image: np.ndarray, objectness: Objectness, candidates: int) -> Ranked:
    """Return sampled windows as they come, and the best of the same windows."""
    boxes = sample_windows(*image.shape[:2], candidates)
    scores = objectness.score(image, boxes)
    return {
        "windows as sampled": boxes,
        "windows by objectness, suppressed at 0.5": boxes[suppress(boxes, scores, 0.5, len(boxes))],
        "windows by objectness, suppressed at 0.7": boxes[suppress(boxes, scores, 0.7, len(boxes))],
    }


def searched(boxes: np.ndarray, image: np.ndarray, objectness: Objectness) -> Ranked:
    """Return boxes with the largest first, and by objectness."""
    scores = objectness.score(image, boxes)
    kept = suppress(boxes, scores, 0.7, len(boxes))
    return {
        "selective search, largest first": boxes[np.argsort(-areas(boxes), kind="stable")],
        "selective search by objectness": boxes[np.argsort(-scores, kind="stable")],
        "selective search by objectness, suppressed at 0.7": boxes[kept],
    }


def first_hits(boxes: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """Return the place `(len(IOUS), m)` of the first box that finds each of m objects, or inf."""
    if not len(boxes):
        return np.full((len(IOUS), len(objects)), np.inf)
    found = overlaps(boxes, objects) >= np.array(IOUS)[:, None, None]
    return np.where(found.any(1), found.argmax(1), np.inf)


def table(found: dict[str, np.ndarray], sizes: dict[str, float]) -> str:
    """Return Markdown: recall by kind of proposals and IoU at some numbers of proposals.

    Args:
        found: for each kind `first_hits` of all objects, `(len(IOUS), m)`.
        sizes: for each kind the mean number of proposals in an image.
    """
    head = ["proposals", "IoU", *map(str, COUNTS), "all", "an image"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row, iou in enumerate(IOUS):
        for name, hits in found.items():
            recalls = [f"{np.mean(hits[row] < n):.3f}" for n in (*COUNTS, np.inf)]
            lines.append([name, str(iou), *recalls, f"{sizes[name]:.0f}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(path: str, found: dict[str, np.ndarray], most: int) -> None:
    """Write a PNG of recall by the number of proposals, one panel for each IoU."""
    from matplotlib.figure import Figure

    from rcnn_keras.visualize import PALETTE

    figure = Figure(figsize=(10, 4), dpi=140, layout="constrained")
    panels = figure.subplots(1, len(IOUS), sharey=True)
    counts = np.unique(np.geomspace(1, most, 200).round())
    for row, axes in enumerate(panels):
        for (name, hits), color in zip(found.items(), PALETTE, strict=False):
            recalls = np.mean(hits[row] < counts[:, None], axis=1)
            axes.plot(counts, recalls, color=color, label=name)
        axes.set_xscale("log")
        axes.set_ylim(0, 1)
        axes.set_xlabel("proposals")
        axes.set_title(f"IoU {IOUS[row]}")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("recall")
    panels[-1].legend(fontsize=7, loc="upper left")
    figure.savefig(Path(path), format="png")


if __name__ == "__main__":
    main()
