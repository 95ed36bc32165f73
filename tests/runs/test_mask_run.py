"""A run of Mask R-CNN on drawn shapes: scores of boxes and masks, and data without masks."""

import csv
import json
from dataclasses import replace

import keras
import numpy as np
import pytest
from pycocotools import mask as run_length

from rcnn_keras.data import DetectionDataset, draw_shapes
from rcnn_keras.evaluation import CocoScores
from rcnn_keras.models import FasterRCNN, MaskRCNN
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.document import ConfigurationError
from rcnn_keras.runs.folder import clear
from rcnn_keras.runs.run import build_callbacks, train
from rcnn_keras.runs.scoring import evaluate
from rcnn_keras.training.callbacks import CocoEvaluation, HistoryFile

SECTIONS = {
    "model": {"architecture": "mask_rcnn", "box_score_thresh": 0.0},
    "training": {"epochs": 1, "early_stopping_patience": 3},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_config):
    return write_config(tmp_path_factory.mktemp("config"), SECTIONS)


def test_the_logs_have_the_mask_loss_and_scores_of_boxes_and_masks(run):
    _, out, history = run
    kinds = ("AP", "AP50", "AP75", "AP/circle", "AP/star")
    for name in ("mask_loss", *(f"val_{mask}{k}" for k in kinds for mask in ("", "mask_"))):
        assert name in history.history, name
    with (out / "history.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["mask_loss"]) > 0
    assert float(row["val_mask_AP"]) == pytest.approx(history.history["val_mask_AP"][0])


def test_the_files_of_a_run_have_boxes_and_masks(run):
    configuration, out, _ = run
    scores = json.loads((out / "scores.json").read_text())
    classes = ("circle", "triangle", "square", "star")
    for name in ("AP", "AP50", "AR", *(f"AP/{c}" for c in classes)):
        assert {name, f"mask_{name}"} <= set(scores)
    rows = json.loads((out / "detections.json").read_text())
    assert len(rows) == 10  # five in each image, at a threshold of 0
    for row in rows:
        assert row["segmentation"]["size"] == [64, 64]
        assert run_length.decode(row["segmentation"]).shape == (64, 64)
    _, val_set = read_data(configuration.data)
    for prefix, kind in (("", "bbox"), ("mask_", "segm")):
        again = CocoScores(val_set, rows, 5, kind).summary()
        for name, value in again.items():
            expected = scores[f"{prefix}{name}"]
            assert value == pytest.approx(expected) if expected is not None else np.isnan(value)
    assert "Mask scores" in (out / "report.html").read_text()


def test_overwriting_removes_the_plots_of_masks_too(run, tmp_path):
    _, finished, _ = run
    written = {path.name for path in finished.iterdir() if path.is_file()}
    assert {"mask_average_precision.png", "mask_precision_recall_dark.png"} <= written
    for name in written:
        (tmp_path / name).write_text("")
    clear(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_saved_model_has_the_scores_logged_in_training(run):
    configuration, out, history = run
    _, val_set = read_data(configuration.data)
    model = keras.models.load_model(out / "best.keras")
    assert isinstance(model, MaskRCNN)
    evaluation = evaluate(model, val_set)
    for name, value in evaluation.summary().items():
        if f"val_{name}" in history.history:
            expected = history.history[f"val_{name}"][0]
            np.testing.assert_allclose(value, expected, atol=1e-6, err_msg=name)


def test_callbacks_monitor_the_ap_of_masks(config, tmp_path):
    for architecture, monitor in (("mask_rcnn", "val_mask_AP"), ("faster_rcnn", "val_AP")):
        configuration = load_configuration(config, [f"model.architecture={architecture}"])
        callbacks = build_callbacks(
            configuration, draw_shapes(1), tmp_path, HistoryFile(tmp_path / "history.csv")
        )
        watching = [callback for callback in callbacks if getattr(callback, "monitor", None)]
        best, last, stopping = watching
        assert (best.monitor, best.save_best_only, best.mode) == (monitor, True, "max")
        assert not last.save_best_only
        assert (stopping.monitor, stopping.patience) == (monitor, 3)


def without_masks(path):
    """Remove the segmentation of a COCO file's second object."""
    content = json.loads(path.read_text())
    del content["annotations"][1]["segmentation"]
    bare = path.with_name("bare.json")
    bare.write_text(json.dumps(content))
    return bare


@pytest.mark.parametrize("part", ["train", "val"])
def test_data_without_masks_is_refused_before_training(config, part, tmp_path):
    bare = without_masks(config.parent / part / "annotations.json")
    override = [f"data.{part}.annotations={bare}"]
    message = rf"data\.{part}: .*{part}.*\.png: object \d has no segmentation"
    with pytest.raises(ConfigurationError, match=message):
        train(load_configuration(config, override), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    boxes = load_configuration(config, [*override, "model.architecture=faster_rcnn"])
    read_data(boxes.data)


def test_the_callback_refuses_data_without_masks_before_training(run):
    _, out, _ = run
    model = keras.models.load_model(out / "last.keras")
    drawn = draw_shapes(1, size=(64, 64))
    bare = DetectionDataset([replace(drawn[0], segmentations=None)], drawn.classes)
    callback = CocoEvaluation(bare)
    callback.set_model(model)
    with pytest.raises(ValueError, match="object 0 has no segmentation"):
        callback.on_train_begin()
    with pytest.raises(ValueError, match="object 0 has no segmentation"):
        evaluate(model, bare)
    config = {k: v for k, v in model.get_config().items() if k != "mask_head"}
    boxes = FasterRCNN(**{**config, "name": "boxes"})
    callback.set_model(boxes)
    callback.on_train_begin()
    assert evaluate(boxes, bare).mask_scores is None
