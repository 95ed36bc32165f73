"""XLA: asked for it trains and predicts the same on portable kernels; else it stays away."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk

SAME = 1e-4
SMALL = {
    "min_size": 64,
    "max_size": 64,
    "norm": "frozen_batch",
    "box_units": 8,
    "box_batch_size_per_image": 16,
    "box_detections_per_img": 5,
    "box_score_thresh": 0.0,
    "kernels": "portable",
}
RPN = {
    "backbone_width": 0.25,
    "fpn_channels": 8,
    "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
    "rpn_pre_nms_top_n_train": 50,
    "rpn_post_nms_top_n_train": 20,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    drawn = rk.data.draw_shapes(4, size=(64, 64), seed=5, out=tmp_path_factory.mktemp("scenes"))
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 40, (4, 12, 2))
    boxes = np.concatenate([low, low + rng.uniform(4, 24, low.shape)], axis=-1).astype("float32")
    return drawn.with_proposals({r.image_id: boxes[i] for i, r in enumerate(drawn)})


def of_one_shape(batches):
    """The batches as a pipeline whose shapes are known: XLA compiles again for each new shape."""
    dataset = batches.tf_dataset()
    shapes = tf.nest.map_structure(lambda x: x.shape, next(iter(dataset)))
    return dataset.map(lambda *batch: tf.nest.map_structure(tf.ensure_shape, batch, shapes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "backbone", "more"),
    [
        (rk.models.MaskRCNN, "resnet18_fpn", RPN),
        (rk.models.CascadeRCNN, "resnet18_fpn", RPN),
        (rk.models.FastRCNN, "zf", {"roi_pooling": "align"}),
    ],
)
def test_xla_trains_and_predicts_the_same(architecture, backbone, more, scenes):
    results = []
    for jit_compile in (False, True):
        keras.utils.set_random_seed(0)
        model = architecture(backbone, scenes.classes, **SMALL | more)
        model.compile(keras.optimizers.SGD(0.001, momentum=0.9), jit_compile=jit_compile)
        assert model.jit_compile == jit_compile
        data = of_one_shape(model._with_truth(scenes.batches(2)))
        history = model.fit(data, epochs=2, verbose=0).history
        losses = model.evaluate(data, verbose=0, return_dict=True)
        results.append((model.get_weights(), history, losses, model.predict(data, verbose=0)))
    expected, found = results
    tf.nest.map_structure(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=SAME, atol=SAME), found[:3], expected[:3]
    )
    for name, values in expected[3].items():
        np.testing.assert_allclose(found[3][name], values, atol=SAME, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("kernels", ["native", "portable"])
@pytest.mark.parametrize("architecture", ["FasterRCNN", "RCNN"])
def test_on_a_gpu_host_nothing_is_compiled_that_xla_cannot(monkeypatch, kernels, architecture):
    """As Keras decides it: a GPU among the devices, and `jit_compile="auto"`."""
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    devices = tf.config.list_physical_devices
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *kind: [gpu, *devices(*kind)])
    if architecture == "RCNN":
        model = rk.models.RCNN(
            *("alexnet", ("a",)), crop_size=67, channels=(4, 6, 6, 6, 6), units=8, kernels=kernels
        )
        assert model.jit_compile == (kernels == "portable")  # predicts with XLA
    else:
        model = rk.models.FasterRCNN("zf", ("a",), box_units=8, kernels=kernels)
        model.compile("sgd")
        assert not model.jit_compile


def test_xla_is_left_out_with_native_kernels():
    model = rk.models.FasterRCNN("zf", ("a",), box_units=8)
    with pytest.warns(UserWarning, match=r"doesn't support `jit_compile=True`"):
        model.compile("sgd", jit_compile=True)
    assert not model.jit_compile
