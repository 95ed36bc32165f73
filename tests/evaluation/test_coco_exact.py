"""COCO scores equal pycocotools' to the last bit, on datasets made to be difficult."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.evaluation import CocoScores, coco_results

SIZE = (130, 170)


def polygon(box):
    x1, y1, x2, y2 = box
    return [[x1, (y1 + y2) / 2, (x1 + x2) / 2, y1, x2, (y1 + y2) / 2, (x1 + x2) / 2, y2]]


def made(seed, images=6, classes=3, max_objects=8, found=30, crowd=0.2, areas=False, masks=True):
    """Objects in clumps, and detections around them: equal scores, equal boxes, empty images."""
    draw = np.random.default_rng(seed)
    names = tuple(f"c{k}" for k in range(classes))
    ids = draw.permutation(1000)[:images] + 1  # in no order
    records, detections = [], {}
    for number, image_id in enumerate(ids.tolist()):
        n = 0 if number == 1 else int(draw.integers(1, max_objects + 1))
        corner = draw.integers(0, 60, (n, 2)) + draw.integers(0, 4, (n, 2)) * 0.5
        boxes = np.concatenate([corner, corner + draw.integers(4, 70, (n, 2))], 1).astype("f4")
        labels = draw.integers(0, classes, n)
        records.append(
            Record(
                image_id,
                f"{image_id}.png",
                *SIZE,
                boxes,
                labels,
                draw.uniform(size=n) < crowd,
                tuple(polygon(box) for box in boxes.tolist()),
                draw.choice([900.0, 1024.0, 1025.0, 9216.0, 9217.0], n) if areas else None,
            )
        )
        if number == 2:
            continue  # no detections
        d = 0 if number == 3 else found
        at = draw.integers(0, max(n, 1), d) if n else np.zeros(d, int)
        around = boxes[at] if n else np.tile(np.float32([10, 10, 40, 40]), (d, 1))
        moved = around + draw.integers(-3, 4, (d, 4)).astype("f4") * (
            draw.uniform(size=(d, 1)) < 0.7
        )
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        named = np.where(draw.uniform(size=d) < 0.8, labels[at] if n else 0, 0)
        scores = np.sort(draw.integers(1, 8, d) / 8)[::-1].astype("f4")  # many are equal
        grids = (draw.uniform(0, 1, (d, 7, 7)) ** 0.3).astype("f4") if masks else None
        detections[image_id] = Detections(moved, scores, named, names, SIZE, grids)
    categories = range(5, 5 + 2 * classes, 2)
    return DetectionDataset(records, names, category_ids=categories), detections


def by_pycocotools(dataset, detections, kind, max_detections):
    """Precision (T, R, K, A) and recall (T, K, A) of pycocotools on COCO's own dicts."""
    rows = coco_results(dataset, detections)
    unwanted = "bbox" if kind == "segm" else "segmentation"
    rows = [{k: v for k, v in row.items() if k != unwanted} for row in rows]
    truth = COCO()
    truth.dataset = dataset.to_coco()
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        if kind == "segm":
            for annotation in truth.dataset["annotations"]:
                if next(r for r in dataset if r.image_id == annotation["image_id"]).areas is None:
                    annotation["area"] = float(truth.annToMask(annotation).sum())
        evaluation = COCOeval(truth, truth.loadRes(rows), kind)
        evaluation.params.maxDets = [max_detections]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., 0], evaluation.eval["recall"][..., 0]


CASES = {
    "clumps": {},
    "areas at the limits": {"areas": True},
    "all crowds": {"crowd": 1.0},
    "no crowds": {"crowd": 0.0},
    "many classes": {"classes": 40, "max_objects": 20},
    "one class": {"classes": 1, "max_objects": 12, "found": 60},
}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("case", CASES)
def test_scores_equal_pycocotools_to_the_last_bit(case, kind):
    dataset, detections = made(sum(case.encode()), **CASES[case])
    precision, recall = CocoScores(dataset, detections, kind=kind).precision_and_recall()
    expected = by_pycocotools(dataset, detections, kind, 100)
    np.testing.assert_array_equal(precision, expected[0])
    np.testing.assert_array_equal(recall, expected[1])
    if case != "all crowds":
        assert 0 < precision[precision > -1].mean() < 1


@pytest.mark.parametrize("max_detections", [1, 10, 100, 500])
def test_scores_of_more_than_a_hundred_detections_equal_pycocotools(max_detections):
    dataset, detections = made(5, classes=2, found=260, masks=False)
    precision, recall = CocoScores(dataset, detections, max_detections).precision_and_recall()
    expected = by_pycocotools(dataset, detections, "bbox", max_detections)
    np.testing.assert_array_equal(precision, expected[0])
    np.testing.assert_array_equal(recall, expected[1])


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_adding_image_by_image_in_any_order_gives_the_same_scores(kind):
    dataset, detections = made(11)
    whole = CocoScores(dataset, detections, kind=kind)
    rows = CocoScores(dataset, coco_results(dataset, detections), kind=kind)
    scores = CocoScores(dataset, kind=kind)
    for i, image_id in enumerate(reversed(detections)):
        scores.add(image_id, detections[image_id])
        if i == 1:
            assert scores.summary() != whole.summary()  # and the rest is not forgotten
    for other in (scores, rows):
        for ours, theirs in zip(
            other.precision_and_recall(), whole.precision_and_recall(), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_detections_themselves_are_not_kept():
    """Of 30 detections an image some kB stay, of their masks nothing."""
    dataset, detections = made(3)
    scores = CocoScores(dataset, detections, kind="segm")
    kept = sum(array.nbytes for image in scores._added.values() for array in image)
    count = sum(map(len, detections.values()))
    pairs = sum(len(image.overlaps) for image in scores._added.values())
    assert kept <= 24 * (count + pairs)


def test_adding_an_image_twice_is_refused():
    dataset, detections = made(3)
    scores = CocoScores(dataset, detections)
    image_id = next(iter(detections))
    with pytest.raises(ValueError, match=f"added before .*{image_id}"):
        scores.add(image_id, detections[image_id])
    with pytest.raises(ValueError, match=r"not in the dataset.*-3"):
        scores.add(-3, detections[image_id])
