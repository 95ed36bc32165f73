"""Fast R-CNN's whole road on the command line: proposals, training, scores, detections."""

import json

import keras
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from rcnn_keras.cli import main
from rcnn_keras.data import draw_shapes
from rcnn_keras.models import FasterRCNN, FastRCNN
from rcnn_keras.proposals import load_proposals, save_proposals
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.document import ConfigurationError

MODEL = {
    "architecture": "fast_rcnn",
    "backbone": "resnet18_fpn",
    "backbone_width": 0.25,
    "roi_pooling": "align",
    "min_size": 64,
    "max_size": 64,
    "fpn_channels": 8,
    "box_units": 8,
    "box_score_thresh": 0.0,
}


def rcnn(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn data with proposals, and a configuration that names both."""
    folder = tmp_path_factory.mktemp("fast")
    for seed, part in enumerate(("train", "val")):
        draw_shapes(2, size=(64, 64), seed=seed, out=folder / part)
        source, out = folder / part / "annotations.json", folder / f"{part}.npz"
        result = rcnn("proposals", source, "--out", out, "--workers", 1)
        assert result.exit_code == 0, result.output
    values = {
        "model": MODEL,
        "data": {"format": "coco", "batch_size": 2, "max_proposals": 40}
        | {
            part: {"annotations": f"{part}/annotations.json", "proposals": f"{part}.npz"}
            for part in ("train", "val")
        },
        "optimizer": {"name": "sgd", "learning_rate": 0.001},
        "training": {"epochs": 1},
    }
    (folder / "fast.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.mark.slow
def test_a_run_trains_scores_and_detects(folder):
    result = rcnn("train", folder / "fast.yaml", "--out", folder / "run")
    assert result.exit_code == 0, result.output
    scores = json.loads((folder / "run" / "scores.json").read_text())
    model = keras.models.load_model(folder / "run" / "best.keras")
    assert isinstance(model, FastRCNN)

    data, best = folder / "val" / "annotations.json", folder / "run" / "best.keras"
    result = rcnn(
        "evaluate",
        best,
        "--data",
        data,
        "--proposals",
        folder / "val.npz",
        "--out",
        folder / "scored",
    )
    assert result.exit_code == 0, result.output
    again = json.loads((folder / "scored" / "scores.json").read_text())
    # All proposals there, the first 40 in training.
    assert set(again) == set(scores)

    photo = folder / "val" / "shapes_000000.png"
    result = rcnn("detect", photo, "--model", best, "--out", folder / "found", "--min-score", 0)
    assert result.exit_code == 0, result.output
    rows = json.loads((folder / "found" / "detections.json").read_text())
    found = model.detect(photo, proposals=[load_proposals(folder / "val.npz")[1]])[0]
    assert len(rows) == len(found) > 0


def test_max_proposals_keeps_the_first_ones(folder):
    train_set, _ = read_data(load_configuration(folder / "fast.yaml").data)
    boxes = load_proposals(folder / "train.npz")
    for record in train_set:
        np.testing.assert_array_equal(record.proposals, boxes[record.image_id][:40])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.val.proposals=null", r"data\.val\.proposals = None: fast_rcnn needs a file"),
        ("model={architecture: faster_rcnn}", "faster_rcnn finds its own proposals"),
        ("model.rpn_nms_thresh=0.5", "unknown key"),
        ("training.alternating={detector_epochs: 1}", "fast_rcnn has no RPN to train alternately"),
    ],
)
def test_conflicting_configurations_are_refused(change, message, folder):
    with pytest.raises(ConfigurationError, match=message):
        load_configuration(folder / "fast.yaml", [change])


def test_proposals_of_other_images_are_refused_before_training(folder, tmp_path):
    save_proposals(tmp_path / "other.npz", {7: np.zeros((0, 4), "f4")}, method="selective_search")
    change = f"data.train.proposals={tmp_path / 'other.npz'}"
    result = rcnn("train", folder / "fast.yaml", "--out", tmp_path / "run", "--set", change)
    assert result.exit_code == 1
    assert "2 of 2 images have no proposals" in result.output
    assert not (tmp_path / "run").exists()


def test_evaluate_requires_proposals_and_refuses_unneeded_ones(folder, tmp_path, small_arguments):
    classes = ["circle", "triangle", "square", "star"]
    arguments = {k: v for k, v in MODEL.items() if k != "architecture"}
    FastRCNN(classes=classes, **arguments).save(tmp_path / "fast.keras")
    FasterRCNN(classes=classes, **small_arguments).save(tmp_path / "faster.keras")
    data = ("--data", folder / "val" / "annotations.json")
    result = rcnn("evaluate", tmp_path / "fast.keras", *data)
    assert result.exit_code == 2
    assert "needs --proposals: rcnn proposals" in result.output
    result = rcnn("evaluate", tmp_path / "faster.keras", *data, "--proposals", folder / "val.npz")
    assert result.exit_code == 2
    assert "finds its own proposals" in result.output
