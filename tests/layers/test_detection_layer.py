import math

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.layers import DetectionLayer

SIZES = np.array([(80, 120), (100, 60)], np.int32)
WEIGHTS = (10.0, 10.0, 5.0, 5.0)
R, K = 40, 3


@pytest.fixture
def second_stage():
    """Outputs of a second stage on 40 RoIs, of which 40 and 25 are real, with many overlaps."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(-10, 70, (2, R, 2))
    rois = np.concatenate([corner, corner + rng.uniform(20, 50, (2, R, 2))], axis=2)
    logits = rng.normal(0, 1.5, (2, R, K + 1))
    logits[1, 25:] = [-9, 9, 0, 0]  # padding that looks certain
    deltas = rng.normal(0, 1, (2, R, K, 4))
    deltas[0, :3, :, 2:] = 500  # asks for more than the largest growth
    deltas[0, 3:6, :, 0] = 1e4  # moves out of the image
    count = np.array([40, 25], np.int32)
    logits, deltas, rois = (x.astype(np.float32) for x in (logits, deltas, rois))
    return logits, deltas, rois, count, SIZES


def one_image(reference, second_stage, image, threshold, nms_thresh, most):
    """Score, box and class of each detection, class by class as the paper does it."""
    logits, deltas, rois, count, sizes = second_stage
    found = []
    for k in range(K):
        boxes, scores = [], []
        for r in range(count[image]):
            powers = [math.exp(x) for x in logits[image, r].astype(np.float64)]
            box = reference.decode(deltas[image, r, k], rois[image, r], WEIGHTS)
            box = reference.clip(box, sizes[image])
            if (
                powers[k + 1] / sum(powers) > threshold
                and min(box[2] - box[0], box[3] - box[1]) >= 1e-2
            ):
                boxes.append(box)
                scores.append(powers[k + 1] / sum(powers))
        found += [(scores[i], boxes[i], k) for i in reference.nms(boxes, scores, nms_thresh)]
    found.sort(key=lambda detection: -detection[0])
    return found[:most]


@pytest.mark.parametrize(
    ("threshold", "nms_thresh", "most"), [(0.05, 0.5, 100), (0.3, 0.3, 100), (0.05, 0.6, 7)]
)
def test_against_a_slow_reference(reference, second_stage, threshold, nms_thresh, most):
    out = DetectionLayer(threshold, nms_thresh, most, WEIGHTS)(*second_stage)
    assert out["boxes"].shape == (2, most, 4)
    assert {name: x.dtype.name for name, x in out.items()} == {
        "boxes": "float32",
        "scores": "float32",
        "labels": "int32",
        "num_detections": "int32",
    }
    for image in range(2):
        expected = one_image(reference, second_stage, image, threshold, nms_thresh, most)
        n = len(expected)
        assert out["num_detections"][image] == n
        assert n >= 5
        scores, boxes, labels = zip(*expected, strict=True)
        np.testing.assert_allclose(out["scores"][image, :n], scores, rtol=1e-4)
        np.testing.assert_allclose(out["boxes"][image, :n], boxes, atol=1e-3)
        np.testing.assert_array_equal(out["labels"][image, :n], labels)
        assert (out["labels"][image, n:].numpy() == -1).all()
        assert not out["scores"][image, n:].numpy().any()
        assert not out["boxes"][image, n:].numpy().any()


def one_roi(probabilities, **options):
    """Detections of one RoI, or of several equal ones, that stays where it is."""
    logits = np.log(np.array(probabilities, np.float32))[None]
    count = logits.shape[1]
    deltas = np.zeros((1, count, logits.shape[2] - 1, 4), np.float32)
    rois = np.tile(np.array([[[10, 10, 30, 40]]], np.float32), (1, count, 1))
    out = DetectionLayer(**options)(logits, deltas, rois, np.array([count], np.int32), SIZES[:1])
    n = int(out["num_detections"][0])
    return [
        (int(label), round(float(score), 3))
        for label, score in zip(out["labels"][0, :n], out["scores"][0, :n], strict=True)
    ]


def test_equal_boxes_of_different_classes_both_stay():
    assert one_roi([[0.1, 0.3, 0.6]]) == [(1, 0.6), (0, 0.3)]


def test_equal_boxes_of_one_class_leave_the_best():
    assert one_roi([[0.5, 0.49, 0.01], [0.2, 0.75, 0.05]]) == [(0, 0.75)]


def test_background_is_no_detection():
    assert one_roi([[0.98, 0.01, 0.01]]) == []
    assert one_roi([[0.94, 0.06, 1e-9]]) == [(0, 0.06)]


def test_images_without_detections_get_padding_alone():
    logits, deltas = np.zeros((2, 5, 3), np.float32), np.zeros((2, 5, 2, 4), np.float32)
    rois, count = np.ones((2, 5, 4), np.float32), np.array([5, 0], np.int32)
    for case in (rois, rois * np.array([0, 0, 40, 40], np.float32)):  # no area; no RoI, no score
        out = DetectionLayer(0.5, max_detections=4)(logits, deltas, case, count, SIZES)
        assert out["num_detections"].numpy().tolist() == [0, 0]
        assert (out["labels"].numpy() == -1).all()
        assert not out["boxes"].numpy().any()
        assert not out["scores"].numpy().any()


def test_threshold_of_zero_finds_no_padding():
    """Scores that are set to zero, of padding and of empty boxes, are never detections."""
    logits, deltas = np.zeros((1, 3, 2), np.float32), np.zeros((1, 3, 1, 4), np.float32)
    rois = np.array([[[0, 0, 20, 20], [5, 5, 5, 9], [50, 50, 70, 70]]], np.float32)
    count = np.array([2], np.int32)
    out = DetectionLayer(0.0, max_detections=9)(logits, deltas, rois, count, SIZES[:1])
    assert out["num_detections"].numpy().tolist() == [1]
    np.testing.assert_allclose(out["boxes"][0, 0], rois[0, 0], atol=1e-4)


def test_boxes_stay_float32_under_mixed_precision(mixed_bfloat16):
    logits = np.array([[[0, 9]]], np.float32)
    rois = np.array([[[1001, 1003, 1035, 1041]]], np.float32)  # bfloat16 knows 1000, 1032, 1040
    deltas, count = np.zeros((1, 1, 1, 4), np.float32), np.array([1], np.int32)
    out = DetectionLayer()(logits, deltas, rois, count, np.array([[2000, 2000]]))
    np.testing.assert_allclose(out["boxes"][0, 0], rois[0, 0], atol=1e-3)


def test_works_in_a_graph_of_unknown_batch(second_stage):
    layer = DetectionLayer()
    specs = [tf.TensorSpec((None, *x.shape[1:]), x.dtype) for x in second_stage]
    graph = tf.function(lambda *args: layer(*args), input_signature=specs)
    for name, value in layer(*second_stage).items():
        np.testing.assert_allclose(graph(*second_stage)[name], value, atol=1e-4)


def test_margins_are_scored_by_their_sigmoid(second_stage):
    """A softmax over a class and a background of logit 0 is the sigmoid of the class's logit."""
    logits, deltas, rois, count, sizes = second_stage
    margins = logits[..., 1:2]
    as_softmax = np.concatenate([np.zeros_like(margins), margins], axis=-1)
    by_margin = DetectionLayer(0.3, 0.5, 20, WEIGHTS, margins=True)
    by_softmax = DetectionLayer(0.3, 0.5, 20, WEIGHTS)
    expected = by_softmax(as_softmax, deltas[:, :, :1], rois, count, sizes)
    for name, values in by_margin(margins, deltas[:, :, :1], rois, count, sizes).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-6)


def test_the_number_of_rois_may_be_unknown(second_stage):
    layer = DetectionLayer(0.05, 0.5, 20, WEIGHTS)
    graph = tf.function(
        lambda *x: layer(*x),
        [
            tf.TensorSpec((None, None, K + 1)),
            tf.TensorSpec((None, None, K, 4)),
            tf.TensorSpec((None, None, 4)),
            tf.TensorSpec((None,), tf.int32),
            tf.TensorSpec((None, 2), tf.int32),
        ],
    )
    expected = layer(*second_stage)
    for name, values in graph(*second_stage).items():
        np.testing.assert_allclose(values, expected[name], atol=1e-4)


def test_portable_detections_are_the_native_ones_with_more_candidates_than_are_sorted():
    """All 9,000 scores pass a threshold of 0; the best 2,048 are enough for 100 detections."""
    rng = np.random.default_rng(2)
    corner = rng.uniform(0, 500, (1, 300, 2))
    rois = np.concatenate([corner, corner + rng.uniform(10, 80, corner.shape)], axis=2)
    logits, deltas = rng.normal(0, 2, (1, 300, 31)), rng.normal(0, 1, (1, 300, 30, 4))
    inputs = [x.astype("float32") for x in (logits, deltas, rois)]
    inputs += [np.int32([300]), np.int32([(600, 600)])]
    native = DetectionLayer(0.0, 0.5, 100, WEIGHTS)(*inputs)
    portable = DetectionLayer(0.0, 0.5, 100, WEIGHTS, kernels="portable")(*inputs)
    assert native["num_detections"] == [100]
    for name, expected in native.items():
        np.testing.assert_array_equal(portable[name], expected)
