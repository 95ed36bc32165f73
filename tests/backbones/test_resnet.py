import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from rcnn_keras.backbones import resnet, resnet_c5
from rcnn_keras.layers.normalization import (
    BatchNormalization,
    FrozenBatchNormalization,
    GroupNormalization,
)

sys.path.append(str(Path(__file__).resolve().parents[2] / "tools" / "parity"))
from store_backbone import drawn

# Written by tools/parity/store_backbone.py: the features of torchvision's ResNets.
TORCHVISION = Path(__file__).with_name("resnet_torchvision.npz")


def torch_name(layer):
    """`layer1_0_conv1` is `layer1.0.conv1`, `layer2_0_downsample_bn` `layer2.0.downsample.1`."""
    name = layer.replace("_", ".")
    return name.replace("downsample.conv", "downsample.0").replace("downsample.bn", "downsample.1")


def draw_weights(model):
    for layer in model.layers:
        name = torch_name(layer.name)
        if isinstance(layer, keras.layers.Conv2D):
            height, width, inputs, outputs = layer.kernel.shape
            kernel = drawn(f"{name}.weight", (outputs, inputs, height, width))
            layer.set_weights([kernel.transpose(2, 3, 1, 0)])
        elif layer.weights:
            parts = ("weight", "bias", "running_mean", "running_var")
            layer.set_weights([drawn(f"{name}.{part}", layer.gamma.shape) for part in parts])


def check_against_torchvision(model, depth, levels):
    draw_weights(model)
    image = drawn("image", (48, 64, 3)) * 2 - 1
    maps = model(image[None], training=False)
    with np.load(TORCHVISION) as stored:
        for level in levels:
            expected = stored[f"resnet{depth}_{level}"]
            assert maps[level].shape == (1, *expected.shape)
            error = np.abs(maps[level][0] - expected).max()
            assert error < 1e-4 * np.abs(expected).max(), level
            assert error < 1e-3 * expected.std(), level


@pytest.mark.parametrize("norm", ["batch", "frozen_batch"])
def test_resnet18_gives_torchvisions_features(norm):
    check_against_torchvision(resnet(18, norm), 18, ("c2", "c3", "c4", "c5"))


def test_resnet50_gives_torchvisions_features():
    check_against_torchvision(resnet(50), 50, ("c5",))


@pytest.mark.parametrize(
    ("depth", "parameters", "statistics"),
    [  # of torchvision's models without fc
        (18, 11_176_512, 9_600),
        (34, 21_284_672, 17_024),
        (50, 23_508_032, 53_120),
        (101, 42_500_160, 105_344),
    ],
)
def test_parameters_and_shapes(depth, parameters, statistics):
    model = resnet(depth)
    assert sum(w.value.shape.num_elements() for w in model.trainable_weights) == parameters
    assert sum(w.value.shape.num_elements() for w in model.non_trainable_weights) == statistics
    wider = 1 if depth < 50 else 4
    assert model.compute_output_shape((2, 64, 96, 3)) == {
        "c2": (2, 16, 24, 64 * wider),
        "c3": (2, 8, 12, 128 * wider),
        "c4": (2, 4, 6, 256 * wider),
        "c5": (2, 2, 3, 512 * wider),
    }


def test_odd_sizes_are_rounded_up():
    maps = resnet(18)(np.zeros((1, 65, 97, 3), np.float32))
    sizes = {level: tuple(x.shape[1:3]) for level, x in maps.items()}
    assert sizes == {"c2": (17, 25), "c3": (9, 13), "c4": (5, 7), "c5": (3, 4)}


def strides_of(model, stage):
    return [model.get_layer(f"layer{stage}_0_conv{k}").strides for k in (1, 2, 3)]


def test_stride_in_1x1_moves_the_stride_to_the_first_convolution():
    """The first paper's ResNet reads every other position in the 1x1, ours in the 3x3."""
    late, early = resnet(50), resnet(50, stride_in_1x1=True)
    for stage in (2, 3, 4):
        assert strides_of(late, stage) == [(1, 1), (2, 2), (1, 1)]
        assert strides_of(early, stage) == [(2, 2), (1, 1), (1, 1)]
    assert strides_of(late, 1) == strides_of(early, 1) == [(1, 1)] * 3
    shape = (1, 64, 96, 3)
    assert early.compute_output_shape(shape) == late.compute_output_shape(shape)
    assert [w.shape for w in early.weights] == [w.shape for w in late.weights]


@pytest.mark.parametrize(
    ("norm", "cls"),
    [
        ("batch", BatchNormalization),
        ("frozen_batch", FrozenBatchNormalization),
        ("group", GroupNormalization),
    ],
)
def test_norm_chooses_the_kind_of_every_normalisation(norm, cls):
    model = resnet(18, norm)
    norms = [layer for layer in model.layers if "bn" in layer.name]
    assert len(norms) == 20
    assert {type(layer) for layer in norms} == {cls}
    trained = {"batch": 40, "frozen_batch": 0, "group": 40}[norm]
    assert len(model.trainable_weights) == 20 + trained
    assert np.isfinite(model(np.ones((1, 32, 32, 3), np.float32), training=True)["c5"]).all()


def test_fewer_stages_give_fewer_maps():
    assert list(resnet(18, stages=3).output) == ["c2", "c3", "c4"]


@pytest.mark.parametrize("depth", [18, 50])
def test_c5_of_a_c4_detector_is_the_last_stage(depth):
    whole, trunk = resnet(depth, "frozen_batch"), resnet_c5(depth, "frozen_batch", name="trunk")
    draw_weights(whole)
    draw_weights(trunk)
    assert trunk.name == "trunk"
    maps = whole(np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype(np.float32))
    expected = maps["c5"].numpy().mean(axis=(1, 2))
    np.testing.assert_allclose(trunk(maps["c4"]), expected, rtol=1e-4, atol=1e-4 * expected.max())
    whole_weights = {w.path for layer in whole.layers for w in layer.weights}
    assert {w.path for layer in trunk.layers for w in layer.weights} == {
        path for path in whole_weights if path.startswith("layer4")
    }


def test_kernels_are_drawn_by_he_over_the_fan_out():
    model = resnet(18)
    for name, fan_out in (("conv1", 49 * 64), ("layer3_1_conv2", 9 * 256)):
        kernel = model.get_layer(name).kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(2 / fan_out), rel=0.05)


@pytest.mark.parametrize(("depth", "width"), [(18, 0.5), (50, 0.25), (18, 2)])
def test_width_is_a_factor_of_all_channels(depth, width):
    model, whole = resnet(depth, width=width), resnet(depth)
    for layer in model.layers:
        if layer.weights:
            shape = np.array(whole.get_layer(layer.name).weights[0].shape, float)
            image = layer.name == "conv1"
            shape[-2 + image :] *= width
            assert tuple(layer.weights[0].shape) == tuple(shape), layer.name


def test_a_narrow_c4_detectors_stages_fit_together():
    body, trunk = resnet(18, width=0.5, stages=3), resnet_c5(18, width=0.5)
    assert body.output["c4"].shape[-1] == trunk.input.shape[-1] == 128
    assert trunk.output.shape[-1] == 256


@pytest.mark.parametrize(
    ("width", "norm", "message"),
    [
        (0.3, "batch", r"multiple of 1/64 above 0.*received 0\.3"),
        (0, None, "multiple of 1/64 above 0.*received 0"),
        (0.25, "group", r"multiple of 1/2 above 0.*32 groups.*received 0\.25"),
    ],
)
def test_a_width_without_whole_channels_is_refused(width, norm, message):
    with pytest.raises(ValueError, match=message):
        resnet(18, norm, width=width)


def test_half_width_has_whole_groups():
    assert resnet(18, "group", width=0.5).output["c2"].shape[-1] == 32


@pytest.mark.parametrize("depth", [19, "18", None])
def test_an_unknown_depth_is_refused(depth):
    with pytest.raises(ValueError, match=r"one of \[18, 34, 50, 101\]; received"):
        resnet(depth)


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match=r"norm must be one of batch.*received 'layer'"):
        resnet(18, "layer")
