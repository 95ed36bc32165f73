"""COCO scores against worked examples and pycocotools used by hand."""

import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.evaluation import CocoScores, coco_results

CLASSES = ("cat", "dog")


def dataset(boxes, labels, crowd=None, ids=(7,)):
    crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
    empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0)
    records = [Record(ids[0], "a.png", 200, 200, boxes, labels, crowd)]
    records += [Record(i, f"{i}.png", 200, 200, *empty) for i in ids[1:]]
    return DetectionDataset(records, CLASSES, category_ids=(3, 11))


def found(boxes, scores, labels, classes=CLASSES):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes, np.asarray(scores), np.asarray(labels, int), classes, (200, 200))


def test_perfect_detections_have_ap_one():
    truth = dataset([[10, 10, 60, 60], [80, 80, 120, 150]], [0, 1])
    scores = CocoScores(
        truth, {7: found([[10, 10, 60, 60], [80, 80, 120, 150]], [0.9, 0.8], [0, 1])}
    )
    summary = scores.summary()
    for name in ("AP", "AP50", "AP75", "AR", "AP/cat", "AP/dog"):
        assert summary[name] == pytest.approx(1.0)
    assert np.isnan(summary["APl"])  # no object of 96 x 96 pixels and more


def test_a_box_of_iou_two_thirds_counts_up_to_its_threshold():
    """IoU 40/60: right at 0.50, 0.55, 0.60 and 0.65, wrong at the six thresholds above."""
    truth = dataset([[0, 0, 50, 50]], [0])
    scores = CocoScores(truth, {7: found([[0, 10, 50, 60]], [0.9], [0])}).summary()
    assert scores["AP"] == pytest.approx(0.4)
    assert (scores["AP50"], scores["AP75"]) == (pytest.approx(1.0), 0.0)


def test_a_false_alarm_above_the_hit_halves_precision():
    truth = dataset([[0, 0, 50, 50]], [0])
    boxes = [[100, 100, 150, 150], [0, 0, 50, 50]]
    scores = CocoScores(truth, {7: found(boxes, [0.9, 0.8], [0, 0])})
    assert scores.summary()["AP50"] == pytest.approx(0.5)
    recall, precision = scores.precision_recall(0.5)["cat"]
    assert recall.shape == precision.shape == (101,)
    np.testing.assert_allclose(precision, 0.5)
    assert "dog" not in scores.precision_recall(0.5)


def test_detections_in_a_crowd_region_are_neither_right_nor_wrong():
    truth = dataset([[0, 0, 50, 50], [100, 100, 200, 200]], [0, 0], crowd=[False, True])
    boxes = [[0, 0, 50, 50], [110, 110, 150, 150]]
    scores = CocoScores(truth, {7: found(boxes, [0.5, 0.9], [0, 0])}).summary()
    assert scores["AP"] == pytest.approx(1.0)


def test_no_detections_give_zero_ap():
    truth = dataset([[0, 0, 50, 50]], [0])
    assert CocoScores(truth, {}).summary()["AP"] == 0.0
    assert CocoScores(truth, {7: found([], [], [])}).summary()["AR"] == 0.0


def test_scores_of_random_boxes_equal_pycocotools(tmp_path):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 150, (12, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(10, 50, (12, 2))], 1).astype("float32")
    labels = rng.integers(0, 2, 12)
    truth = dataset(boxes, labels, ids=(7, 9))
    detections = {
        7: found(boxes + rng.normal(0, 4, boxes.shape), rng.uniform(0, 1, 12), labels),
        9: found(boxes[:4], rng.uniform(0, 1, 4), labels[:4]),
    }
    (tmp_path / "truth.json").write_text(json.dumps(truth.to_coco()))
    (tmp_path / "found.json").write_text(json.dumps(coco_results(truth, detections)))
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO(str(tmp_path / "truth.json"))
        evaluation = COCOeval(coco, coco.loadRes(str(tmp_path / "found.json")), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = CocoScores(truth, detections).summary()
    ours = [scores[name] for name in ("AP", "AP50", "AP75", "APs", "APm")]
    np.testing.assert_allclose(ours, evaluation.stats[:5], atol=1e-9)
    assert scores["AR"] == pytest.approx(evaluation.stats[8])
    assert 0 < scores["AP"] < 1


def test_max_detections_keeps_the_highest_scores():
    truth = dataset([[0, 0, 50, 50]], [0])
    boxes = [[100, 100, 150, 150]] * 3 + [[0, 0, 50, 50]]
    found_all = {7: found(boxes, [0.9, 0.8, 0.7, 0.6], [0] * 4)}
    assert CocoScores(truth, found_all, 4).summary()["AP50"] == pytest.approx(0.25)
    assert CocoScores(truth, found_all, 3).summary()["AP50"] == 0.0


def test_unknown_images_and_other_classes_are_refused():
    truth = dataset([[0, 0, 50, 50]], [0])
    with pytest.raises(ValueError, match="8"):
        CocoScores(truth, {8: found([], [], [])})
    with pytest.raises(ValueError, match="kite"):
        coco_results(truth, {7: found([], [], [], classes=("kite",))})
