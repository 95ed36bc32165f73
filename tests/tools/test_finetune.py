"""examples/finetune.py: its data, and the two configurations that it compares."""

import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcnn_keras.data import draw_shapes
from rcnn_keras.models import MaskRCNN

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(EXAMPLES / "finetune.py"))


def test_negatives_are_scenes_without_objects(tool, tmp_path):
    dataset = tool["negatives"](4, 0, tmp_path / "new")
    drawn = draw_shapes(4, size=(128, 128), seed=100, out=tmp_path / "old")
    for new, old in zip(dataset, drawn, strict=True):
        names = [drawn.classes[label] for label in old.labels]
        expected = ["round" if name == "circle" else "angular" for name in names]
        assert [dataset.classes[label] for label in new.labels] == expected
        np.testing.assert_array_equal(new.boxes, old.boxes)
        pixels = [np.array(Image.open(record.path), int) for record in (old, new)]
        np.testing.assert_array_equal(sum(pixels), np.full((128, 128, 3), 255))


def test_some_of_a_files_images_are_taken(tool, tmp_path):
    drawn = draw_shapes(6, size=(64, 64), out=tmp_path)
    few = tool["some_of"](tmp_path / "annotations.json", 2, 0)
    assert len(few) == 2
    assert {record.path for record in few} < {record.path for record in drawn}
    assert len(tool["some_of"](tmp_path / "annotations.json", 60, 0)) == 6


def test_both_train_the_same_network(tool, tmp_path):
    path = tmp_path / "best.keras"
    small = {"backbone": "resnet18_fpn", "fpn_channels": 8, "box_units": 8, "min_size": 64}
    MaskRCNN(classes=["a"], norm="frozen_batch", frozen_stages=1, **small).save(path)
    changes = ["model.max_size=128", "training.seed=7"]
    tuned, new = tool["both"](path, changes, 3, 0.002).values()
    assert tuned.model.preset == str(path)
    assert tuned.model_arguments == {"frozen_stages": 2, "max_size": 128}
    assert tuned.optimizer.learning_rate < new.optimizer.learning_rate == 0.002
    assert new.model.preset is None
    stated = {name: new.model_arguments[name] for name in small}
    assert stated == small
    assert (new.model.norm, new.model.frozen_stages, new.model.max_size) == ("batch", 0, 128)
    for configuration in (tuned, new):
        assert configuration.training.epochs == configuration.training.evaluate_every == 3
        assert configuration.training.seed == 7
    assert tuned.data == new.data


def test_the_table_has_a_line_for_each_training(tool):
    scores = {"AP": 0.5, "AP50": 0.75, "mask_AP": 0.25, "mask_AP50": 0.625}
    lines = tool["table"]([("random", 20, 1.26, scores)]).splitlines()
    assert lines[2] == "| from random weights | 20 | 1.3 | 0.500 | 0.750 | 0.250 | 0.625 |"
    assert [line.count("|") for line in lines] == [8, 8, 8]
