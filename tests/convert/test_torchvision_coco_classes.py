"""The 90 names of torchvision's models on COCO files, which have 80 categories or fewer."""

import json
import math

import pytest
from click.testing import CliRunner

from rcnn_keras.cli import main
from rcnn_keras.convert.torchvision import COCO_CLASSES
from rcnn_keras.data import DetectionDataset, draw_shapes, load_coco
from rcnn_keras.evaluation import CocoScores
from rcnn_keras.models import FasterRCNN

VACANT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # no category of COCO has these numbers


def test_the_vacant_numbers_are_those_without_a_category():
    assert len(COCO_CLASSES) == 90
    assert [i for i, name in enumerate(COCO_CLASSES, 1) if name == f"N/A {i}"] == list(VACANT)


@pytest.fixture
def file(tmp_path):
    """A function that writes drawn scenes with categories of the given ids and names."""
    drawn = draw_shapes(3, size=(64, 64), out=tmp_path / "shapes")

    def write(ids, names):
        path = tmp_path / "shapes" / "renamed.json"
        DetectionDataset(drawn, names, category_ids=ids).save_coco(path)
        return path

    return write


def test_vacant_names_are_classes_without_objects(file):
    path = file([1, 2, 4, 5], ["a", "b", "d", "e"])
    plain = load_coco(path)
    dataset = load_coco(path, classes=["a", "b", "N/A 3", "d", "e", "N/A 6"])
    assert dataset.category_ids == (1, 2, 3, 4, 5, 6)
    for record, same in zip(dataset, plain, strict=True):
        names = [dataset.classes[label] for label in record.labels]
        assert names == [plain.classes[label] for label in same.labels]


def test_vacant_classes_never_have_category_ids_of_the_file(file):
    path = file([1, 2, 3, 4], ["a", "b", "d", "e"])  # numbered without gaps
    dataset = load_coco(path, classes=["a", "b", "N/A 3", "d", "e", "N/A 6"])
    assert dataset.category_ids == (1, 2, 5, 3, 4, 6)
    one = load_coco(path, classes=["N/A 1", "e"])
    assert one.category_ids == (5, 4)
    assert one.classes == ("N/A 1", "e")


def test_other_unknown_names_are_refused(file):
    path = file([1, 2, 3, 4], ["a", "b", "d", "N/A 7"])
    with pytest.raises(ValueError, match=r"unknown classes 'NA 3'"):
        load_coco(path, classes=["a", "NA 3"])
    assert load_coco(path, classes=["N/A 7"]).category_ids == (4,)  # which the file has


def test_labels_are_cocos_numbers_minus_one(shared_data):
    dataset = load_coco(shared_data / "coco_by" / "val.json", classes=COCO_CLASSES)
    content = json.loads((shared_data / "coco_by" / "val.json").read_text())
    assert dataset.category_ids == tuple(range(1, 91))
    numbers = {item["name"]: item["id"] for item in content["categories"]}
    assert all(COCO_CLASSES[number - 1] == name for name, number in numbers.items())
    found = sum(len(record) for record in dataset)
    assert found == sum(len(record) for record in load_coco(shared_data / "coco_by" / "val.json"))


@pytest.mark.slow
def test_a_model_of_90_classes_is_scored_on_coco(shared_data, tmp_path):
    model = FasterRCNN(
        "resnet18_fpn",
        COCO_CLASSES,
        min_size=64,
        max_size=96,
        fpn_channels=8,
        box_units=8,
        box_score_thresh=0.0,
        rpn_post_nms_top_n_test=20,
    )
    model.save(tmp_path / "coco.keras")
    file = shared_data / "coco_by" / "val.json"
    arguments = ["evaluate", str(tmp_path / "coco.keras"), "--data", str(file)]
    result = CliRunner().invoke(main, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    for number in VACANT:
        assert scores[f"AP/N/A {number}"] is None
    rows = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert {row["category_id"] for row in rows} & set(VACANT)  # they are predicted

    with_truth = {item["category_id"] for item in json.loads(file.read_text())["annotations"]}
    known = [scores[f"AP/{name}"] for name in COCO_CLASSES if scores[f"AP/{name}"] is not None]
    assert len(known) <= len(with_truth)
    assert scores["AP"] == pytest.approx(sum(known) / len(known))


def test_classes_without_ground_truth_do_not_count(shared_data):
    """A detector that finds every object exactly scores 1 on the 80 classes as on the 90."""
    file = shared_data / "coco_by" / "val.json"
    for classes in (None, COCO_CLASSES):
        dataset = load_coco(file, classes=classes)
        rows = [
            {
                "image_id": record.image_id,
                "category_id": dataset.category_ids[label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "score": 0.9,
            }
            for record in dataset
            for (x1, y1, x2, y2), label in zip(record.boxes.tolist(), record.labels, strict=True)
        ]
        summary = CocoScores(dataset, rows).summary()
        assert summary["AP"] == pytest.approx(1)
        if classes:
            assert math.isnan(summary["AP/N/A 12"])
