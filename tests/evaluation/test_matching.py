"""IoU, the assignment of objects to detections, and the refusal of what cannot be scored."""

from dataclasses import replace

import numpy as np
import pytest
from pycocotools import mask as run_length

from rcnn_keras.evaluation import box_iou, coco_results, mask_iou
from rcnn_keras.evaluation.matching import object_masks, pair_detections

BOX, OTHER = [0, 0, 40, 40], [60, 0, 100, 40]
ROW = {"image_id": 1, "category_id": 3, "score": 0.5, "bbox": [0, 0, 40, 40]}


def test_box_iou_is_that_computed_by_hand():
    found = [[0, 0, 8, 8], [2, 2, 2, 9], [-4, 0, 4, 4]]
    objects = [[0, 0, 8, 4], [0, 0, 16, 16], [5, 5, 5, 5]]
    expected = [[1 / 2, 64 / 256, 0], [0, 0, 0], [16 / 48, 16 / 272, 0]]
    np.testing.assert_allclose(box_iou(found, objects), expected, atol=1e-12)
    of_own_area = [[1 / 2, 1, 0], [0, 0, 0], [1 / 3, 1 / 2, 0]]
    got = box_iou(found, objects, crowd=[False, True, True])
    np.testing.assert_allclose(got, of_own_area, atol=1e-12)
    assert box_iou([], objects).shape == (0, 3)
    assert box_iou(found, np.zeros((0, 4))).shape == (3, 0)


def encode(*masks):
    return [run_length.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]


def test_mask_iou_is_that_of_the_pixels():
    rng = np.random.default_rng(0)
    a, b = rng.uniform(size=(3, 9, 7)) < 0.5, rng.uniform(size=(4, 9, 7)) < 0.7
    a[2] = False
    both = (a[:, None] & b).sum((2, 3))
    expected = both / (a[:, None] | b).sum((2, 3))
    np.testing.assert_allclose(mask_iou(encode(*a), encode(*b)), expected)
    region = np.array([True, False, True, False])
    area = np.maximum(a.sum((1, 2)), 1)[:, None]
    expected = np.where(region, both / area, expected)
    np.testing.assert_allclose(mask_iou(encode(*a), encode(*b), region), expected)
    with pytest.raises(ValueError, match=r"different heights and widths: \[\(7, 9\), \(9, 7\)\]"):
        mask_iou(encode(*a), encode(b[0].T))


def test_polygons_run_lengths_and_boxes_give_the_same_object_masks(mask_scene):
    mask_scene.image([(0, BOX)] * 4)
    record = mask_scene.records[0]
    whole = np.zeros((200, 200), np.uint8)
    whole[:40, :40] = 1
    columns = [0, *([40, 160] * 39), 40, 40000 - 40 * 200 + 160]
    written = [[0, 0, 40, 0, 40, 40, 0, 40]], {"size": [200, 200], "counts": columns}
    record = replace(record, segmentations=(*written, encode(whole)[0], None))
    masks = object_masks(record)
    for mask in masks:
        np.testing.assert_array_equal(run_length.decode(mask), whole)
    assert object_masks(replace(record, segmentations=None))[0] == masks[3]


def test_the_highest_score_is_assigned_its_object_first(scene):
    """The second fits the first object best too; the third gets the object that is left."""
    near = [10, 0, 50, 40]
    scene.image([(0, BOX), (0, near)], [(0, s, BOX) for s in (0.7, 0.9, 0.8)])
    (pairs,) = pair_detections(scene.dataset, scene.detections)
    np.testing.assert_allclose(pairs.scores, [0.9, 0.8, 0.7], rtol=1e-6)
    assert pairs.indices.tolist() == [1, 2, 0]
    allowed = np.ones((3, 2), bool)
    assert pairs.assign(allowed, 0.5).tolist() == [0, 1, -1]
    assert pairs.assign(allowed & [False, True], 0.5).tolist() == [1, -1, -1]
    assert pairs.assign(allowed, 0.7).tolist() == [0, -1, -1]


def test_a_score_that_float32_rounds_to_the_threshold_counts(scene):
    scene.image([], [(0, 0.7, BOX), (0, 0.6999, BOX)])  # 0.7 in float32 is below 0.7
    (pairs,) = pair_detections(scene.dataset, scene.detections, min_score=0.7)
    assert pairs.indices.tolist() == [0]
    (pairs,) = pair_detections(scene.dataset, [{**ROW, "score": 0.3}], min_score=0.3)
    assert pairs.indices.tolist() == [0]


def test_every_image_is_yielded_in_order_also_without_detections(scene):
    for _ in range(3):
        scene.image([(0, BOX)])
    scene.image([], [(2, 0.5, OTHER)])
    shapes = [pairs.overlaps.shape for pairs in pair_detections(scene.dataset, scene.detections)]
    assert shapes == [(0, 1)] * 3 + [(1, 0)]
    rows = coco_results(scene.dataset, scene.detections)
    (*_, last) = pair_detections(scene.dataset, rows)
    assert (last.labels.tolist(), last.scores.tolist()) == ([2], [0.5])


def changed(found, **fields):
    return {1: replace(found[1], **fields)}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"scores": np.float32([np.nan])}, r"1\.png \(image 1\): detection 0: score .* nan"),
        ({"scores": np.float32([np.inf])}, r"1\.png \(image 1\): detection 0: score .* inf"),
        ({"boxes": np.float32([[0, 0, np.nan, 1]])}, r"1\.png .*: detection 0: box .*nan"),
        ({"classes": ("cat", "dog")}, r"image 1: the detections' classes \['cat', 'dog'\]"),
    ],
)
def test_detections_that_cannot_be_scored_are_refused(scene, fields, message):
    scene.image([(0, BOX)], [(0, 0.5, BOX)])
    with pytest.raises(ValueError, match=message):
        pair_detections(scene.dataset, changed(scene.detections, **fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bbox": [0, 0, 4]}, r"row 1: bbox \[0, 0, 4\] is not x, y, width, height"),
        ({"category_id": 4}, "row 1: category_id 4 is not in the dataset"),
        ({"image_id": 8}, r"images that are not in the dataset: \[8\]"),
        ({"score": float("nan")}, r"1\.png \(image 1\): detection 1: score .* nan"),
    ],
)
def test_result_rows_that_cannot_be_scored_are_refused(scene, fields, message):
    scene.image([(0, BOX)])
    with pytest.raises(ValueError, match=message):
        pair_detections(scene.dataset, [ROW, ROW | fields])


def test_a_result_row_without_a_score_is_refused(scene):
    scene.image([(0, BOX)])
    bare = {name: value for name, value in ROW.items() if name != "score"}
    with pytest.raises(ValueError, match="row 0 has no score"):
        pair_detections(scene.dataset, [bare])


def test_a_list_of_detections_without_image_ids_is_refused(scene):
    scene.image([(0, BOX)], [(0, 0.5, BOX)])
    with pytest.raises(ValueError, match=r"Detections by image id, .* element 0 is of Detections"):
        pair_detections(scene.dataset, list(scene.detections.values()))


def test_masks_that_are_missing_or_of_another_size_are_refused(mask_scene, scene):
    mask_scene.image([(0, BOX)], [(0, 0.5, BOX)])
    with pytest.raises(ValueError, match="row 0 has no segmentation"):
        pair_detections(mask_scene.dataset, [ROW], kind="mask")
    with pytest.raises(ValueError, match="have no masks"):
        pair_detections(mask_scene.dataset, changed(mask_scene.detections, masks=None), kind="mask")
    other = changed(mask_scene.detections, image_size=(100, 200))
    with pytest.raises(ValueError, match=r"1\.png .*: the mask is of \(100, 200\) pixels"):
        pair_detections(mask_scene.dataset, other, kind="mask")
    scene.image([(0, BOX)])
    with pytest.raises(ValueError, match=r"1\.png: object 0 has no segmentation"):
        pair_detections(scene.dataset, {}, kind="mask")


def test_detections_of_an_unknown_image_are_refused(scene):
    scene.image([(0, BOX)], [(0, 0.5, BOX)])
    with pytest.raises(ValueError, match=r"images that are not in the dataset: \[7\]"):
        pair_detections(scene.dataset, {7: scene.detections[1]})
