"""Detectors in folders: the round trip through float16, and damaged files."""

import json
import shutil

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rcnn_keras.convert.saved_detectors import (
    MODEL,
    WEIGHTS,
    load_half_precision,
    read_model,
    save_half_precision,
)
from rcnn_keras.models import FasterRCNN, MaskRCNN


def small(architecture=FasterRCNN, backbone="resnet18_fpn", **arguments):
    keras.utils.set_random_seed(1)
    small = {"backbone_width": 0.125, "fpn_channels": 8, "box_units": 8, "recompute_stages": 0}
    return architecture(backbone, ["a", "b"], min_size=64, max_size=64, **(small | arguments))


@pytest.fixture(scope="module")
def model():
    return small(MaskRCNN, box_score_thresh=0.0)


@pytest.fixture(scope="module")
def saved(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "small"
    save_half_precision(model, folder, licence="MIT")
    return folder


@pytest.fixture
def damaged(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "damaged")


def test_the_folder_has_float16_weights_and_the_arguments(model, saved):
    assert {path.name for path in saved.iterdir()} == {MODEL, WEIGHTS}
    weights = load_file(saved / WEIGHTS)
    assert {values.dtype for values in weights.values()} == {np.dtype(np.float16)}
    assert sum(values.size for values in weights.values()) == model.count_params()
    kernel = model.backbone.get_layer("conv1").kernel
    np.testing.assert_array_equal(weights["backbone/conv1/kernel"], kernel.numpy().astype("f2"))
    content = json.loads((saved / MODEL).read_text())
    assert (content["class_name"], content["licence"]) == ("MaskRCNN", "MIT")


def test_a_saved_detector_is_loaded_with_rounded_weights(model, saved):
    again = load_half_precision(saved)
    assert type(again) is MaskRCNN
    assert again.get_config() == model.get_config()
    rounded = MaskRCNN.from_config(model.get_config())
    rounded.set_weights([weight.astype("f2").astype("f4") for weight in model.get_weights()])
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype(np.float32)
    found, expected = again(image), rounded(image)
    assert expected["num_detections"][0] > 0
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert {weight.dtype for weight in again.weights} == {"float32"}


def test_saving_a_loaded_detector_changes_no_byte(saved, tmp_path):
    save_half_precision(load_half_precision(saved), tmp_path, licence="MIT")
    for name in (MODEL, WEIGHTS):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()


def test_heads_that_share_a_trunk_are_written_once(tmp_path):
    model = small(MaskRCNN, "resnet18")
    save_half_precision(model, tmp_path)
    assert sum(v.size for v in load_file(tmp_path / WEIGHTS).values()) == model.count_params()
    for ours, theirs in zip(
        load_half_precision(tmp_path).get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs.astype("f2"))


@pytest.mark.parametrize("value", [1e5, np.nan])
def test_weights_beyond_float16_are_refused(model, tmp_path, value):
    bias = model.rpn_head.objectness.bias
    before = bias.numpy()
    bias.assign([0.0, value, 0.0])
    with pytest.raises(ValueError, match="rpn_head/objectness/bias has values that float16 cannot"):
        save_half_precision(model, tmp_path)
    bias.assign(before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [MODEL, WEIGHTS])
def test_a_missing_file_is_named(damaged, name):
    (damaged / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"damaged/{name}: no such file"):
        load_half_precision(damaged)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_weights_file_is_refused(damaged, keep):
    content = (damaged / WEIGHTS).read_bytes()
    (damaged / WEIGHTS).write_bytes(content[:keep])
    with pytest.raises(ValueError, match=rf"damaged/{WEIGHTS} is damaged"):
        load_half_precision(damaged)


def test_weights_that_do_not_fit_the_model_are_refused(damaged):
    weights, name = load_file(damaged / WEIGHTS), "rpn_head/objectness/bias"
    incomplete = {key: values for key, values in weights.items() if key != name}
    for changed, message in (
        (incomplete, f"{name} is missing"),
        (weights | {"rpn_head/more": weights[name]}, "rpn_head/more is not in the model"),
        (weights | {name: np.zeros(4, "f2")}, rf"{name} has shape \(4,\), not \(3,\)"),
        (weights | {name: np.full(3, np.inf, "f2")}, f"{name} has values that are not finite"),
    ):
        save_file(changed, damaged / WEIGHTS)
        with pytest.raises(ValueError, match=rf"damaged/{WEIGHTS}: {message}"):
            load_half_precision(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"class_name": "RetinaNet"},
            "class_name must be one of .*FasterRCNN, .*MaskRCNN.*: 'RetinaNet",
        ),
        ({"config": [1]}, "config must be a mapping"),
        ({"config": {"classes": ["a"], "box_units": 0}}, "config: box_units must be None or a"),
        ({"config": {"classes": ["a"], "box_unit": 8}}, "config: .*box_unit"),
    ],
)
def test_a_wrong_model_file_is_refused(damaged, change, message):
    content = json.loads((damaged / MODEL).read_text())
    (damaged / MODEL).write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match=rf"damaged/{MODEL}: {message}"):
        load_half_precision(damaged)


def test_a_model_file_that_is_not_json_is_refused(damaged):
    (damaged / MODEL).write_text('{"class_name": ')
    with pytest.raises(ValueError, match=rf"damaged/{MODEL} is not a JSON file"):
        read_model(damaged)
