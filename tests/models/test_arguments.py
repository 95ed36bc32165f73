"""The rules for arguments, as the constructor tells them; tests of each are the configuration's."""

import inspect

import pytest

from rcnn_keras.models import FasterRCNN, MaskRCNN
from rcnn_keras.models.arguments import argument_errors, check_arguments

DEFAULTS = {
    name: parameter.default for name, parameter in inspect.signature(FasterRCNN).parameters.items()
} | {"classes": ("cat", "dog")}


def test_the_defaults_keep_the_rules():
    assert argument_errors(DEFAULTS) == {}


def test_every_wrong_argument_has_a_line_with_its_value():
    wrong = {"box_units": 0, "norm": "layer", "image_std": (1.0, 1.0, 0.0), "min_size": 1400}
    with pytest.raises(ValueError, match="box_units") as caught:
        check_arguments(DEFAULTS | wrong)
    assert sorted(str(caught.value).splitlines()) == [
        "box_units must be None or a whole number of at least 1; received 0",
        "image_std must be None or three numbers above 0; received (1.0, 1.0, 0.0)",
        "min_size must be at most max_size=1333; received 1400",
        "norm must be one of batch, frozen_batch, group, None; received 'layer'",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_size", "800"),
        ("min_size", ()),
        ("min_size", (480, 0)),
        ("min_size", (480, 1400)),
        ("max_size", 1333.5),
        ("rpn_batch_size_per_image", True),
        ("box_nms_thresh", None),
        ("box_positive_fraction", float("nan")),
        ("aspect_ratios", 1.0),
        ("bbox_reg_weights", (1.0, 1.0, 1.0, float("inf"))),
        ("anchor_sizes", (8, 16, 32, 64, 128)),
        ("image_mean", "abc"),
    ],
)
def test_a_value_of_another_type_is_named(name, value):
    assert set(argument_errors(DEFAULTS | {name: value})) == {name}


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"backbone_width": "0.5"}, "must be a number above 0"),
        ({"backbone": "mobilenet_v3_large_fpn"}, "must be 1 for mobilenet_v3_large_fpn"),
        ({"backbone": "vgg16"}, "must be 1 for vgg16"),
        ({"backbone_width": 0.25, "norm": "group"}, "must be a multiple of 1/2"),
        ({"backbone_width": 0.25}, None),
        ({"backbone": "resnet50"}, None),
    ],
)
def test_only_a_resnet_has_a_width(changes, rule):
    errors = argument_errors(DEFAULTS | {"backbone_width": 0.5} | changes)
    assert set(errors) == ({"backbone_width"} if rule else set())
    assert rule is None or errors["backbone_width"].startswith(rule)


@pytest.mark.parametrize("backbone", ["resnet18_fpn", "resnet18"])
def test_backbone_width_is_part_of_the_configuration(backbone):
    arguments = {"fpn_channels": 16, "box_units": 16, "recompute_stages": 0}
    model = MaskRCNN(backbone, ["a"], backbone_width=0.25, **arguments)
    assert model.backbone.get_layer("conv1").kernel.shape[-1] == 16
    again = MaskRCNN.from_config(model.get_config())
    shapes = [weight.shape for weight in model.weights]
    assert shapes == [weight.shape for weight in again.weights]
    assert model.get_config()["backbone_width"] == 0.25


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"backbone_weights": "imagnet"}, "did you mean 'imagenet'?"),
        ({"backbone_weights": "resnet50_imagenet_v3"}, "did you mean 'resnet50_imagenet_v2'?"),
        ({"backbone_weights": 1}, "must be None, 'imagenet', the name of a backbone's preset"),
        ({"backbone_weights": "fasterrcnn_resnet50_fpn_coco"}, "the name of a backbone's preset"),
        ({"backbone_weights": "resnet50_imagenet"}, None),
        ({"backbone_weights": "own.pth"}, None),
        ({"backbone_weights": "resnet18_imagenet"}, "needs a backbone resnet18, not resnet50"),
        ({"backbone_weights": "own.pth", "norm": "group"}, "norm='batch' or 'frozen_batch'"),
        ({"backbone_weights": "own.pth", "stride_in_1x1": True}, "stride_in_1x1=False"),
        ({"backbone_weights": "own.pth", "backbone": "zf"}, "a backbone that torchvision has"),
        ({"backbone_weights": "own.pth", "backbone": "xception_fpn"}, "must be None or 'imagenet'"),
        ({"backbone_weights": "imagenet", "backbone": "efficientnet_lite0_fpn"}, None),
        ({"backbone_weights": "own.pth", "backbone": "efficientnet_lite2"}, None),
        (
            {"backbone_weights": "imagenet", "backbone": "resnet34_fpn"},
            "Torchvision has: backbone_weights='resnet34_imagenet'",
        ),
        (
            {"backbone_weights": "imagenet", "backbone": "efficientnet_lite0", "norm": None},
            "norm='batch' or 'frozen_batch', with which they were trained, not norm=None",
        ),
    ],
)
def test_weights_of_the_backbone_must_fit_it(changes, rule):
    errors = argument_errors(DEFAULTS | changes)
    assert set(errors) == (set() if rule is None else {"backbone_weights"})
    assert rule is None or rule in errors["backbone_weights"]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"stochastic_depth": 0.2}, "must be 0 for resnet50_fpn: only EfficientNet-Lite has it"),
        ({"stochastic_depth": 0.2, "backbone": "xception_fpn"}, "only EfficientNet-Lite has it"),
        ({"stochastic_depth": 1, "backbone": "efficientnet_lite1"}, "less than 1"),
        ({"stochastic_depth": 0.2, "backbone": "efficientnet_lite1"}, None),
    ],
)
def test_stochastic_depth_is_of_efficientnet_lite(changes, rule):
    errors = argument_errors(DEFAULTS | changes)
    assert set(errors) == (set() if rule is None else {"stochastic_depth"})
    assert rule is None or rule in errors["stochastic_depth"]
