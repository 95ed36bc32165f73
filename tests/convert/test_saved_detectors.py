"""Detectors in folders: the round trip through float16, and damaged files."""

import json
import shutil

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rcnn_keras.convert.saved_detectors import MODEL, WEIGHTS, load_packed, pack, read_model
from rcnn_keras.models import FasterRCNN, MaskRCNN


def small(architecture=FasterRCNN, backbone="resnet18_fpn", **arguments):
    keras.utils.set_random_seed(1)
    small = {"backbone_width": 0.125, "fpn_channels": 8, "box_units": 8, "recompute_stages": 0}
    return architecture(backbone, ["a", "b"], min_size=64, max_size=64, **(small | arguments))


@pytest.fixture(scope="module")
def model():
    return small(MaskRCNN, box_score_thresh=0.0)


@pytest.fixture(scope="module")
def packed(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed") / "small"
    pack(model, folder, licence="MIT")
    return folder


@pytest.fixture
def damaged(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / "damaged")


def test_what_is_in_the_folder(model, packed):
    assert {path.name for path in packed.iterdir()} == {MODEL, WEIGHTS}
    weights = load_file(packed / WEIGHTS)
    assert {values.dtype for values in weights.values()} == {np.dtype(np.float16)}
    assert sum(values.size for values in weights.values()) == model.count_params()
    kernel = model.backbone.get_layer("conv1").kernel
    np.testing.assert_array_equal(weights["backbone/conv1/kernel"], kernel.numpy().astype("f2"))
    content = json.loads((packed / MODEL).read_text())
    assert (content["class_name"], content["licence"]) == ("MaskRCNN", "MIT")


def test_it_loads_as_the_model_of_rounded_weights(model, packed):
    again = load_packed(packed)
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


def test_packing_again_changes_no_byte(packed, tmp_path):
    pack(load_packed(packed), tmp_path, licence="MIT")
    for name in (MODEL, WEIGHTS):
        assert (tmp_path / name).read_bytes() == (packed / name).read_bytes()


def test_heads_that_share_a_trunk_are_written_once(tmp_path):
    model = small(MaskRCNN, "resnet18")
    pack(model, tmp_path)
    assert sum(v.size for v in load_file(tmp_path / WEIGHTS).values()) == model.count_params()
    for ours, theirs in zip(load_packed(tmp_path).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype("f2"))


@pytest.mark.parametrize("value", [1e5, np.nan])
def test_weights_beyond_float16_are_refused(model, tmp_path, value):
    bias = model.rpn_head.objectness.bias
    before = bias.numpy()
    bias.assign([0.0, value, 0.0])
    with pytest.raises(ValueError, match="rpn_head/objectness/bias has values that float16 cannot"):
        pack(model, tmp_path)
    bias.assign(before)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [MODEL, WEIGHTS])
def test_a_missing_file(damaged, name):
    (damaged / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"damaged/{name}: no such file"):
        load_packed(damaged)


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_weights_file(damaged, keep):
    content = (damaged / WEIGHTS).read_bytes()
    (damaged / WEIGHTS).write_bytes(content[:keep])
    with pytest.raises(ValueError, match=rf"damaged/{WEIGHTS} is damaged"):
        load_packed(damaged)


def test_weights_that_do_not_fit(damaged):
    weights, name = load_file(damaged / WEIGHTS), "rpn_head/objectness/bias"
    less = {key: values for key, values in weights.items() if key != name}
    for changed, message in (
        (less, f"{name} is missing"),
        (weights | {"rpn_head/more": weights[name]}, "rpn_head/more has no place in the model"),
        (weights | {name: np.zeros(4, "f2")}, rf"{name} has shape \(4,\), not \(3,\)"),
        (weights | {name: np.full(3, np.inf, "f2")}, f"{name} has values that are not finite"),
    ):
        save_file(changed, damaged / WEIGHTS)
        with pytest.raises(ValueError, match=rf"damaged/{WEIGHTS}: {message}"):
            load_packed(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_name": "RetinaNet"}, "class_name must be one of FasterRCNN, MaskRCNN: 'RetinaNet"),
        ({"config": [1]}, "config must be a mapping"),
        ({"config": {"classes": ["a"], "box_units": 0}}, "config: box_units must be None or a"),
        ({"config": {"classes": ["a"], "box_unit": 8}}, "config: .*box_unit"),
    ],
)
def test_a_wrong_model_file(damaged, change, message):
    content = json.loads((damaged / MODEL).read_text())
    (damaged / MODEL).write_text(json.dumps(content | change))
    with pytest.raises(ValueError, match=rf"damaged/{MODEL}: {message}"):
        load_packed(damaged)


def test_a_model_file_that_is_no_json(damaged):
    (damaged / MODEL).write_text('{"class_name": ')
    with pytest.raises(ValueError, match=rf"damaged/{MODEL} is no JSON file"):
        read_model(damaged)
