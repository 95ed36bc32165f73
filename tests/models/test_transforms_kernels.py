"""One detector on both kinds of kernels."""

import keras
import numpy as np
import pytest

import rcnn_keras as rk

PIXELS, SCORE = 1e-2, 1e-4
SMALL_RCNN = {"crop_size": 67, "context": 4, "channels": (4, 6, 6, 6, 6), "units": 8}
VARIANTS = {
    "Mask R-CNN": (rk.models.MaskRCNN, "resnet18_fpn", {}),
    "one map, RoIPool": (rk.models.FastRCNN, "zf", {}),
    "R-CNN": (rk.models.RCNN, "alexnet", None),
}


def small(make_detector, name, **more):
    architecture, backbone, changes = VARIANTS[name]
    if changes is None:
        return rk.models.RCNN(
            "alexnet", ("a", "b"), box_score_thresh=0.0, classifier="softmax", **SMALL_RCNN, **more
        )
    if architecture is rk.models.FastRCNN:
        return rk.models.FastRCNN(
            backbone,
            ("a", "b"),
            min_size=96,
            max_size=96,
            box_units=16,
            box_score_thresh=0.0,
            box_detections_per_img=20,
            **more,
        )
    tiny = {"min_size": 64, "max_size": 96, "fpn_channels": 8, "box_units": 8}
    return make_detector(
        ("a", "b"), architecture, backbone, **tiny | {"box_score_thresh": 0.0} | changes | more
    )


def inputs_of(model, images=2):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (images, 64, 96, 3), dtype="uint8")
    inputs = {"images": pixels, "image_sizes": np.int32([[64, 96], [50, 70]])[:images]}
    if model.takes_proposals:
        low = rng.uniform(0, 60, (images, 9, 2))
        boxes = np.concatenate([low, low + rng.uniform(1, 40, low.shape)], -1)
        boxes = boxes.clip(0, [96, 64, 96, 64])
        inputs["proposals"] = boxes.astype("float32")
        inputs["num_proposals"] = np.int32([9, 0])[:images]
    return inputs


def assert_same(found, expected):
    np.testing.assert_array_equal(found["num_detections"], expected["num_detections"])
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=PIXELS)
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=SCORE)
    if "masks" in expected:
        np.testing.assert_allclose(found["masks"], expected["masks"], atol=SCORE)


@pytest.fixture(scope="module", params=VARIANTS)
def pair(request, make_detector):
    keras.utils.set_random_seed(0)
    model = small(make_detector, request.param)
    return model, rk.models.with_kernels(model, "portable")


def test_detections_are_the_same(pair):
    """The second image of those that take proposals has none."""
    native, portable = pair
    inputs = inputs_of(native)
    expected = native.predict(inputs, verbose=0)
    assert expected["num_detections"][0] > 5
    assert (expected["num_detections"][1] == 0) == native.takes_proposals
    assert_same(portable.predict(inputs, verbose=0), expected)


def test_the_copy_knows_its_kernels_and_the_original_keeps_its_own(pair):
    native, portable = pair
    assert native.get_config()["kernels"] == "native"
    assert portable.get_config()["kernels"] == "portable"
    assert [w.shape for w in native.weights] == [w.shape for w in portable.weights]
    choosing = [layer for layer in portable._flatten_layers() if hasattr(layer, "kernels")]
    assert len(choosing) >= 2
    assert {layer.kernels for layer in choosing} == {"portable"}
    assert all(layer.supports_jit for layer in portable._flatten_layers())
    assert not all(layer.supports_jit for layer in native._flatten_layers())


def test_native_kernels_are_restored(make_detector):
    portable = small(make_detector, "one map, RoIPool", kernels="portable")
    native = rk.models.with_kernels(portable, "native")
    for ours, theirs in zip(portable.get_weights(), native.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_no_detections_are_no_detections_with_either_kernels(make_detector):
    model = small(make_detector, "Mask R-CNN", box_score_thresh=0.99)
    found = rk.models.with_kernels(model, "portable").predict(inputs_of(model), verbose=0)
    assert found["num_detections"].tolist() == [0, 0]
    assert not found["masks"].any()
    assert not found["boxes"].any()


@pytest.mark.slow
def test_xla_computes_the_same(make_detector):
    model = small(make_detector, "one map, RoIPool")
    portable = rk.models.with_kernels(model, "portable")
    portable.compile(jit_compile=True)
    assert portable.jit_compile
    inputs = inputs_of(model, images=1)
    assert_same(portable.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


@pytest.mark.slow
def test_xla_computes_masks_too(make_detector):
    model = small(make_detector, "Mask R-CNN")
    portable = rk.models.with_kernels(model, "portable")
    portable.compile(jit_compile=True)
    inputs = inputs_of(model, images=1)
    assert_same(portable.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_compile_leaves_xla_out_on_a_gpu(make_detector, monkeypatch):
    portable = small(make_detector, "one map, RoIPool", kernels="portable")
    gpu = type("Device", (), {"device_type": "GPU"})
    monkeypatch.setattr("tensorflow.config.list_physical_devices", lambda: [gpu])
    portable.compile(keras.optimizers.SGD())
    assert not portable.jit_compile
    portable.compile(keras.optimizers.SGD(), jit_compile=True)
    assert portable.jit_compile


def test_other_kernels_are_refused(make_detector):
    for name in VARIANTS:
        with pytest.raises(ValueError, match="kernels must be 'native' or 'portable'; received"):
            small(make_detector, name, kernels="fast")
