"""The confusion matrix against small scenes counted by hand, and against loops."""

import numpy as np
import pytest

from rcnn_keras.evaluation import ConfusionMatrix

A, B, FAR = [0, 0, 40, 40], [60, 0, 100, 40], [120, 120, 160, 160]


def counts(scene, **options):
    """The nonzero entries by the names of truth and found."""
    table = ConfusionMatrix(scene.dataset, scene.detections, **options).table()
    return {
        (truth, found): count
        for truth, row in table.items()
        for found, count in row.items()
        if count
    }


def test_correct_confused_missed_and_spurious_detections_are_counted(scene):
    scene.image([(0, A), (1, B), (1, FAR)], [(0, 0.9, A), (0, 0.8, B), (2, 0.7, [0, 80, 40, 120])])
    assert counts(scene) == {
        ("cat", "cat"): 1,
        ("dog", "cat"): 1,
        ("dog", "background"): 1,
        ("background", "owl"): 1,
    }
    matrix = ConfusionMatrix(scene.dataset, scene.detections)
    assert matrix.names == ("cat", "dog", "owl", "background")
    assert matrix.counts.tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 0, 1, 0]]
    shares = [[1, 0, 0, 0], [0.5, 0, 0, 0.5], [np.nan] * 4, [0, 0, 1, 0]]
    np.testing.assert_array_equal(matrix.shares(), shares)


def test_the_higher_score_is_matched_whatever_its_class(scene):
    scene.image([(0, A)], [(0, 0.7, A), (1, 0.8, A)])
    assert counts(scene) == {("cat", "dog"): 1, ("background", "cat"): 1}
    assert counts(scene, min_score=0.75) == {("cat", "dog"): 1}
    assert counts(scene, min_score=0.9) == {("cat", "background"): 1}


def test_of_equal_overlaps_the_object_of_the_own_class_is_matched(scene):
    scene.image([(0, A), (1, A)], [(1, 0.9, A), (0, 0.8, A)])
    assert counts(scene) == {("cat", "cat"): 1, ("dog", "dog"): 1}


def test_an_iou_equal_to_the_threshold_is_enough(scene):
    scene.image([(0, A)], [(0, 0.9, [0, 0, 40, 20])])
    assert counts(scene) == {("cat", "cat"): 1}
    assert counts(scene, iou=0.51) == {("cat", "background"): 1, ("background", "cat"): 1}


def test_crowd_and_difficult_objects_and_their_detections_are_left_out(scene):
    crowd, inside = [100, 0, 200, 200], [110, 10, 130, 30]
    objects = [(0, crowd), (1, A), (0, B)]
    found = [(0, 0.9, inside), (1, 0.9, inside), (1, 0.9, A), (0, 0.8, A), (1, 0.7, [0, 0, 9, 9])]
    scene.image(objects, found, crowd=[0], difficult=[1])
    assert counts(scene) == {("cat", "background"): 1, ("background", "dog"): 1}


def test_without_objects_or_detections_only_background_is_counted(scene):
    assert counts(scene) == {}
    scene.image([], [(0, 0.9, A)])
    assert counts(scene) == {("background", "cat"): 1}
    scene.detections.clear()
    scene.image([(1, B)])
    assert counts(scene) == {("dog", "background"): 1}


def test_masks_are_compared_by_their_pixels(mask_scene):
    mask_scene.image([(0, A)], [(1, 0.9, A)])
    mask_scene.detections[1].masks[:, 14:] = 0
    assert counts(mask_scene, iou=0.6) == {("cat", "dog"): 1}
    apart = {("cat", "background"): 1, ("background", "dog"): 1}
    assert counts(mask_scene, iou=0.6, kind="mask") == apart


@pytest.mark.parametrize("iou", [0.2, 0.35, 0.5])
def test_counts_equal_those_of_slow_loops(random_scene, iou):
    def overlap(a, b):
        width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
        if width <= 0 or height <= 0:
            return 0.0
        area = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
        return width * height / (sum(area) - width * height)

    expected = np.zeros((4, 4), int)
    for record in random_scene.records:
        free = dict(enumerate(zip(record.boxes.tolist(), record.labels, strict=True)))
        found = random_scene.detections.get(record.image_id)
        for i in [] if found is None else np.argsort(-found.scores):
            if found.scores[i] < 0.2:
                continue
            box = found.boxes[i].tolist()
            best = max(free, key=lambda k: overlap(box, free[k][0]), default=None)
            if best is not None and overlap(box, free[best][0]) >= iou:
                expected[free.pop(best)[1], found.labels[i]] += 1
            else:
                expected[3, found.labels[i]] += 1
        for _, label in free.values():
            expected[label, 3] += 1
    got = ConfusionMatrix(random_scene.dataset, random_scene.detections, iou=iou, min_score=0.2)
    np.testing.assert_array_equal(got.counts, expected)
    assert (expected[:3, :3] > 0).sum() > 3
    assert expected[3].sum() > 3
