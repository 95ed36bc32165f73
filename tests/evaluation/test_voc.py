"""Pascal VOC's average precision: worked by hand, by plain loops and by pycocotools."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rcnn_keras.evaluation import VocScores, coco_results

A, B, FAR = [0, 0, 40, 40], [60, 0, 100, 40], [120, 120, 160, 160]


def curve(scene, name="cat", **options):
    return VocScores(scene.dataset, scene.detections, **options).curves[name]


def both(scene):
    """AP of the class cat by area and by 11 points."""
    return [
        VocScores(scene.dataset, scene.detections, protocol=protocol).summary()["AP/cat"]
        for protocol in ("voc", "voc07")
    ]


def test_precision_and_its_interpolation_are_those_computed_by_hand(scene):
    """Of four objects three are found, after one and after two more false alarms."""
    objects = [(0, A), (0, B), (0, [0, 60, 40, 100]), (0, [60, 60, 100, 100])]
    found = [(0, 0.9, A), (0, 0.8, FAR), (0, 0.7, B), (0, 0.6, FAR), (0, 0.5, FAR)]
    scene.image(objects, [*found, (0, 0.4, [0, 60, 40, 100])])
    got = curve(scene)
    assert got.positives == 4
    np.testing.assert_allclose(got.scores, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4], rtol=1e-6)
    np.testing.assert_allclose(got.recall, [1 / 4, 1 / 4, 2 / 4, 2 / 4, 2 / 4, 3 / 4])
    np.testing.assert_allclose(got.precision, [1, 1 / 2, 2 / 3, 2 / 4, 2 / 5, 3 / 6])
    np.testing.assert_allclose(got.interpolated, [1, 2 / 3, 2 / 3, 1 / 2, 1 / 2, 1 / 2])
    # recall 0, .1, .2 at 1; .3, .4, .5 at 2/3; .6, .7 at 1/2; .8, .9, 1 not reached
    expected = [(1 + 2 / 3 + 1 / 2) / 4, (3 * 1 + 3 * 2 / 3 + 2 * 1 / 2) / 11]
    np.testing.assert_allclose(both(scene), expected)


def test_three_of_ten_reach_a_recall_of_three_tenths(scene):
    """In floating point 3 * 0.1 is above 3 / 10."""
    boxes = [[10 * i, 0, 10 * i + 9, 9] for i in range(10)]
    scene.image([(0, box) for box in boxes], [(0, 0.9, box) for box in boxes[:3]])
    np.testing.assert_allclose(both(scene), [0.3, 4 / 11])


def test_a_second_detection_of_an_object_is_wrong(scene):
    scene.image([(0, A)], [(0, 0.5, A), (0, 0.9, [0, 0, 40, 36])])
    assert curve(scene).hits.tolist() == [True, False]
    assert both(scene) == [1.0, 1.0]
    scene.image([(0, A)], [(0, 0.4, A)])
    np.testing.assert_allclose(curve(scene).precision, [1, 1 / 2, 2 / 3])


def test_a_detection_is_compared_with_the_object_overlapped_most_only(scene):
    """The second one overlaps both objects by more than a half, the taken one more: wrong."""
    near = [10, 0, 50, 40]  # of A: 30 / 50
    scene.image([(0, A), (0, near)], [(0, 0.9, A), (0, 0.8, [4, 0, 44, 40])])
    assert curve(scene).hits.tolist() == [True, False]
    dataset, rows = scene.dataset, coco_results(scene.dataset, scene.detections)
    coco = coco_evaluation(dataset, rows, 0.5, [1.0]).eval["precision"]
    assert coco[0, 0, 0, 0, -1] == pytest.approx(1)


def test_an_iou_equal_to_the_threshold_is_enough(scene):
    scene.image([(0, A)], [(0, 0.9, [0, 0, 40, 20])])
    assert curve(scene).hits.tolist() == [True]
    assert curve(scene, iou=0.501).hits.tolist() == [False]


def test_difficult_objects_and_their_detections_do_not_count(scene):
    """Any number of detections on one are ignored; IoU counts, lying inside is not enough."""
    found = [(0, 0.9, B), (0, 0.8, B), (0, 0.7, [60, 0, 70, 40]), (0, 0.6, A)]
    scene.image([(0, A), (0, B)], found, difficult=[1])
    got = curve(scene)
    assert got.positives == 1
    np.testing.assert_allclose(got.scores, [0.7, 0.6], rtol=1e-6)
    assert got.hits.tolist() == [False, True]
    np.testing.assert_allclose(both(scene), [0.5, 0.5])


def test_a_detection_that_overlaps_a_difficult_object_most_is_ignored(scene):
    scene.image([(0, A), (0, [8, 0, 48, 40])], [(0, 0.9, [6, 0, 46, 40])], difficult=[1])
    assert curve(scene).hits.tolist() == []
    assert both(scene) == [0.0, 0.0]


def test_a_detection_on_a_difficult_object_of_another_class_is_wrong(scene):
    scene.image([(1, B), (0, A)], [(0, 0.9, B)], difficult=[0])
    assert curve(scene).hits.tolist() == [False]
    assert curve(scene, "dog").positives == 0


def test_detections_inside_crowd_regions_are_ignored(scene):
    crowd = [0, 60, 200, 200]
    found = [(0, 0.9, FAR), (0, 0.8, [0, 40, 10, 60]), (1, 0.7, FAR), (0, 0.6, A)]
    scene.image([(0, A), (0, crowd)], found, crowd=[1])
    assert curve(scene).hits.tolist() == [False, True]
    assert curve(scene, "dog").hits.tolist() == [False]


def test_classes_without_objects_are_not_in_the_mean(scene):
    scene.image([(0, A), (1, B)], [(0, 0.9, A), (2, 0.9, FAR)])
    summary = VocScores(scene.dataset, scene.detections).summary()
    assert list(summary) == ["mAP", "AP/cat", "AP/dog", "AP/owl"]
    np.testing.assert_equal(list(summary.values()), [0.5, 1.0, 0.0, np.nan])
    assert np.isnan(curve(scene, "owl").recall).all()


@pytest.mark.parametrize("protocol", ["voc", "voc07"])
def test_without_objects_ap_is_nan_and_without_detections_zero(scene, protocol):
    nothing = VocScores(scene.dataset, {}, protocol=protocol).summary()
    assert all(np.isnan(score) for score in nothing.values())
    scene.image([], [(0, 0.9, A)])
    alone = VocScores(scene.dataset, scene.detections, protocol=protocol).summary()
    assert all(np.isnan(score) for score in alone.values())
    scene.image([(0, A)])
    assert VocScores(scene.dataset, {}, protocol=protocol).summary()["AP/cat"] == 0.0


def slow_average_precisions(scene, label, iou):
    """The rules as loops: AP by area and by 11 points; exact fractions of overlap in float64."""

    def overlap(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return 0.0
        area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return width * height / (sum(area) - width * height)

    queue = [
        (-float(score), image_id, [float(v) for v in box])
        for image_id, found in scene.detections.items()
        for box, score, k in zip(found.boxes, found.scores, found.labels, strict=True)
        if k == label
    ]
    truth = {
        r.image_id: [
            list(map(float, b)) for b, k in zip(r.boxes, r.labels, strict=True) if k == label
        ]
        for r in scene.records
    }
    positives, used, points = sum(map(len, truth.values())), set(), []
    right = 0
    for count, (_, image_id, box) in enumerate(sorted(queue), start=1):
        overlaps = [overlap(box, other) for other in truth[image_id]]
        best = max(overlaps, default=0)
        place = (image_id, overlaps.index(best) if overlaps else None)
        if best >= iou and place not in used:
            used.add(place)
            right += 1
        points.append((right / positives, right / count))
    ends = sorted({recall for recall, _ in points if recall > 0})
    area, before = 0.0, 0.0
    for end in ends:
        area += (end - before) * max(p for r, p in points if r >= end)
        before = end
    levels = [k / 10 - 1e-9 for k in range(11)]
    eleven = [max((p for r, p in points if r >= level), default=0) for level in levels]
    return area, sum(eleven) / 11


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_scores_equal_those_of_slow_loops(random_scene, iou):
    for protocol, which in (("voc", 0), ("voc07", 1)):
        scores = VocScores(
            random_scene.dataset, random_scene.detections, protocol=protocol, iou=iou
        )
        for label, name in enumerate(scores.classes):
            expected = slow_average_precisions(random_scene, label, iou)[which]
            assert scores.average_precision(name) == pytest.approx(expected, abs=1e-12)
            assert 0 < expected < 1 or iou > 0.5


def coco_evaluation(dataset, rows, iou, recalls):
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset.to_coco()
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(row) for row in rows]), "bbox")
        evaluation.params.iouThrs = np.array([iou])
        evaluation.params.recThrs = np.array(recalls)
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


@pytest.mark.parametrize("seed", range(3))
def test_the_area_equals_pycocotools_at_all_reached_recalls(scene, seed):
    """Objects apart, so that the protocols agree; at recalls 1/P .. P/P, the sum is the area.

    At its own 101 recalls pycocotools is off by less than a step of 0.01 for each of the falls.
    """
    rng = np.random.default_rng(seed)
    places = np.array(
        [[x, y, x + 30, y + 30] for x in range(0, 200, 40) for y in range(0, 200, 40)]
    )
    for _ in range(4):
        boxes = places[rng.permutation(25)[: rng.integers(1, 20)]]
        moved = boxes[rng.integers(0, len(boxes), 30)] + rng.normal(0, 3.5, (30, 4))
        scores = rng.permutation(30) / 30
        scene.image(
            [(0, box) for box in boxes.tolist()],
            [(0, *pair) for pair in zip(scores.tolist(), moved.tolist(), strict=True)],
        )
    dataset, rows = scene.dataset, coco_results(scene.dataset, scene.detections)
    got = VocScores(dataset, rows).curves["cat"]
    recalls = np.arange(1, got.positives + 1) / got.positives
    precision = coco_evaluation(dataset, rows, 0.5, recalls).eval["precision"][0, :, 0, 0, -1]
    assert got.area() == pytest.approx(precision.mean(), abs=1e-9)
    assert 0.2 < got.area() < 0.95
    sampled = coco_evaluation(dataset, rows, 0.5, np.linspace(0, 1, 101))
    assert got.area() == pytest.approx(sampled.eval["precision"][0, :, 0, 0, -1].mean(), abs=0.01)


def test_masks_are_compared_by_their_pixels(mask_scene):
    """A box of 40 x 40 filled on its left alone: IoU of boxes 1, of masks a half."""
    mask_scene.image([(0, A)], [(0, 0.9, A)])
    mask_scene.detections[1].masks[:, :, 14:] = 0
    assert curve(mask_scene).hits.tolist() == [True]
    assert curve(mask_scene, kind="mask", iou=0.6).hits.tolist() == [False]
    assert curve(mask_scene, kind="mask", iou=0.4).hits.tolist() == [True]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"protocol": "voc2007"}, "protocol must be 'voc07' or 'voc', not 'voc2007'"),
        ({"iou": 50}, r"iou must be in 0\.\.1, not 50"),
        ({"iou": float("nan")}, r"iou must be in 0\.\.1, not nan"),
        ({"iou": 0}, "iou must be above 0"),
        ({"kind": "segm"}, "kind must be 'box' or 'mask', not 'segm'"),
        ({"kind": "mask"}, r"1\.png: object 0 has no segmentation"),
    ],
)
def test_arguments_out_of_range_are_refused(scene, options, message):
    scene.image([(0, A)])
    with pytest.raises(ValueError, match=message):
        VocScores(scene.dataset, {}, **options)
