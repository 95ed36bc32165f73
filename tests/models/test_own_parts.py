"""Backbones and layers that users bring: each trains a step, is saved, loaded and exported."""

import inspect

import keras
import numpy as np
import pytest
from keras import layers, ops

import rcnn_keras as rk
from rcnn_keras.models import RCNN, FasterRCNN, FastRCNN, MaskRCNN, arguments, with_kernels

SMALL = {
    "min_size": 64,
    "max_size": 64,
    "fpn_channels": 8,
    "box_units": 8,
    "rpn_pre_nms_top_n_train": 60,
    "rpn_pre_nms_top_n_test": 40,
    "rpn_post_nms_top_n_train": 30,
    "rpn_post_nms_top_n_test": 10,
    "box_batch_size_per_image": 8,
    "box_detections_per_img": 5,
    "box_score_thresh": 0.0,
}
IMAGE = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype("uint8")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return rk.data.draw_shapes(2, size=(64, 64), seed=5, out=tmp_path_factory.mktemp("drawn"))


def small_network(form="list", strides=(4, 8, 16), channels=(4, 6, 8), norm=False):
    """Return a functional model with a map of each stride, coarsest first."""
    images = keras.Input((None, None, 3), name="pixels")
    x, maps, stride = images, [], 1
    while stride < max(strides):
        stride *= 2
        count = channels[strides.index(stride)] if stride in strides else 4
        x = layers.Conv2D(count, 3, strides=2, padding="same", name=f"conv{stride}")(x)
        if norm:
            x = layers.BatchNormalization(name=f"norm{stride}")(x)
        x = layers.ReLU(name=f"relu{stride}")(x)
        if stride in strides:
            maps.insert(0, x)
    outputs = {"list": maps, "dict": {f"level{k}": x for k, x in enumerate(maps)}, "one": maps[0]}
    return keras.Model(images, outputs[form], name="small_network")


def hub_network():
    keras_hub = pytest.importorskip("keras_hub", reason="keras-hub is an extra: rcnn_keras[hub]")
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 64, 64, 64],
        stackwise_num_blocks=[1, 1, 1, 1],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )


def trained(model, data):
    """Take one step; every loss is finite and some weight of the backbone has changed."""
    before = [np.copy(w) for w in model.backbone.get_weights()]
    model.compile(keras.optimizers.SGD(0.01))
    history = model.fit(rk.data.Batches(data, 2), epochs=1, verbose=0).history
    assert all(np.isfinite(values).all() for values in history.values())
    after = model.backbone.get_weights()
    assert any((a != b).any() for a, b in zip(before, after, strict=True))
    return model


def assert_same(found, expected):
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
    np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)


def loaded_again(model, folder):
    """Save, load without `custom_objects`, and compare detections and arguments."""
    model.save(folder / "model.keras")
    again = keras.models.load_model(folder / "model.keras")
    expected = model.detect(IMAGE)[0]
    assert len(expected) == 5
    assert_same(again.detect(IMAGE)[0], expected)
    assert again.get_config() == model.get_config()
    return again


def exported(model, folder):
    """Export to a SavedModel and to LiteRT; both give the model's detections."""
    expected = model.detect(IMAGE)[0]
    model.export(folder / "saved_model", warm_up_size=(64, 64))
    assert (folder / "saved_model" / "saved_model.pb").is_file()
    path = model.export(folder / "model.tflite", "litert", size=(64, 64))
    from rcnn_keras.export import LiteRTDetector  # noqa: PLC0415

    assert_same(LiteRTDetector(path).detect(IMAGE)[0], expected)


BACKBONES = {
    "own_name": lambda: ("resnet18_fpn", {"backbone_width": 0.25}),
    "list_of_maps": lambda: (small_network("list"), {}),
    "dict_of_maps_without_a_pyramid": lambda: (
        small_network("dict", channels=(8, 8, 8)),
        {"feature_pyramid": False},
    ),
    "one_map": lambda: (small_network("one"), {}),
    "keras_hub": lambda: (hub_network(), {}),
    "application": lambda: ("mobilenet_v3_small_fpn", {}),
    "application_of_one_map": lambda: ("mobilenet", {}),
}
LARGE = {
    name: lambda name=name: (name, {})
    for name in ("convnext_tiny_fpn", "efficientnetv2_b0_fpn", "resnet50v2_fpn", "densenet121_fpn")
}


@pytest.mark.parametrize("kind", BACKBONES)
def test_a_detector_on_any_backbone_trains_and_is_loaded_again(kind, drawn, tmp_path):
    backbone, arguments = BACKBONES[kind]()
    model = trained(FasterRCNN(backbone, drawn.classes, **(SMALL | arguments)), drawn)
    loaded_again(model, tmp_path)
