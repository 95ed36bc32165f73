"""Keypoints from COCO files and records to batches, and what is refused on the way."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.data import COCO_PERSON, DatasetError, DetectionDataset, Skeleton, check_coco
from rcnn_keras.data.keypoints import flip_pairs_of, numbered_skeleton

NAMES = ["nose", "left_eye", "right_eye"]
POINTS = [30, 20, 2, 25, 15, 1, 0, 0, 0]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corners")
    return rk.data.draw_shapes(8, size=(96, 96), seed=3, out=folder, keypoints=True)


@pytest.fixture
def coco(tmp_path):
    """A function that writes a file of one image of 80 x 60 pixels, and returns its path."""
    Image.new("RGB", (80, 60)).save(tmp_path / "a.png")

    def write(*annotations, categories=None, image="a.png"):
        person = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}
        boxes = {"image_id": 5, "category_id": 1, "bbox": [10, 10, 40, 40]}
        content = {
            "images": [{"id": 5, "file_name": image, "width": 80, "height": 60}],
            "annotations": [{"id": i, **boxes, **a} for i, a in enumerate(annotations, 1)],
            "categories": categories or [person],
        }
        path = tmp_path / "a.json"
        path.write_text(json.dumps(content))
        return path

    return write


def test_names_of_sides_make_pairs():
    assert flip_pairs_of(["nose", "left_eye", "right_eye", "left"]) == ((1, 2),)
    assert flip_pairs_of(["LEye", "REye", "hand.r", "hand.l"]) == ((0, 1), (2, 3))
    assert flip_pairs_of(["leftHand", "rightHand", "bright spot", "blight spot"]) == ((0, 1),)
    assert flip_pairs_of(["left knee", "left ankle", "tail"]) == ()
    assert COCO_PERSON.flip_pairs == tuple((i, i + 1) for i in range(1, 17, 2))
    assert COCO_PERSON.mirrored[:5] == (0, 2, 1, 4, 3)
    assert (len(COCO_PERSON), len(COCO_PERSON.edges)) == (17, 19)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"names": ["a", "a"]}, "different names"),
        ({"names": "nose"}, "not the string"),
        ({"names": ["a", "b"], "flip_pairs": [(0, 2)]}, r"of 0\.\.1, not \(0, 2\)"),
        ({"names": ["a", "b"], "edges": [(1, 1)]}, "two different keypoints"),
        ({"names": ["a", "b", "c"], "flip_pairs": [(0, 1), (1, 2)]}, "each keypoint once"),
    ],
)
def test_keypoints_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Skeleton(**arguments)


def test_a_coco_file_is_read(coco):
    dataset = rk.data.load_coco(coco({"keypoints": POINTS, "num_keypoints": 2}, {}))
    assert dataset.skeleton == Skeleton(tuple(NAMES), ((1, 2),), ((0, 1), (0, 2)))
    expected = [[30, 20, 2], [25, 15, 1], [0, 0, 0]]
    np.testing.assert_array_equal(dataset[0].keypoints, [expected, np.zeros((3, 3))])
    assert dataset.problems == ()


@pytest.mark.parametrize(
    ("annotation", "field", "value", "rule"),
    [
        ({"keypoints": POINTS[:6]}, "keypoints", "[30, 20, 2, 25", "of 3 keypoints, and has 6"),
        ({"keypoints": {"nose": [1, 2]}}, "keypoints", '{"nose"', "is not 3 x 3 numbers"),
        ({"keypoints": [*POINTS[:8], None]}, "keypoints", "null]", "is not 3 x 3 numbers"),
        (
            {"keypoints": [*POINTS[:5], 3, 0, 0, 0]},
            "keypoints.5",
            "[25, 15, 3]",
            "left_eye: a visibility is 0 (not labelled), 1 (hidden) or 2 (in sight)",
        ),
    ],
)
def test_wrong_keypoints_are_fatal(coco, annotation, field, value, rule):
    path = coco(annotation)
    with pytest.raises(DatasetError) as caught:
        rk.data.load_coco(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.id, problem.field) == (str(path), "annotation 1", field)
    assert value in problem.value
    assert rule in problem.message
    assert [p for p in check_coco(path) if p.fatal] == [problem]


def test_what_can_be_put_right_is_counted(coco):
    stated = [30, 20, 2, 95, 15, 2, "5", "6", "1"]
    with pytest.warns(UserWarning, match="1 keypoint outside its image left out"):
        dataset = rk.data.load_coco(coco({"keypoints": stated, "num_keypoints": 1}))
    np.testing.assert_array_equal(dataset[0].keypoints[0], [[30, 20, 2], [0, 0, 0], [5, 6, 1]])
    found = {problem.field: problem for problem in dataset.problems}
    assert found["keypoints.3"].value == "[95.0, 15.0, 2.0] in 80x60"
    assert found["num_keypoints"].value == "1 for 3 labelled"
    assert found["keypoints"].message == "number read from text"


def test_keypoints_far_from_their_boxes_are_suspicious(coco):
    fractions = [0.3, 0.4, 2, 0.25, 0.3, 2, 0, 0, 0]
    with pytest.warns(UserWarning, match=r"keypoints = 2 of 2: lie far outside .* box"):
        rk.data.load_coco(coco({"keypoints": fractions, "bbox": [40, 30, 20, 20]}))


def test_keypoints_without_names_are_numbered(coco):
    categories = [{"id": 1, "name": "person"}]
    with pytest.warns(UserWarning, match="keypoints that no category names numbered"):
        dataset = rk.data.load_coco(coco({"keypoints": POINTS}, categories=categories))
    assert dataset.skeleton == numbered_skeleton(3)


def test_categories_of_different_keypoints_are_read_one_by_one(coco):
    categories = [
        {"id": 1, "name": "person", "keypoints": NAMES},
        {"id": 2, "name": "dog", "keypoints": ["tail"]},
    ]
    path = coco(
        {"keypoints": POINTS},
        {"category_id": 2, "keypoints": [9, 8, 2]},
        categories=categories,
    )
    with pytest.warns(UserWarning, match="are not the same for all categories"):
        assert rk.data.load_coco(path).skeleton is None
    dataset = rk.data.load_coco(path, classes=["dog"])
    assert dataset.skeleton.names == ("tail",)


def test_a_skeleton_counted_from_zero_is_left_out(coco):
    categories = [{"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[0, 1], [0, 2]]}]
    with pytest.warns(UserWarning, match="1 malformed skeleton left out"):
        dataset = rk.data.load_coco(coco({"keypoints": POINTS}, categories=categories))
    assert dataset.skeleton.edges == ()


def test_keypoints_are_turned_upright_with_their_image(coco, tmp_path):
    """Stored lying on its side: orientation 6 is turned clockwise."""
    image = Image.new("RGB", (80, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "b.jpg", exif=exif)
    with pytest.warns(UserWarning, match="boxes turned upright"):
        dataset = rk.data.load_coco(coco({"keypoints": POINTS}, image="b.jpg"))
    np.testing.assert_array_equal(dataset[0].keypoints[0], [[40, 30, 2], [45, 25, 1], [0, 0, 0]])


def test_a_saved_file_is_read_back(scenes, tmp_path):
    scenes.save_coco(tmp_path / "again.json")
    again = rk.data.load_coco(tmp_path / "again.json")
    assert again.skeleton == scenes.skeleton
    for ours, theirs in zip(again, scenes, strict=True):
        expected = None if not len(theirs) else theirs.keypoints
        np.testing.assert_array_equal(ours.keypoints, expected)
    counts = [a["num_keypoints"] for a in scenes.to_coco()["annotations"]]
    assert set(counts) > {0, 4}


def test_records_keep_their_keypoints(scenes):
    record = scenes[0]
    assert record.select(np.array([1])).keypoints.shape == (1, 4, 3)
    of_two = scenes.with_classes(["star", "square"])
    assert of_two.skeleton == scenes.skeleton
    assert sum(map(len, of_two)) == sum(r.keypoints.any((1, 2)).sum() for r in of_two)
    one, other = scenes.split(0.5)
    assert (one + other).skeleton == scenes.skeleton
    different = DetectionDataset([], scenes.classes, skeleton=COCO_PERSON)
    with pytest.raises(ValueError, match="datasets of the same keypoints"):
        scenes + different


@pytest.mark.parametrize(
    ("keypoints", "message"),
    [
        (np.zeros((1, 4, 2)), r"a.png: keypoints have shape \(1, 4, 2\), not \(1, P, 3\)"),
        ([[[1, 2, 5]]], "object 0: keypoint 0 has the visibility 5"),
        ([[[1, np.inf, 2]]], r"keypoint 0 is at \[1.0, inf\]"),
    ],
)
def test_a_record_of_wrong_keypoints_is_refused(keypoints, message):
    with pytest.raises(ValueError, match=message):
        rk.data.Record(1, "a.png", 9, 9, [[1, 1, 5, 5]], [0], [False], keypoints=keypoints)


def test_records_of_another_number_of_keypoints_are_refused(scenes):
    record = replace(scenes[0], keypoints=np.zeros((len(scenes[0]), 5, 3)), image_id=99)
    with pytest.raises(ValueError, match="5 keypoints, and 4 are expected"):
        DetectionDataset([scenes[1], record], scenes.classes)
    assert DetectionDataset([record], scenes.classes).skeleton == numbered_skeleton(5)


def test_batches_have_resized_keypoints_and_zeros_for_padding(scenes):
    batches = scenes.batches(4, min_size=48, max_size=48, max_objects=9, keypoints=True)
    _, targets = next(iter(batches))
    assert targets["keypoints"].shape == (4, 9, 4, 3)
    for row, record in zip(targets["keypoints"].numpy(), scenes, strict=False):
        np.testing.assert_allclose(row[: len(record)], record.keypoints * [0.5, 0.5, 1])
        assert not row[len(record) :].any()
    assert "keypoints" not in next(iter(scenes.batches(4)))[1]


def test_data_without_keypoints_is_refused(scenes):
    bare = DetectionDataset([replace(scenes[0], keypoints=None)], scenes.classes, name="bare")
    with pytest.raises(ValueError, match="bare has no keypoints"):
        bare.batches(1, keypoints=True)
    with pytest.raises(ValueError, match=r"different keypoints: .*'top'"):
        scenes.batches(1).with_keypoints(Skeleton(("a", "b", "c", "d")))
    assert scenes.batches(1).with_keypoints(numbered_skeleton(4)).skeleton is not None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tfrecord_files_give_the_same_batches(scenes, tmp_path, in_process):
    packed = rk.data.save_tfrecord(scenes, tmp_path, shard_size=4, engine=in_process())
    assert packed.skeleton == scenes.skeleton
    again = rk.data.save_tfrecord(scenes, tmp_path, shard_size=4)  # nothing is left to do
    options = {"min_size": 64, "max_size": 64, "keypoints": True}
    for ours, theirs in zip(
        packed.batches(4, **options), scenes.batches(4, **options), strict=True
    ):
        np.testing.assert_array_equal(ours[1]["keypoints"], theirs[1]["keypoints"])
    manifest = tmp_path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"edges"', '"bones"'))
    with pytest.raises(DatasetError, match="skeleton"):
        rk.data.load_tfrecord(tmp_path)
    assert len(again) == len(scenes)


def test_drawn_corners_are_where_they_are_seen(scenes):
    """Visible corners are at the borders of the mask; the pictures are those without keypoints."""
    checked = 0
    for record in scenes:
        for keypoints, box in zip(record.keypoints, record.boxes, strict=True):
            seen = keypoints[keypoints[:, 2] == 2]
            assert (seen[:, :2] >= box[:2] - 1.5).all()
            assert (seen[:, :2] <= box[2:] + 1.5).all()
            if len(seen) == 4:
                extremes = [keypoints[3, 0], keypoints[0, 1], keypoints[1, 0], keypoints[2, 1]]
                np.testing.assert_allclose(extremes, box, atol=1.5)
                checked += 1
    assert checked >= 3
    circles = [r.keypoints[r.labels == 0] for r in scenes]
    assert not any(points.any() for points in circles)
