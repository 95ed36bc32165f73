"""The rules for arguments, as the constructor tells them; tests of each are the configuration's."""

import inspect

import pytest

from rcnn_keras.models import FasterRCNN
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
def test_a_value_of_another_type_is_no_crash(name, value):
    assert set(argument_errors(DEFAULTS | {name: value})) == {name}
