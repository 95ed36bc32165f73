"""Folded batch norms and frozen stages."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.layers import FrozenBatchNormalization, WinogradConv2D

NORMS = (keras.layers.BatchNormalization, FrozenBatchNormalization)
VARIANTS = {
    "resnet18_fpn": {"head_norm": "batch", "box_convs": 1, "rpn_convs": 2},
    "resnet18": {"norm": "frozen_batch", "anchor_sizes": ((16, 32, 64),)},
    "mobilenet_v3_large_fpn": {"anchor_sizes": ((16, 32),) * 3},
}


def layers_of(model, kinds):
    return [layer for layer in model._flatten_layers() if isinstance(layer, kinds)]


SLOW = pytest.mark.slow
BACKBONES = [pytest.param(name, marks=SLOW if name != "resnet18_fpn" else ()) for name in VARIANTS]


@pytest.fixture(scope="module", params=BACKBONES)
def pair(request, scenes, make_detector):
    """A detector with norms that do something, and its folded copy."""
    model = make_detector(
        scenes.classes,
        architecture=rk.models.MaskRCNN,
        backbone=request.param,
        box_score_thresh=0.0,
        **VARIANTS[request.param],
    )
    rng = np.random.default_rng(0)
    for norm in layers_of(model, NORMS):
        norm.set_weights([rng.uniform(0.7, 1.3, w.shape) for w in norm.get_weights()])
    return model, rk.models.fold_batchnorm(model)


def test_a_folded_detector_has_no_batch_norm(pair):
    model, folded = pair
    assert layers_of(model, NORMS)
    assert not layers_of(folded, NORMS)
    assert type(folded) is type(model)


def test_a_folded_detector_finds_the_same(pair, scenes):
    model, folded = pair
    assert_finds_the_same(folded, model, scenes[:2])


def assert_finds_the_same(detector, expected, records):
    for record in records:
        ours, theirs = expected.detect(record.path)[0], detector.detect(record.path)[0]
        assert len(ours) > 5
        np.testing.assert_array_equal(ours.labels, theirs.labels)
        np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=2e-2)
        np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
        np.testing.assert_allclose(ours.masks, theirs.masks, atol=1e-3)


def test_winograd_finds_the_same_and_is_saved(pair, scenes, tmp_path):
    """The 3x3 convolutions of pyramid and RPN, and no others."""
    model, _ = pair
    fast = rk.models.fold_batchnorm(model, winograd=True)
    convs = layers_of(fast, WinogradConv2D)
    levels = len(model.fpn.output_convs) if model.fpn else 0
    assert len(convs) == levels + model.get_config()["rpn_convs"]
    assert not layers_of(model, WinogradConv2D)
    fast.save(tmp_path / "fast.keras")
    assert_finds_the_same(keras.models.load_model(tmp_path / "fast.keras"), model, scenes[:1])


def test_group_norm_stays(scenes, make_detector):
    model = make_detector(scenes.classes, norm="group", backbone_width=0.5)
    folded = rk.models.fold_batchnorm(model)
    assert folded.get_config()["norm"] == "group"
    for ours, theirs in zip(model.get_weights(), folded.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("backbone", "default", "first_trained"),
    [
        pytest.param("resnet18_fpn", 2, "layer2_0_conv1", marks=SLOW),
        pytest.param("mobilenet_v3_large_fpn", 3, "features_7_block_0_conv", marks=SLOW),
        pytest.param("vgg16", 2, "block3_conv1", marks=SLOW),
    ],
)
def test_a_frozen_stage_does_not_change(backbone, default, first_trained, scenes, make_detector):
    anchors = {"resnet18_fpn": ((16,),) * 5, "vgg16": ((16,),)}.get(backbone, ((16,),) * 3)
    model = make_detector(scenes.classes, backbone=backbone, anchor_sizes=anchors)
    model.freeze_backbone(None)
    assert model.get_config()["frozen_stages"] == default
    trained = [layer.name for layer in model.backbone.layers if layer.trainable_weights]
    assert trained[0] == first_trained
    model.compile(keras.optimizers.SGD(0.01))
    frozen = [w for layer in model.backbone.layers for w in layer.weights if not layer.trainable]
    before = [w.numpy() for w in frozen]
    after = model.backbone.get_layer(first_trained).get_weights()[0]
    model.fit(scenes[:2].batches(2), verbose=0)
    assert len(frozen) > 3
    for was, weight in zip(before, frozen, strict=True):
        np.testing.assert_array_equal(was, weight.numpy())
    assert np.any(after != model.backbone.get_layer(first_trained).get_weights()[0])


def test_freezing_is_undone_and_survives_saving(scenes, make_detector, tmp_path):
    model = make_detector(scenes.classes, frozen_stages=3)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    loaded.freeze_backbone(0)
    assert all(layer.trainable for layer in loaded.backbone.layers)
    assert len(loaded.trainable_weights) > len(model.trainable_weights)


def test_more_stages_than_a_backbone_has_are_refused(scenes, make_detector):
    with pytest.raises(ValueError, match=r"^stages must be in 0\.\.5 for resnet18_fpn; received 6"):
        make_detector(scenes.classes).freeze_backbone(6)
    for argument in ("frozen_stages", "recompute_stages"):
        with pytest.raises(ValueError, match=rf"^{argument} must be at most 5 for resnet18_fpn"):
            make_detector(scenes.classes, **{argument: 6})


@pytest.mark.parametrize(("recomputed", "frozen", "twice"), [(2, 0, 5), (2, 2, 0)])
def test_stages_are_recomputed_unless_they_are_frozen(
    scenes, make_detector, recomputed, frozen, twice
):
    arguments = {"recompute_stages": recomputed, "frozen_stages": frozen}
    model = make_detector(scenes.classes, **arguments)
    assert model.get_config().items() >= arguments.items()
    model.compile(keras.optimizers.SGD(0.001))
    data = scenes[:1].batches(1).sized(96, 96).tf_dataset()
    step = tf.function(model.train_step).get_concrete_function(next(iter(data)))
    names = [op.name for op in step.graph.get_operations() if op.type == "Conv2D"]
    backbone = [name for name in names if "conv1" in name or "layer" in name]
    assert len([name for name in backbone if "rpn_head" not in name]) == 20 + twice
