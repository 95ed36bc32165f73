"""Kinds of detections: each by hand, and the right ones as pycocotools matches them."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rcnn_keras.evaluation import ConfusionMatrix, DetectionErrors, coco_results
from rcnn_keras.evaluation.errors import KINDS, MISSED

A, B, FAR = [0, 0, 40, 40], [60, 0, 100, 40], [120, 120, 160, 160]
THIRD = [0, 20, 40, 60]  # IoU with A: 20 / 60
TENTH = [0, 0, 40, 4]  # IoU with A: 1 / 10


def kinds(scene, **options):
    """The kinds in the order in which the detections were written down, with their objects."""
    errors = DetectionErrors(scene.dataset, scene.detections, **options)
    order = np.lexsort((errors.indices, errors.image_ids))
    return [(KINDS[errors.kinds[i]], int(errors.objects[i])) for i in order]


def one(scene, label, box, **options):
    scene.image([(0, A), (1, B)], [(label, 0.9, box)])
    (kind,) = kinds(scene, **options)
    return kind


@pytest.mark.parametrize(
    ("label", "box", "kind", "place"),
    [
        (0, A, "true positive", 0),
        (0, THIRD, "localisation", 0),
        (0, TENTH, "localisation", 0),
        (0, [0, 0, 40, 3.9], "background", -1),
        (0, FAR, "background", -1),
        (0, B, "wrong class", 1),
        (2, A, "wrong class", 0),
        (2, THIRD, "class and localisation", 0),
        (2, TENTH, "class and localisation", 0),
        (2, [0, 0, 40, 3.9], "background", -1),
        (1, [0, 0, 40, 20], "wrong class", 0),  # IoU of a half is enough
        (0, [0, 0, 40, 20], "true positive", 0),
    ],
)
def test_each_kind_is_that_found_by_hand(scene, label, box, kind, place):
    assert one(scene, label, box) == (kind, place)


def test_the_thresholds_decide_the_kinds(scene):
    scene.image([(0, A)], [(0, 0.9, THIRD), (0, 0.8, TENTH), (2, 0.7, THIRD), (0, 0.2, A)])
    wide = ("true positive", "duplicate", "wrong class")
    assert [kind for kind, _ in kinds(scene, iou=0.3, background_iou=0.3)] == [
        *(wide[0], "background", wide[2])
    ]
    assert [kind for kind, _ in kinds(scene, iou=0.1)] == [*wide]
    assert [kind for kind, _ in kinds(scene, background_iou=0.2, min_score=0.2)] == [
        *("localisation", "background", "class and localisation", "true positive")
    ]


def test_a_duplicate_is_one_whose_object_is_matched_by_a_higher_score(scene):
    scene.image([(0, A)], [(0, 0.6, A), (0, 0.9, [0, 0, 40, 30]), (0, 0.7, THIRD)])
    assert kinds(scene) == [("duplicate", 0), ("true positive", 0), ("localisation", 0)]


def test_a_detection_is_matched_to_the_unmatched_object_beside_a_matched_one(scene):
    near = [10, 0, 50, 40]
    scene.image([(0, A), (0, near)], [(0, 0.9, A), (0, 0.8, [4, 0, 44, 40])])
    assert kinds(scene) == [("true positive", 0), ("true positive", 1)]


def test_errors_with_the_own_class_come_before_those_with_another(scene):
    """On the dog with IoU 1, called cat: a third of a cat, or a whole taken one, explains it."""
    scene.image([(0, A), (1, THIRD)], [(0, 0.9, THIRD)])
    scene.image([(0, A), (1, A)], [(0, 0.9, A), (0, 0.8, A)])
    scene.image([(1, THIRD), (0, FAR)], [(0, 0.9, THIRD)])
    assert [kind for kind, _ in kinds(scene)] == [
        *("localisation", "true positive", "duplicate", "wrong class")
    ]


def test_detections_in_crowd_regions_of_their_class_are_ignored_by_their_own_area(scene):
    region = [100, 0, 200, 200]
    inside, half, outside = [110, 10, 130, 30], [90, 0, 110, 20], [80, 0, 110, 20]
    found = [(0, 0.9, inside), (0, 0.8, inside), (0, 0.7, half), (0, 0.6, outside)]
    scene.image([(0, region), (0, A)], [*found, (1, 0.9, inside), (0, 0.9, A)], crowd=[0])
    ignored, background = ("ignored", 0), ("background", -1)
    right = ("true positive", 1)
    assert kinds(scene) == [*[ignored] * 3, background, background, right]
    assert DetectionErrors(scene.dataset, {}).missed.tolist() == [[1, 1, 0]]


def test_detections_on_difficult_objects_are_ignored_by_iou(scene):
    """A small part of a crowd region is excused, one of a difficult object is background."""
    found = [(0, 0.9, A), (0, 0.8, A), (0, 0.7, [0, 0, 10, 10]), (0, 0.6, THIRD)]
    scene.image([(0, A)], found, difficult=[0])
    assert kinds(scene) == [("ignored", 0)] * 2 + [("background", -1)] * 2
    scene.records.clear()
    scene.image([(0, A)], crowd=[0])
    assert [kind for kind, _ in kinds(scene)] == ["ignored"] * 3 + ["ignored"]


def test_the_table_counts_by_class(scene):
    scene.image([(0, A), (0, FAR), (1, B)], [(0, 0.9, A), (0, 0.8, A), (2, 0.7, B), (1, 0.1, B)])
    scene.image([(2, A)], [(0, 0.6, B)])
    table = DetectionErrors(scene.dataset, scene.detections).table()
    assert list(table) == ["cat", "dog", "owl"]
    assert list(table["cat"]) == ["objects", *KINDS, MISSED]
    counted = {name: {k: v for k, v in row.items() if v} for name, row in table.items()}
    assert counted == {
        "cat": {"objects": 2, "true positive": 1, "duplicate": 1, "background": 1, "missed": 1},
        "dog": {"objects": 1, "missed": 1},
        "owl": {"objects": 1, "wrong class": 1, "missed": 1},
    }


def test_the_worst_are_the_highest_scores_and_the_largest_missed_objects(scene):
    large = [0, 100, 90, 190]
    scene.image([(0, A), (1, large)], [(0, 0.6, FAR), (0, 0.9, B)])
    scene.image([(2, B)], [(1, 0.8, FAR), (0, 0.7, THIRD)])
    errors = DetectionErrors(scene.dataset, scene.detections)
    worst = errors.worst("background", 2)
    assert [(c.image_id, c.label, c.detection, c.object) for c in worst] == [
        *((1, 0, 1, -1), (2, 1, 0, -1))
    ]
    assert [c.score for c in worst] == pytest.approx([0.9, 0.8])
    assert [c[1:5] for c in errors.worst(MISSED, 5)] == [
        (1, 1, -1, 1),
        (1, 0, -1, 0),
        (2, 2, -1, 0),
    ]
    assert errors.worst("duplicate", 3) == []
    with pytest.raises(ValueError, match=r"kind must be one of .* not 'typo'"):
        errors.worst("typo", 1)


def test_without_objects_or_detections_the_table_has_zeros(scene):
    empty = DetectionErrors(scene.dataset, {})
    assert all(set(row.values()) == {0} for row in empty.table().values())
    scene.image()
    scene.image([], [(0, 0.9, A)])
    assert kinds(scene) == [("background", -1)]
    nothing = DetectionErrors(scene.dataset, {})
    assert all(set(row.values()) == {0} for row in nothing.table().values())
    assert nothing.worst(MISSED, 3) == nothing.worst("background", 3) == []


@pytest.mark.parametrize("iou", [0.3, 0.5, 0.75])
def test_true_positives_and_ignored_ones_are_those_of_pycocotools(random_scene, iou):
    """Some objects made crowd; a detection is right, ignored or wrong as in its evalImgs."""
    rng = np.random.default_rng(9)
    for record in random_scene.records:
        object.__setattr__(record, "crowd", rng.uniform(size=len(record)) < 0.3)
    dataset = random_scene.dataset
    rows = coco_results(dataset, random_scene.detections)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset.to_coco()
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes([dict(row) for row in rows]), "bbox")
        evaluation.params.iouThrs = np.array([iou])
        evaluation.evaluate()
    expected = {}
    for image in evaluation.evalImgs:
        if image is not None and image["aRng"] == evaluation.params.areaRng[0]:
            flags = zip(image["dtMatches"][0] > 0, image["dtIgnore"][0], strict=True)
            for number, (matched, ignored) in zip(image["dtIds"], flags, strict=True):
                kind = "ignored" if ignored else "true positive" if matched else "wrong"
                expected[number] = kind  # ids are the rows' numbers, from 1
    starts, last = {}, 0
    for image_id, found in random_scene.detections.items():
        starts[image_id] = last
        last += len(found)
    errors = DetectionErrors(dataset, rows, iou=iou, min_score=0)
    got = {
        starts[image_id] + index + 1: KINDS[kind]
        for image_id, index, kind in zip(
            errors.image_ids.tolist(), errors.indices.tolist(), errors.kinds, strict=True
        )
    }
    counted = {n: k if k in ("ignored", "true positive") else "wrong" for n, k in got.items()}
    assert counted == expected
    assert {"ignored", "true positive", "wrong"} == set(counted.values())


def slow_kind(i, found, record, taken, iou, low):
    """One detection by loops over the objects, in the order of the docstring."""

    def overlap(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return 0.0
        area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return width * height / (sum(area) - width * height)

    box = found.boxes[i].tolist()
    own, other = [0.0], [0.0]
    for k, (label, there) in enumerate(zip(record.labels, record.boxes.tolist(), strict=True)):
        (own if label == found.labels[i] else other).append(overlap(box, there))
        if label == found.labels[i] and taken.get(k) == i:
            return "true positive"
    if max(own) >= iou:
        return "duplicate"
    if max(own) >= low:
        return "localisation"
    if max(other) >= iou:
        return "wrong class"
    return "class and localisation" if max(other) >= low else "background"


def test_kinds_equal_those_of_slow_loops(random_scene):
    errors = DetectionErrors(random_scene.dataset, random_scene.detections, min_score=0)
    seen = set()
    for record in random_scene.records:
        of_image = errors.image_ids == record.image_id
        taken = {
            int(k): int(i)
            for i, k, kind in zip(
                *(a[of_image] for a in (errors.indices, errors.objects, errors.kinds)), strict=True
            )
            if kind == 0
        }
        for i, kind in zip(errors.indices[of_image], errors.kinds[of_image], strict=True):
            found = random_scene.detections[record.image_id]
            assert KINDS[kind] == slow_kind(i, found, record, taken, 0.5, 0.1)
            seen.add(KINDS[kind])
    assert seen == set(KINDS) - {"ignored"}


def test_masks_are_compared_by_their_pixels(mask_scene):
    mask_scene.image([(0, A)], [(0, 0.9, A)])
    mask_scene.detections[1].masks[:, 14:] = 0  # the upper half is left, and a blurred row
    assert kinds(mask_scene) == [("true positive", 0)]
    assert kinds(mask_scene, kind="mask", iou=0.6) == [("localisation", 0)]
    rows = coco_results(mask_scene.dataset, mask_scene.detections)
    again = DetectionErrors(mask_scene.dataset, rows, kind="mask", iou=0.6)
    assert KINDS[again.kinds[0]] == "localisation"
    assert again.overlaps[0] == pytest.approx(0.5, abs=0.03)


def test_a_crowd_region_without_a_mask_fills_its_box(mask_scene):
    mask_scene.image([(0, A)], [(0, 0.9, [5, 5, 15, 15])], crowd=[0])
    object.__setattr__(mask_scene.records[0], "segmentations", None)
    assert kinds(mask_scene, kind="mask") == [("ignored", 0)]


def test_detections_and_result_rows_have_the_same_errors(random_scene):
    dataset, found = random_scene.dataset, random_scene.detections
    rows = DetectionErrors(dataset, coco_results(dataset, found))
    objects = DetectionErrors(dataset, found)
    for name in ("image_ids", "indices", "scores", "labels", "kinds", "objects", "missed"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(objects, name))


@pytest.mark.parametrize("scores", [DetectionErrors, ConfusionMatrix])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iou": 1.5}, r"iou must be in 0\.\.1, not 1\.5"),
        ({"min_score": -0.1}, r"min_score must be in 0\.\.1, not -0\.1"),
        ({"min_score": float("nan")}, r"min_score must be in 0\.\.1, not nan"),
        ({"iou": 0}, "iou"),
        ({"kind": "bbox"}, "kind must be 'box' or 'mask', not 'bbox'"),
    ],
)
def test_arguments_out_of_range_are_refused(scene, scores, options, message):
    with pytest.raises(ValueError, match=message):
        scores(scene.dataset, {}, **options)


@pytest.mark.parametrize("background_iou", [0, 0.6, 2])
def test_background_iou_above_iou_is_refused(scene, background_iou):
    with pytest.raises(ValueError, match=f"background_iou must be .*{background_iou}"):
        DetectionErrors(scene.dataset, {}, background_iou=background_iou)
