"""Training that starts from a saved detector: its arguments, its weights, and what is refused."""

import csv
import inspect

import keras
import numpy as np
import pytest
import yaml

from rcnn_keras.data import DetectionDataset, draw_shapes
from rcnn_keras.models import FasterRCNN, MaskRCNN
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import read_data
from rcnn_keras.runs.document import ConfigurationError
from rcnn_keras.runs.run import build_model, train

SMALL = {
    "backbone": "resnet18_fpn",
    "backbone_width": 0.5,
    "recompute_stages": 0,
    "fpn_channels": 8,
    "box_units": 8,
    "min_size": 64,
    "max_size": 64,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 5,
    "rpn_post_nms_top_n_train": 20,
    "rpn_post_nms_top_n_test": 20,
}
CONFIG = """
model:
  architecture: mask_rcnn
  preset: trained/best.keras
  frozen_stages: 2
  min_size: 48
data:
  format: coco
  train: {annotations: train/annotations.json}
  val: {annotations: train/annotations.json}
optimizer: {name: sgd, learning_rate: 0.001}
training: {epochs: 1}
"""
PUBLISHED = """
model: {architecture: mask_rcnn, preset: maskrcnn_resnet50_fpn_coco}
data: {format: coco, train: {annotations: a.json}, val: {annotations: a.json}}
optimizer: {name: sgd, learning_rate: 0.001}
training: {epochs: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a configuration, its data of two classes, and a detector of three others."""
    folder = tmp_path_factory.mktemp("config")
    drawn = draw_shapes(2, size=(64, 64), out=folder / "train")
    names = ["round", "flat", "pointed", "sharp"]
    DetectionDataset(drawn, names).save_coco(folder / "train" / "annotations.json")
    (folder / "trained").mkdir()
    model = MaskRCNN(classes=["x", "y", "z"], seed=5, **SMALL)
    model.save(folder / "trained" / "best.keras")
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "published.yaml").write_text(PUBLISHED)
    return folder


def errors_of(path, *overrides):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(path, overrides)
    return caught.value.errors


def test_a_path_is_relative_to_the_folder_of_the_file(folder):
    configuration = load_configuration(folder / "config.yaml")
    assert configuration.model.preset == str(folder / "trained" / "best.keras")
    assert configuration.model_arguments == {"frozen_stages": 2, "min_size": 48}


def test_the_resolved_configuration_leaves_out_the_presets_arguments(folder, tmp_path):
    configuration = load_configuration(folder / "config.yaml")
    text = configuration.to_yaml()
    assert yaml.safe_load(text)["model"] == {
        "architecture": "mask_rcnn",
        "preset": str(folder / "trained" / "best.keras"),
        "frozen_stages": 2,
        "min_size": 48,
    }
    (tmp_path / "again.yaml").write_text(text)
    again = load_configuration(tmp_path / "again.yaml")
    assert again.to_yaml() == text
    assert again.model_arguments == configuration.model_arguments


def test_without_a_preset_all_arguments_are_stated(folder):
    configuration = load_configuration(folder / "config.yaml", ["model.preset=null"])
    objects = {"anchor_generator", "rpn_head", "box_head", "roi_pooling"}  # layers, not in YAML
    from_data = {"classes", "num_classes", "seed", "feature_pyramid"}
    names = set(inspect.signature(FasterRCNN).parameters) - objects - from_data
    assert set(configuration.model_arguments) == names
    assert set(yaml.safe_load(configuration.to_yaml())["model"]) > names


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("preset=trained/bets.keras", "bets.keras: no such file; did you mean"),
        ("preset=config.yaml", "no preset is named 'config.yaml'"),
        ("preset=./config.yaml", "no preset is named"),
        ("preset=maskrcnn_resnet50_coco", "did you mean 'maskrcnn_resnet50_fpn_coco'"),
        ("preset=3", "should be a valid string"),
        ("backbone=resnet50_fpn", "= 'resnet50_fpn': must be 'resnet18_fpn', as the weights"),
        ("norm=group", "= 'group': must be 'batch', as the weights have it"),
        ("box_units=16", "= 16: must be 8, as the weights have it"),
        ("min_size=80", "= 80: must be at most max_size=64"),
        ("anchor_sizes=[[8]]", "must have 5 levels for resnet18_fpn"),
        ("rpn_nms_thresh=2.0", "= 2.0: must be in 0..1"),
        ("min_sise=3", "unknown key, did you mean 'min_size'?"),
    ],
)
def test_wrong_presets_are_refused_when_the_file_is_read(folder, override, message):
    (error,) = errors_of(folder / "config.yaml", f"model.{override}")
    key = override.partition("=")[0]
    assert error.startswith(f"--set model.{key}: model.{key}")
    assert message in error


def test_all_conflicts_with_a_preset_are_reported_at_once(folder):
    errors = errors_of(folder / "config.yaml", "model.box_units=16", "model.max_size=32")
    assert len(errors) == 2
    assert any("model.min_size = 48: must be at most max_size=32" in error for error in errors)


def test_a_published_preset_is_checked_without_a_download(folder):
    path = folder / "published.yaml"
    assert load_configuration(path).model.preset == "maskrcnn_resnet50_fpn_coco"
    (error,) = errors_of(path, "model.backbone=resnet101_fpn")
    assert "must be 'resnet50_fpn', as the weights have it" in error
    (error,) = errors_of(path, "model.min_size=2000")
    assert "must be at most max_size=1333" in error
    mobilenet = ["model.preset=fasterrcnn_mobilenet_v3_large_fpn_coco"]
    load_configuration(path, [*mobilenet, "model.anchor_sizes=[[8], [16], [32]]"])


def test_the_model_has_the_weights_and_the_classes_of_the_data(folder, logged):
    path = folder / "trained" / "best.keras"
    configuration = load_configuration(folder / "config.yaml", ["data.classes=[sharp, flat]"])
    model = build_model(configuration, read_data(configuration.data)[0])
    assert logged().startswith(f"{path}: weights kept in backbone, ")
    assert model.classes == ("sharp", "flat")
    assert (model.min_size, model.max_size, model.get_config()["frozen_stages"]) == (48, 64, 2)
    trained = keras.models.load_model(path, compile=False)
    for name, frozen in {"conv1": True, "layer1_1_conv2": True, "layer2_0_conv1": False}.items():
        layer, same = (m.backbone.get_layer(name) for m in (model, trained))
        np.testing.assert_array_equal(layer.kernel, same.kernel)
        assert layer.trainable != frozen
    upsample = trained.mask_head.upsample.kernel
    np.testing.assert_array_equal(model.mask_head.upsample.kernel, upsample)
    again = build_model(configuration, read_data(configuration.data)[0])  # new layers and all
    for ours, theirs in zip(model.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_a_run_from_a_preset_trains_and_reports(folder, tmp_path):
    configuration = load_configuration(folder / "config.yaml")
    out = tmp_path / "run"
    train(configuration, out)
    with (out / "history.csv").open() as file:
        assert float(next(csv.DictReader(file))["mask_loss"]) > 0
    assert "mask_rcnn, resnet18_fpn" in (out / "report.html").read_text()
    trained, tuned = (
        keras.models.load_model(path, compile=False)
        for path in (configuration.model.preset, out / "best.keras")
    )
    for name, moves in {"conv1": False, "layer1_1_conv2": False, "layer4_1_conv2": True}.items():
        before, after = (np.array(m.backbone.get_layer(name).kernel) for m in (trained, tuned))
        assert np.any(before != after) == moves, name


def test_the_file_that_a_run_starts_from_is_not_removed(folder):
    configuration = load_configuration(folder / "config.yaml")
    with pytest.raises(FileExistsError, match=r"best\.keras is what the run starts from"):
        train(configuration, folder / "trained", overwrite=True)
    assert (folder / "trained" / "best.keras").exists()
