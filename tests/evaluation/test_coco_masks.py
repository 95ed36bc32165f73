"""COCO scores of masks against worked examples and pycocotools used by hand."""

import contextlib
import io

import cv2
import numpy as np
import pytest
from pycocotools import mask as run_length
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.evaluation import CocoScores, check_segmentations, coco_results

CLASSES = ("cat", "dog")
SIZE = (120, 160)


def rectangle(x1, y1, x2, y2):
    """A polygon that pycocotools fills to exactly these pixels."""
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


def dataset(boxes, segmentations, labels=None, crowd=None, areas=None):
    labels = np.zeros(len(boxes), int) if labels is None else labels
    crowd = np.zeros(len(boxes), bool) if crowd is None else crowd
    record = Record(7, "a.png", *SIZE, boxes, labels, crowd, segmentations, areas)
    return DetectionDataset([record], CLASSES, category_ids=(3, 11), name="pets")


def found(boxes, masks, labels=None):
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    scores = np.linspace(0.9, 0.5, len(boxes))
    labels = np.zeros(len(boxes), int) if labels is None else labels
    return Detections(boxes, scores, labels, CLASSES, SIZE, masks=masks)


def halves(side=28):
    """A mask that fills the left half of its box."""
    mask = np.zeros((side, side), np.float32)
    mask[:, : side // 2] = 1
    return mask


def test_a_mask_of_half_its_box_is_scored_by_its_pixels():
    """Box IoU 1; of the 40x40 truth 20x40 are covered, IoU about 0.5: right at most once of ten."""
    box = [10, 10, 50, 50]
    truth = dataset([box], (rectangle(*box),))
    detections = {7: found([box], halves()[None])}
    assert CocoScores(truth, detections).summary()["AP"] == pytest.approx(1.0)
    masks = CocoScores(truth, detections, kind="segm").summary()
    assert masks["AP75"] == 0.0
    assert masks["AP"] <= 0.1
    left = dataset([box], (rectangle(10, 10, 30, 50),))  # but for the mask's blurred border
    assert CocoScores(left, detections, kind="segm").summary()["AP"] >= 0.9 - 1e-9


def test_scores_of_blobs_equal_pycocotools():
    rng = np.random.default_rng(3)
    boxes, labels, codes, soft = [], [], [], []
    for _ in range(14):
        x, y = rng.uniform(0, 80), rng.uniform(0, 40)
        box = np.array([x, y, x + rng.uniform(8, 80), y + rng.uniform(8, 80)])
        mask = cv2.GaussianBlur(rng.uniform(0, 1, (28, 28)).astype("float32"), (0, 0), 4)
        soft.append((mask - mask.min()) / np.ptp(mask))
        boxes.append(box)
        labels.append(rng.integers(0, 2))
    boxes, labels = np.asarray(boxes, np.float32), np.asarray(labels)
    other = found(boxes + rng.normal(0, 1.5, boxes.shape), np.asarray(soft), labels)
    for mask in found(boxes, np.asarray(soft)).bool_masks():
        codes.append(run_length.encode(np.asfortranarray(mask, np.uint8)))
    areas = run_length.area(codes).astype(float)
    truth = dataset(boxes, tuple(codes), labels, areas=areas)

    rows = [
        {
            "image_id": 7,
            "category_id": (3, 11)[label],
            "score": score,
            "segmentation": run_length.encode(np.asfortranarray(mask, np.uint8)),
        }
        for label, score, mask in zip(other.labels, other.scores, other.bool_masks(), strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth.to_coco()
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(rows), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    scores = CocoScores(truth, {7: other}, kind="segm").summary()
    names = ("AP", "AP50", "AP75", "APs", "APm")
    np.testing.assert_allclose([scores[n] for n in names], evaluation.stats[:5], atol=1e-9)
    assert 0.05 < scores["AP"] < 0.95
    again = CocoScores(truth, coco_results(truth, {7: other}), kind="segm").summary()
    assert again["AP"] == scores["AP"]


def test_size_is_the_area_of_the_mask_if_the_dataset_states_none():
    """A thin line in a large box is small as a mask and medium as a box."""
    box, line = [5, 5, 55, 55], rectangle(5, 5, 55, 8)
    mask = np.zeros((28, 28), np.float32)
    mask[:2] = 1
    truth = dataset([box], (line,))
    detections = {7: found([box], mask[None])}
    boxes = CocoScores(truth, detections).summary()
    assert boxes["APm"] == pytest.approx(1.0)
    assert np.isnan(boxes["APs"])
    masks = CocoScores(truth, detections, kind="segm").summary()
    assert masks["APs"] > 0
    assert np.isnan(masks["APm"])


def test_a_crowd_region_without_a_mask_fills_its_box():
    """Half of the second detection is outside; what is in a crowd counts neither way."""
    box, crowd = [2, 2, 22, 22], [40, 20, 70, 50]
    truth = dataset([box, crowd], (rectangle(*box), None), crowd=[False, True])
    full = np.ones((2, 28, 28), np.float32)
    inside = {7: found([[45, 25, 60, 45], box], full)}
    assert CocoScores(truth, inside, kind="segm").summary()["AP"] == pytest.approx(1.0)
    outside = {7: found([[22, 25, 42, 45], box], full)}
    assert CocoScores(truth, outside, kind="segm").summary()["AP"] == pytest.approx(0.5)


def test_result_rows_have_run_lengths_of_the_images_size():
    box = [10, 10, 50, 50]
    truth = dataset([box], (rectangle(*box),))
    detections = {7: found([box], halves()[None])}
    (row,) = coco_results(truth, detections)
    assert row["bbox"] == [10, 10, 40, 40]
    assert isinstance(row["segmentation"]["counts"], str)
    expected = detections[7].bool_masks()[0]
    np.testing.assert_array_equal(run_length.decode(row["segmentation"]), expected)
    assert expected.sum() == pytest.approx(20 * 40, rel=0.1)
    (row,) = coco_results(truth, {7: found([box], None)})
    assert "segmentation" not in row


def test_missing_masks_are_refused():
    box = [10, 10, 50, 50]
    bare = dataset([box, box], (rectangle(*box), None))
    with pytest.raises(ValueError, match=r"a\.png: object 1 .*segmentation"):
        check_segmentations(bare)
    with pytest.raises(ValueError, match="object 0"):
        CocoScores(dataset([box], None), {}, kind="segm")
    with pytest.raises(ValueError, match="1 of 1 detections have no segmentation"):
        CocoScores(dataset([box], (rectangle(*box),)), {7: found([box], None)}, kind="segm")
    with pytest.raises(ValueError, match="'bbox', 'segm' or 'keypoints', not 'mask'"):
        CocoScores(bare, {}, kind="mask")


def test_no_detections_give_zero_ap():
    box = [10, 10, 50, 50]
    truth = dataset([box], (rectangle(*box),))
    nothing = found([], np.zeros((0, 28, 28), np.float32), np.zeros(0, int))
    for detections in ({}, {7: nothing}):
        assert CocoScores(truth, detections, kind="segm").summary()["AP"] == 0.0
