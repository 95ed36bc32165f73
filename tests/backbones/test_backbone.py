import numpy as np
import pytest

from rcnn_keras.backbones import build_backbone
from rcnn_keras.backbones.backbone import NAMES, num_stages
from rcnn_keras.backbones.trunks import box_trunk

SIZE = (64, 96)


@pytest.mark.parametrize(
    ("name", "pyramid", "strides", "pooled_size", "channels", "features"),
    [
        ("resnet18_fpn", True, (4, 8, 16, 32), 7, 16, 24),
        ("resnet50_fpn", True, (4, 8, 16, 32), 7, 16, 24),
        ("resnet18", False, (16,), 14, 256, 512),
        ("resnet50", False, (16,), 14, 1024, 2048),
        ("vgg16", False, (16,), 7, 512, 24),
        ("zf", False, (16,), 6, 256, 24),
        ("mobilenet_v3_large_fpn", True, (32,), 7, 16, 24),
    ],
)
def test_backbone_and_trunks_fit_together(name, pyramid, strides, pooled_size, channels, features):
    parts = build_backbone(name, norm="frozen_batch", fpn_channels=16, box_units=24)
    assert parts.pyramid is pyramid
    assert parts.strides == strides
    assert parts.pooled_size == pooled_size
    assert parts.box_trunk.name == "box_trunk"
    shapes = parts.model.compute_output_shape((2, *SIZE, 3))
    maps = [shapes[level] for level in sorted(shapes)][-len(strides) :]
    assert [(SIZE[0] // s, SIZE[1] // s) for s in strides] == [shape[1:3] for shape in maps]
    pooled = (5, pooled_size, pooled_size, channels)
    if not pyramid:
        assert maps[0][-1] == channels
    assert parts.box_trunk.compute_output_shape(pooled) == (5, features)
    depth = {"resnet18": (7, 512), "resnet50": (7, 2048), "vgg16": (14, 256)}
    depth = (depth | {"zf": (14, 256)}).get(name, (14, 16))
    mask_pooled = (5, 14, 14, channels)
    assert parts.mask_trunk().compute_output_shape(mask_pooled) == (5, depth[0], *depth)


def test_options_reach_both_parts_of_a_c4_detector():
    parts = build_backbone("resnet50", norm="group", stride_in_1x1=True)
    names = {layer.name: layer for layer in (*parts.model.layers, *parts.box_trunk.layers)}
    for stage in (2, 3, 4):
        assert names[f"layer{stage}_0_conv1"].strides == (2, 2)
        assert type(names[f"layer{stage}_0_bn1"]).__name__ == "GroupNormalization"


def test_all_names_are_listed():
    assert set(NAMES) == {
        *(f"resnet{d}{end}" for d in (18, 34, 50, 101) for end in ("", "_fpn")),
        *(f"resnext{n}{end}" for n in ("50_32x4d", "101_32x8d") for end in ("", "_fpn")),
        *("resnet50_dc5", "resnet101_dc5"),
        "vgg16",
        "zf",
        "mobilenet_v3_large_fpn",
        *(f"efficientnet_lite{n}{end}" for n in (0, 1, 2) for end in ("", "_fpn")),
    }


@pytest.mark.parametrize(
    ("name", "hint"),
    [("resnet50-fpn", "did you mean 'resnet50_fpn'"), ("vgg18", "did you mean 'vgg1")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, hint):
    with pytest.raises(ValueError, match=hint) as error:
        build_backbone(name)
    assert repr(name) in str(error.value)
    assert "resnet18_fpn" in str(error.value)


@pytest.mark.parametrize("name", ["transformer", None, 7])
def test_an_unknown_name_without_a_near_one_is_refused(name):
    with pytest.raises(ValueError, match="backbone must be one of") as error:
        build_backbone(name)
    assert "did you mean" not in str(error.value)


def test_the_box_trunk_has_two_dense_layers():
    trunk = box_trunk(3, 8, 500)
    rng = np.random.default_rng(0)
    pooled = x = rng.normal(size=(4, 3, 3, 8)).astype(np.float32)
    x = x.reshape(4, -1)
    for name in ("fc6", "fc7"):
        layer = trunk.get_layer(name)
        kernel = layer.kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(1 / 3 / kernel.shape[0]), rel=0.05)
        x = np.maximum(x @ kernel, 0)
    np.testing.assert_allclose(trunk(pooled), x, rtol=1e-4, atol=1e-5)


def test_the_box_trunk_may_have_convolutions_and_one_dense_layer():
    trunk = box_trunk(3, 8, 50, num_convs=2, norm="batch")
    names = [layer.name for layer in trunk.layers if layer.weights]
    assert names == ["conv1", "norm1", "conv2", "norm2", "fc6"]
    assert not trunk.get_layer("conv1").use_bias
    assert trunk.compute_output_shape((4, 3, 3, 8)) == (4, 50)
    assert box_trunk(3, 8, 50, num_convs=2).get_layer("conv1").use_bias


LARGE = ("resnet101", "resnet101_fpn", "resnet101_dc5", "resnext101_32x8d", "resnext101_32x8d_fpn")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] * (n in LARGE)) for n in sorted(NAMES)]
)
def test_every_layer_of_a_backbone_belongs_to_one_stage(name):
    parts = build_backbone(name, norm="frozen_batch", fpn_channels=16, box_units=24)
    for layer in parts.model.layers:
        if layer.weights:
            begins = [layer.name in stage for stage in parts.stages]
            assert sum(begins) == 1, layer.name
    assert parts.frozen_stages < len(parts.stages) == num_stages(name)
