"""The configuration that `rcnn init` writes: chosen from the data, valid, and with its reasons."""

import json

import numpy as np
import pytest
import yaml

import rcnn_keras as rk
from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.ops import iou
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.recipe import anchors, find_sources, image_size, length, recipe


def dataset(sizes, shape=(480, 640), count=4, **more):
    """Images of one shape, each with objects of these widths and heights."""
    boxes = np.array([[5, 5, 5 + w, 5 + h] for w, h in sizes], np.float32)
    n = len(boxes)
    records = [
        Record(i, f"{i}.png", *shape, boxes, np.zeros(n), np.zeros(n, bool), **more)
        for i in range(count)
    ]
    return DetectionDataset(records, ["cat"], name="drawn")


def sides(data):
    boxes = np.concatenate([record.boxes for record in data])
    return np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], 1))


@pytest.mark.parametrize(
    ("objects", "shape", "expected"),
    [
        ([(100, 100)], (480, 640), (240, 320)),  # large objects: the least size
        ([(20, 20)] * 9 + [(200, 200)], (480, 640), (384, 512)),  # 20 pixels become 16
        ([(8, 8)], (256, 320), (256, 320)),  # never enlarged
        ([(10, 10)], (3000, 4000), (800, 1067)),  # nor above what a detector can be trained on
    ],
)
def test_images_are_as_small_as_their_objects_allow(objects, shape, expected):
    data = dataset(objects, shape)
    assert image_size(data, sides(data)) == expected


def test_anchors_follow_the_objects_and_their_reach_is_true():
    rng = np.random.default_rng(0)
    size, ratio = rng.uniform(2, 60, 40), rng.uniform(0.25, 4, 40)
    sizes, ratios, share = anchors(size, ratio)
    assert anchors(20 * size, ratio)[0] == ((32,), (64,), (128,), (256,), (512,))
    assert sizes == ((4,), (8,), (16,), (32,), (64,))
    assert share > 0.8
    assert ratios == (0.5, 1.0, 2.0)
    reached = 0
    for side, aspect in zip(size, ratio, strict=True):
        width, height = side / aspect**0.5, side * aspect**0.5
        best = 0.0
        for (anchor,) in sizes:
            for a in ratios:
                w, h = anchor / a**0.5, anchor * a**0.5
                first = np.array([[-width, -height, width, height]], np.float32) / 2
                second = np.array([[-w, -h, w, h]], np.float32) / 2
                best = max(best, float(iou(first, second)[0, 0]))
        reached += best >= 0.5
    assert share == pytest.approx(reached / 40)


def test_long_objects_get_long_anchors():
    _, ratios, share = anchors(np.full(50, 40.0), np.full(50, 5.0))
    assert ratios == (0.25, 0.5, 1.0, 2.0, 4.0)
    assert share == 1.0


def test_fewer_images_are_seen_more_often():
    assert [length(images) for images in (4, 112, 205, 2000)] == [60, 21, 12, 12]


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """Drawn scenes with masks as COCO files train.json and val.json beside each other."""
    folder = tmp_path_factory.mktemp("shapes")
    for name, count, seed in (("train", 6, 0), ("val", 3, 1)):
        data = rk.data.draw_shapes(count, size=(96, 128), seed=seed, out=folder / name)
        data.save_coco(folder / f"{name}.json")
    return folder


def test_the_recipe_is_a_valid_configuration_of_the_data(shapes, tmp_path):
    sources = find_sources(shapes)
    data = rk.data.load_coco(shapes / "train.json")
    path = tmp_path / "config.yaml"
    text = recipe(data, sources, path)
    path.write_text(text)
    configuration = load_configuration(path)
    assert configuration.trains_masks
    assert configuration.model.backbone == "efficientnet_lite0_fpn"
    assert configuration.optimizer.backbone_rate == 0.2
    train, val = read_data(configuration.data)
    assert (len(train), len(val)) == (6, 3)
    assert configuration.training.epochs == 60
    assert "# For 6 images with" in text
    assert all(key in yaml.safe_load(text) for key in ("model", "data", "optimizer", "training"))


def test_without_validation_data_a_fifth_of_the_images_is_held_out(shapes, tmp_path):
    (tmp_path / "sub").mkdir()
    sources = find_sources(shapes / "train.json")
    assert sources.val == ()
    path = tmp_path / "config.yaml"
    path.write_text(recipe(rk.data.load_coco(shapes / "train.json"), sources, path))
    train, val = read_data(load_configuration(path).data)
    assert (len(train), len(val)) == (5, 1)
    assert not {r.path for r in train} & {r.path for r in val}


def test_objects_without_masks_give_a_model_of_boxes(tmp_path):
    text = recipe(dataset([(30, 30)]), find_sources(__file__), tmp_path / "config.yaml")
    assert "architecture: faster_rcnn" in text


@pytest.mark.parametrize(("labelled", "architecture"), [(2, "keypoint_rcnn"), (0, "faster_rcnn")])
def test_objects_with_keypoints_give_a_model_of_keypoints(tmp_path, labelled, architecture):
    keypoints = np.zeros((2, 3, 3))
    keypoints[:labelled] = [9, 9, 2]
    data = dataset([(30, 60)] * 2, keypoints=keypoints)
    text = recipe(data, find_sources(__file__), tmp_path / "config.yaml")
    assert f"architecture: {architecture}" in text
    assert ("keypoint_layers" in text) == (labelled > 0)


def test_crowded_images_get_more_detections(tmp_path):
    text = recipe(dataset([(9, 9)] * 130), find_sources(__file__), tmp_path / "config.yaml")
    assert yaml.safe_load(text)["model"]["box_detections_per_img"] == 200


def test_labels_of_a_side_are_not_mirrored(tmp_path):
    data = dataset([(30, 30)])
    data = DetectionDataset(data, ["left hand"], name="hands")
    text = recipe(data, find_sources(__file__), tmp_path / "config.yaml")
    names = [next(iter(a)) for a in yaml.safe_load(text)["data"]["augment"]]
    assert names == ["ScaleJitter"]
    assert "'left hand' would become wrong" in text


def test_paths_are_relative_unless_they_lead_far_away(tmp_path):
    near = tmp_path / "data" / "a: #1.json"
    near.parent.mkdir()
    near.write_text("{}")
    text = recipe(dataset([(9, 9)]), find_sources(near), tmp_path / "config.yaml")
    assert yaml.safe_load(text)["data"]["train"] == {"annotations": "data/a: #1.json"}
    far = tmp_path / "x" / "y" / "z" / "config.yaml"
    text = recipe(dataset([(9, 9)]), find_sources(near), far)
    assert yaml.safe_load(text)["data"]["train"] == {"annotations": str(near)}


def test_data_that_are_all_crowd_are_refused_with_what_to_do(tmp_path):
    boxes = np.array([[1, 1, 9, 9]], np.float32)
    record = Record(1, "1.png", 40, 60, boxes, np.zeros(1), np.ones(1, bool))
    with pytest.raises(ValueError, match="all 1 are marked as crowd: --crowd objects"):
        recipe(DetectionDataset([record], ["cat"]), find_sources(__file__), tmp_path / "c.yaml")


def coco_folder(folder, names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"images": [], "annotations": [], "categories": []}))
    return folder


@pytest.mark.parametrize(
    ("names", "train", "val"),
    [
        (["train.json", "val.json", "test.json"], "train.json", "val.json"),
        (
            ["instances_train2017.json", "instances_val2017.json"],
            "instances_train",
            "instances_val",
        ),
        (["train/_annotations.coco.json", "valid/_annotations.coco.json"], "train/", "valid/"),
        (["annotations/train.json", "annotations/test.json"], "annotations/train", "tions/test"),
        (["labels.json"], "labels.json", None),
    ],
)
def test_the_splits_of_a_coco_folder_are_found_by_their_names(tmp_path, names, train, val):
    sources = find_sources(coco_folder(tmp_path, names))
    assert train in sources.train[0]["annotations"]
    assert [val in source["annotations"] for source in sources.val] == [True] * (val is not None)


def test_files_whose_names_say_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"none is named after 'train'.*one\.json.*two\.json"):
        find_sources(coco_folder(tmp_path, ["one.json", "two.json"]))


def test_data_that_are_not_there_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing: no such file"):
        find_sources(tmp_path / "nothing")
