"""Weights of one detector for another: what is copied, what is left, what is refused."""

import numpy as np
import pytest

from rcnn_keras.convert.weights import conflicts, transfer
from rcnn_keras.models import FasterRCNN, MaskRCNN

SMALL = {"backbone": "resnet18_fpn", "fpn_channels": 8, "box_units": 8, "min_size": 64}
CONFIG = {
    "backbone": "resnet18_fpn",
    "backbone_width": 1.0,
    "norm": "batch",
    "stride_in_1x1": False,
    "backbone_weights": None,
    "fpn_channels": 8,
    "head_norm": None,
    "rpn_convs": 1,
    "rpn_objectness": "sigmoid",
    "box_units": None,
    "box_convs": 0,
}


@pytest.mark.parametrize(
    ("arguments", "conflicting"),
    [
        ({}, {}),
        ({"norm": "frozen_batch", "min_size": 3, "anchor_sizes": ((8, 16),) * 5}, {}),
        ({"norm": None}, {"norm": "must be 'batch', as the weights have it"}),
        ({"norm": "group", "rpn_convs": 1}, {"norm": "must be 'batch', as the weights have it"}),
        (
            {"backbone": "resnet18", "box_convs": 2},
            {
                "backbone": "must be 'resnet18_fpn', as the weights have it",
                "box_convs": "must be 0, as the weights have it",
            },
        ),
        (
            {"rpn_objectness": "softmax"},
            {"rpn_objectness": "must be 'sigmoid', as the weights have it"},
        ),
        (
            {"backbone_weights": "imagenet"},
            {"backbone_weights": "must be None, as the weights have it"},
        ),
    ],
)
def test_conflicting_arguments_are_found(arguments, conflicting):
    assert conflicts(CONFIG, arguments) == conflicting


def test_normalisations_with_other_weights_conflict():
    assert set(conflicts(CONFIG | {"norm": None}, {"norm": "batch"})) == {"norm"}
    assert conflicts(CONFIG | {"norm": "frozen_batch"}, {"norm": "batch"}) == {}


def values_of(model):
    return [value.copy() for value in model.get_weights()]


def test_nothing_is_copied_if_any_submodule_does_not_fit():
    source = FasterRCNN(classes=["a"], **SMALL)
    target = FasterRCNN(classes=["a"], **(SMALL | {"box_units": 4}))
    before = values_of(target)
    with pytest.raises(ValueError, match=r"box_head\.trunk has other shapes in the new model"):
        transfer(source, target)
    for now, then in zip(target.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.slow
def test_a_mask_rcnn_gives_its_box_head_to_a_faster_rcnn():
    source, target = MaskRCNN(classes=["a"], **SMALL), FasterRCNN(classes=["a"], **SMALL)
    kept, left = transfer(source, target)
    assert left == []
    assert not any(name.startswith("mask_head") for name in kept)
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype("f4")
    theirs, ours = source.predict(images, verbose=0), target.predict(images, verbose=0)
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_a_stage_shared_by_two_heads_belongs_to_the_box_head():
    source, target = (
        FasterRCNN("resnet18", ["a"], min_size=64),
        MaskRCNN("resnet18", ["a", "b"], min_size=64),
    )
    kept, left = transfer(source, target)
    assert kept == [
        *("backbone", "rpn_head.convs", "rpn_head.objectness", "rpn_head.deltas"),
        "box_head.trunk",
    ]
    new = ["class_logits", "box_deltas"]
    assert left == [*(f"box_head.{n}" for n in new), "mask_head.upsample", "mask_head.mask_logits"]
    stage = source.box_head.trunk.get_layer("layer4_0_conv1").kernel
    np.testing.assert_array_equal(target.mask_head.trunk.get_layer("layer4_0_conv1").kernel, stage)
