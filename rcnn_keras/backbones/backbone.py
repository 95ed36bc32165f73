"""A backbone by its name, with the second-stage trunk that goes with it."""

import difflib
from dataclasses import dataclass

import keras
from keras import layers

from rcnn_keras.backbones.resnet import DEPTHS, resnet, resnet_c5
from rcnn_keras.backbones.vgg import vgg16, vgg16_fc

NAMES = (*(f"resnet{d}_fpn" for d in DEPTHS), *(f"resnet{d}" for d in DEPTHS), "vgg16")


@dataclass(frozen=True)
class Backbone:
    """What a detector needs to know of its backbone.

    Attributes:
        model: functional model from normalised images to `{"c2": .., ...}`.
        pyramid: whether a feature pyramid goes on top.
        strides: pixels a position of each map that RoIs are pooled from.
        pooled_size: S of the second stage.
        box_trunk: model from `(n, S, S, C)` to `(n, F)`.
    """

    model: keras.Model
    pyramid: bool
    strides: tuple[int, ...]
    pooled_size: int
    box_trunk: keras.Model


def build_backbone(name, *, norm="batch", stride_in_1x1=False, fpn_channels=256, box_units=None):
    """Build a backbone and the trunk of its box head.

    `resnetD_fpn` has RoIs pooled to 7x7 from a pyramid and two dense layers; `resnetD` alone is
    the C4 detector of the ResNet paper (14x14 from stride 16, then the fifth stage); `vgg16` is
    the detector of the Faster R-CNN paper (7x7 from conv5_3, then fc6 and fc7).

    Args:
        name: one of `NAMES`.
        norm: kind of normalisation of a ResNet.
        stride_in_1x1: see `resnet`.
        fpn_channels: channels of the pyramid.
        box_units: width of the two dense layers, 1024 after a pyramid and 4096 after VGG by
            default; a C4 head has none.

    Raises:
        ValueError: for another name, with the nearest.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(str(name), NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"backbone must be one of {', '.join(NAMES)}; received {name!r}{hint}")
    if name == "vgg16":
        trunk = vgg16_fc(box_units or 4096, name="box_trunk")
        return Backbone(vgg16(), False, (16,), 7, trunk)
    depth = int(name.removeprefix("resnet").removesuffix("_fpn"))
    if not name.endswith("_fpn"):
        model = resnet(depth, norm, stride_in_1x1, stages=3)
        trunk = resnet_c5(depth, norm, stride_in_1x1, name="box_trunk")
        return Backbone(model, False, (16,), 14, trunk)
    trunk = two_dense(7, fpn_channels, box_units or 1024, name="box_trunk")
    model = resnet(depth, norm, stride_in_1x1)
    return Backbone(model, True, (4, 8, 16, 32), 7, trunk)


def two_dense(pooled_size, channels, units, name=None):
    """Return the two dense layers of a pyramid's box head (Feature Pyramid Networks, 4.2)."""
    # A third of the variance that keeps a signal: the pyramid adds up levels, which widens it.
    initializer = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    inputs = keras.Input((pooled_size, pooled_size, channels), name="pooled")
    x = layers.Flatten(name="flatten")(inputs)
    for fc in ("fc6", "fc7"):
        x = layers.Dense(units, activation="relu", kernel_initializer=initializer, name=fc)(x)
    return keras.Model(inputs, x, name=name)
