"""COCO scores of keypoints against pycocotools, and worked examples of OKS."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rcnn_keras.data import COCO_PERSON, DetectionDataset, Record, Skeleton
from rcnn_keras.data.detections import Detections
from rcnn_keras.evaluation import CocoScores, coco_results, keypoint_sigmas, keypoint_similarity

SIZE = (300, 400)
CLASSES = ("person", "doll")


def people(seed, skeleton=COCO_PERSON, images=12):
    """Crowded images: objects of all sizes, some without keypoints, some crowd regions."""
    rng = np.random.default_rng(seed)
    records, found, count = [], {}, len(skeleton)
    for image_id in range(1, images + 1):
        n = rng.integers(0, 7)
        corner, side = rng.uniform(0, 200, (n, 2)), rng.uniform(15, 150, (n, 2))
        boxes = np.concatenate([corner, corner + side], axis=1).astype("float32")
        points = boxes[:, None, :2] + rng.uniform(0, 1, (n, count, 2)) * side[:, None]
        visibility = rng.integers(0, 3, (n, count, 1)) * (rng.random((n, 1, 1)) < 0.85)
        keypoints = np.concatenate([points, visibility], axis=2).astype("float32")
        labels, crowd = rng.integers(0, 2, n), rng.random(n) < 0.15
        areas = side.prod(axis=1) * rng.uniform(0.3, 0.8, n)
        records.append(
            Record(
                image_id, f"{image_id}.png", *SIZE, boxes, labels, crowd,
                areas=areas, keypoints=keypoints,
            )
        )  # fmt: skip
        around = np.repeat(np.arange(n), 5)
        far = rng.choice([1, 4, 15], (len(around), 1, 1))
        moved = points[around] + far * rng.normal(size=(len(around), count, 2))
        shaken = (boxes[around] + rng.normal(0, 5, (len(around), 4))).astype("float32")
        shaken[:, 2:] = np.maximum(shaken[:, 2:], shaken[:, :2] + 1)
        found[image_id] = Detections(
            boxes=shaken,
            scores=(rng.permutation(len(around)) / 40).astype("float32"),
            labels=np.where(rng.random(len(around)) < 0.8, labels[around], 0),
            classes=CLASSES,
            image_size=SIZE,
            keypoints=np.concatenate([moved, rng.random((*moved.shape[:2], 1))], 2).astype("f4"),
            skeleton=skeleton,
        )
    dataset = DetectionDataset(records, CLASSES, category_ids=(1, 5), skeleton=skeleton)
    return dataset, found


def by_pycocotools(dataset, rows, sigmas=None):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset.to_coco()
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes([dict(row) for row in rows]), "keypoints")
        if sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats = np.where(evaluation.stats > -1, evaluation.stats, np.nan)
    return dict(zip(("AP", "AP50", "AP75", "APm", "APl", "AR"), stats.tolist(), strict=False))


@pytest.mark.parametrize("seed", range(3))
def test_scores_equal_pycocotools(seed):
    dataset, found = people(seed)
    rows = coco_results(dataset, found)
    expected = by_pycocotools(dataset, rows)
    scores = CocoScores(dataset, found, kind="keypoints").summary()
    assert {name: scores[name] for name in expected} == pytest.approx(
        expected, abs=1e-12, nan_ok=True
    )
    assert 0.05 < scores["AP"] < 0.95
    assert "APs" not in scores
    again = CocoScores(dataset, rows, kind="keypoints").summary()
    assert again == pytest.approx(scores, nan_ok=True)


def test_scores_of_rows_without_boxes_equal_pycocotools():
    """Their area is that around the keypoints, as pycocotools has it."""
    dataset, found = people(7)
    rows = [{k: v for k, v in r.items() if k != "bbox"} for r in coco_results(dataset, found)]
    expected = by_pycocotools(dataset, rows)
    scores = CocoScores(dataset, rows, kind="keypoints").summary()
    assert {name: scores[name] for name in expected} == pytest.approx(
        expected, abs=1e-12, nan_ok=True
    )


def test_other_keypoints_have_other_deviations():
    dataset, found = people(4, Skeleton(("a", "b", "c")))
    for sigmas in (None, [0.02, 0.1, 0.3]):
        used = [0.05] * 3 if sigmas is None else sigmas
        expected = by_pycocotools(dataset, coco_results(dataset, found), used)
        scores = CocoScores(dataset, found, kind="keypoints", keypoint_sigmas=sigmas).summary()
        assert {name: scores[name] for name in expected} == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )


def test_similarity_by_hand():
    """Of two labelled keypoints one is right and one a distance off; the third does not count."""
    objects = np.array([[[10, 10, 2], [40, 10, 1], [0, 0, 0]]], float)
    found = np.array([[[10, 10], [43, 14], [99, 99]]], float)
    area, sigma = 900.0, 0.05
    similarity = keypoint_similarity(found, objects, np.array([[0, 0, 50, 20]]), [area])
    expected = (1 + np.exp(-(5**2) / (2 * area * (2 * sigma) ** 2))) / 2
    assert similarity == pytest.approx(expected)


def test_deviations():
    np.testing.assert_allclose(
        keypoint_sigmas(17)[[0, 1, 2, 11, 16]], [0.026, 0.025, 0.025, 0.107, 0.089]
    )
    np.testing.assert_array_equal(keypoint_sigmas(4), [0.05] * 4)
    for wrong in ([0.1], [0.1, 0.0], [0.1, np.inf]):
        with pytest.raises(ValueError, match="keypoint_sigmas must be 2 numbers above 0"):
            keypoint_sigmas(2, wrong)


def test_what_cannot_be_scored_is_refused():
    dataset, found = people(1)
    bare = DetectionDataset([dataset[0].select([])], CLASSES, name="bare")
    with pytest.raises(ValueError, match="bare: no object has a labelled keypoint"):
        CocoScores(bare, kind="keypoints")
    image_id = max(found, key=lambda k: len(found[k]))
    some = found[image_id]
    without = Detections(some.boxes, some.scores, some.labels, CLASSES, SIZE)
    with pytest.raises(ValueError, match="detections have no keypoints"):
        CocoScores(dataset, {image_id: without}, kind="keypoints")
    with pytest.raises(ValueError, match="have no keypoints"):
        CocoScores(dataset, coco_results(dataset, {image_id: without}), kind="keypoints")
    short = Detections(
        some.boxes, some.scores, some.labels, CLASSES, SIZE, keypoints=some.keypoints[:, :5]
    )
    with pytest.raises(ValueError, match="5 keypoints, the dataset's objects 17"):
        CocoScores(dataset, {image_id: short}, kind="keypoints")
    with pytest.raises(ValueError, match="3 keypoints for 2 boxes"):
        Detections(some.boxes[:2], some.scores[:2], some.labels[:2], CLASSES, SIZE,
                   keypoints=some.keypoints[:3])  # fmt: skip
