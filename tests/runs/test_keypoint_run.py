"""A run of Keypoint R-CNN on drawn shapes: the data's keypoints, scores, report, and refusals."""

import json

import keras
import numpy as np
import pytest
import yaml

from rcnn_keras.data import draw_shapes
from rcnn_keras.data.synthetic import CORNERS
from rcnn_keras.models import KeypointRCNN
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.document import ConfigurationError
from rcnn_keras.runs.run import build_callbacks, build_model, train
from rcnn_keras.training.callbacks import HistoryFile

SECTIONS = {
    "model": {"architecture": "keypoint_rcnn", "box_score_thresh": 0.0, "keypoint_layers": [8]},
    "training": {"epochs": 1, "early_stopping_patience": 3},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_config):
    folder = tmp_path_factory.mktemp("config")
    path = write_config(folder, SECTIONS)
    for part, seed in (("train", 0), ("val", 1)):
        draw_shapes(2, size=(64, 64), seed=seed, out=folder / part, keypoints=True)
    return path


def test_the_data_bring_the_keypoints(config, tmp_path):
    configuration = load_configuration(config)
    dataset, val_set = read_data(configuration.data, keypoints=True)
    assert build_model(configuration, dataset).skeleton == CORNERS
    pairs = load_configuration(config, ["model.keypoint_flip_pairs=[[0, 2]]"])
    assert build_model(pairs, dataset).skeleton.flip_pairs == ((0, 2),)
    history = HistoryFile(tmp_path / "history.csv")
    callbacks = build_callbacks(configuration, val_set, tmp_path, history)
    best = next(c for c in callbacks if getattr(c, "save_best_only", False))
    assert (best.monitor, best.mode) == ("val_keypoint_AP", "max")


def test_wrong_keys_are_named(config):
    for override, message in (
        ("model.keypoint_names=[a, b]", "unknown key"),
        ("model.keypoint_scores=softmax", "must be one of probability, logit"),
        ("model.keypoint_layers=[0]", "one or more whole numbers"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            load_configuration(config, [override])


@pytest.mark.parametrize("part", ["train", "val"])
def test_data_without_keypoints_is_refused_before_training(config, part, tmp_path):
    content = json.loads((config.parent / part / "annotations.json").read_text())
    for annotation in content["annotations"]:
        del annotation["keypoints"], annotation["num_keypoints"]
    bare = config.parent / part / "bare.json"
    bare.write_text(json.dumps(content))
    configuration = load_configuration(config, [f"data.{part}.annotations={bare}"])
    with pytest.raises(ConfigurationError, match=rf"data\.{part}: .*no object has a labelled"):
        train(configuration, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pascal_voc_has_no_keypoints(config, tmp_path):
    document = yaml.safe_load(config.read_text())
    document["data"] = {"format": "voc", "train": {"root": "a"}, "val": {"root": "a"}}
    path = tmp_path / "voc.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ConfigurationError, match="keypoint_rcnn is trained on keypoints, which"):
        load_configuration(path)


@pytest.mark.slow
def test_a_run_has_scores_and_a_report_of_keypoints(run):
    _, out, history = run
    for name in ("keypoint_loss", "val_keypoint_AP", "val_keypoint_AP/star"):
        assert name in history.history
    scores = json.loads((out / "scores.json").read_text())
    assert {"AP", "keypoint_AP", "keypoint_AP50", "keypoint_AP/square"} <= set(scores)
    rows = json.loads((out / "detections.json").read_text())
    assert all(len(row["keypoints"]) == 12 for row in rows)
    page = (out / "report.html").read_text()
    assert "Keypoint scores" in page
    assert "OKS 0.50" in page
    assert (out / "keypoint_precision_recall.png").exists()
    model = keras.models.load_model(out / "best.keras")
    assert isinstance(model, KeypointRCNN)
    assert model.skeleton == CORNERS
    (found,) = model.detect(np.zeros((64, 64, 3), np.uint8))
    assert found.keypoints.shape[1:] == (4, 3)
