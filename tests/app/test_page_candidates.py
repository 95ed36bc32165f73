"""One run of a model, and thresholds afterwards: the same as a model built with them."""

import numpy as np
import pytest

from rcnn_keras.app import detect_candidates, filter_candidates, return_candidates
from rcnn_keras.data.detections import Detections
from rcnn_keras.models import FasterRCNN, FastRCNN


def detections(boxes, scores, labels, masks=None):
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int32),
        ("cat", "dog"),
        (100, 100),
        masks,
    )


def test_thresholds_filter_a_worked_example():
    # the second overlaps the first by 8 / 12, the third by 6 / 14; the fourth is of another class
    boxes = [[0, 0, 10, 10], [2, 0, 12, 10], [4, 0, 14, 10], [0, 0, 10, 10], [50, 50, 60, 60]]
    found = detections(boxes, [0.9, 0.8, 0.7, 0.6, 0.3], [0, 0, 0, 1, 0])
    for min_score, nms_iou, most, expected in (
        (0.05, 1.0, 100, [0.9, 0.8, 0.7, 0.6, 0.3]),
        (0.05, 0.7, 100, [0.9, 0.8, 0.7, 0.6, 0.3]),
        (0.05, 0.6, 100, [0.9, 0.7, 0.6, 0.3]),
        (0.05, 0.4, 100, [0.9, 0.6, 0.3]),
        (0.50, 0.4, 100, [0.9, 0.6]),
        (0.05, 0.4, 2, [0.9, 0.6]),
        (0.95, 0.4, 100, []),
    ):
        kept = filter_candidates(found, min_score, nms_iou, most)
        np.testing.assert_allclose(kept.scores, expected)
    assert filter_candidates(found, 0.05, 0.4, 2).class_names == ["cat", "dog"]
    assert len(filter_candidates(detections([], [], []), 0.05, 0.5, 100)) == 0


def test_masks_are_filtered_with_their_boxes():
    masks = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32) / 3
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [30, 0, 40, 10]]
    kept = filter_candidates(detections(boxes, [0.9, 0.8, 0.7], [0, 0, 0], masks), 0.05, 0.5, 100)
    np.testing.assert_array_equal(kept.masks, masks[[0, 2]])


@pytest.fixture(scope="module")
def model(make_detector):
    return make_detector(FasterRCNN, backbone="zf", anchor_sizes=[[8, 16, 32]])


def test_filtered_candidates_equal_the_models_detections(model, scene):
    (expected,) = model.detect(scene)
    candidates = detect_candidates(scene, return_candidates(model))
    assert len(candidates) > len(expected) > 0
    found = filter_candidates(candidates, 0.05, model.get_config()["box_nms_thresh"], 25)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_allclose(found.scores, expected.scores, rtol=1e-5)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)


def test_a_detector_without_an_rpn_is_given_selective_search(make_detector, scene):
    small = {"backbone": "zf", "min_size": 64, "max_size": 64, "box_units": 8}
    model = FastRCNN(**small, classes=["circle", "star"])
    kernel = model.box_head.class_logits.kernel
    kernel.assign(np.random.default_rng(0).normal(0, 1, kernel.shape))
    assert len(detect_candidates(scene, return_candidates(model))) > 0
