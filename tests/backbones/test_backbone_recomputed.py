"""Backbones whose first stages run twice: the same maps, gradients and statistics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.backbones import build_backbone
from rcnn_keras.backbones.backbone import Recomputed
from rcnn_keras.ops import drawing_for

CONVOLUTIONS = ("Conv2D", "DepthwiseConv2dNative")


def built(name, seed=0):
    keras.utils.set_random_seed(seed)
    return build_backbone(name, fpn_channels=8, box_units=8)


def step(backbone, call, images):
    """Return maps, gradients and what batch norm keeps after a step; and the graph's convs."""

    @tf.function
    def run():
        with tf.GradientTape() as tape:
            maps = call(images, training=True)
            loss = sum(tf.reduce_mean(x * x) for x in maps.values())
        return maps, tape.gradient(loss, [v.value for v in backbone.trainable_variables])

    maps, gradients = run()
    operations = run.get_concrete_function().graph.get_operations()
    kept = [v.numpy() for v in backbone.non_trainable_variables]
    return maps, gradients, kept, sum(op.type in CONVOLUTIONS for op in operations)


# The convolutions of the first two stages.
@pytest.mark.parametrize(
    ("name", "convs"),
    [
        ("resnet18_fpn", 5),
        ("vgg16", 4),
        ("zf", 2),
        pytest.param("mobilenet_v3_large_fpn", 9, marks=pytest.mark.slow),
        ("efficientnet_lite0_fpn", 9),
    ],
)
def test_recomputed_stages_give_the_same_step(name, convs):
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype("float32")
    plain, again = built(name), built(name)
    expected = step(plain.model, plain.model, images)
    found = step(again.model, Recomputed(again.model, again.stages[:2]), images)
    assert found[3] == expected[3] + convs
    assert set(found[0]) == set(expected[0])
    for level, x in expected[0].items():
        np.testing.assert_allclose(found[0][level], x, rtol=1e-5, atol=1e-6)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        scale = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=1e-3 * scale + 1e-6)
    for ours, theirs in zip(found[2], expected[2], strict=True):  # moved once
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_recomputed_stage_leaves_out_the_same_blocks():
    arguments = {"fpn_channels": 8, "box_units": 8, "drop_rate": 0.9, "norm": "frozen_batch"}
    parts = build_backbone("efficientnet_lite0_fpn", **arguments)
    images = tf.constant(np.random.default_rng(0).normal(size=(6, 32, 32, 3)), "float32")
    ids = np.arange(6)

    def gradient(backbone):
        with drawing_for(ids, 5), tf.GradientTape() as tape:
            tape.watch(images)
            maps = backbone(images, training=True)
            loss = sum(tf.reduce_sum(x * x) for x in maps.values())
        return tape.gradient(loss, images)  # where the second run is, outside of the block

    expected = gradient(parts.model).numpy()
    found = gradient(Recomputed(parts.model, parts.stages[:3])).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


def test_all_stages_may_be_recomputed():
    parts = built("resnet18_fpn")
    images = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype("float32")
    twice = Recomputed(parts.model, parts.stages)
    assert twice.late is None
    found, expected = twice(images, training=False), parts.model(images, training=False)
    for level, x in expected.items():
        np.testing.assert_allclose(found[level], x, rtol=1e-5, atol=1e-6)


def test_a_name_belongs_to_a_stage_as_a_whole():
    stages = built("mobilenet_v3_large_fpn").stages
    assert "features_1_block_0_conv" in stages[0]
    assert "features_10_block_0_conv" not in stages[0]
