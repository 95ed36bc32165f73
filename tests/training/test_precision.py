"""Mixed precision trains what float32 trains; boxes and losses stay float32."""

import warnings
from contextlib import contextmanager

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.models import detector as detector_module
from rcnn_keras.training.callbacks import Checkpoint
from rcnn_keras.training.rcnn.fine_tuning import WindowSampler, fine_tune

STEPS = 50
POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
RPN = {
    "rpn_pre_nms_top_n_train": 200,
    "rpn_post_nms_top_n_train": 100,
    "rpn_pre_nms_top_n_test": 200,
    "rpn_post_nms_top_n_test": 100,
}
SMALL = {
    "min_size": 64,
    "max_size": 64,
    "recompute_stages": 0,
    "box_units": 16,
    "box_batch_size_per_image": 64,  # a loss of fewer depends on which were drawn
    "box_detections_per_img": 5,
    "box_score_thresh": 0.0,
}
# Without the dropout of ZF's and VGG's heads: which numbers it drops depends on the order of the
# proposals, and that on their last bits.
PYRAMID = {
    "backbone_width": 0.25,
    "norm": "frozen_batch",
    "fpn_channels": 16,
    "anchor_sizes": ((8,), (16,), (32,), (64,), (128,)),
}
ARCHITECTURES = {
    "Fast R-CNN": (rk.models.FastRCNN, "zf", SMALL),
    "Faster R-CNN": (rk.models.FasterRCNN, "resnet18_fpn", SMALL | RPN | PYRAMID),
    "Mask R-CNN": (rk.models.MaskRCNN, "resnet18_fpn", SMALL | RPN | PYRAMID),
    "Cascade R-CNN": (rk.models.CascadeRCNN, "resnet18_fpn", SMALL | RPN | PYRAMID),
}


@contextmanager
def policy(name):
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Sixteen scenes, each with its objects and thirty boxes anywhere as proposals."""
    drawn = rk.data.draw_shapes(16, size=(64, 64), seed=5, out=tmp_path_factory.mktemp("scenes"))
    rng = np.random.default_rng(0)
    proposals = {}
    for record in drawn:
        low = rng.uniform(0, 40, (30, 2))
        boxes = np.concatenate([low, low + rng.uniform(4, 24, low.shape)], axis=-1)
        proposals[record.image_id] = np.concatenate([record.boxes, boxes]).astype("float32")
    return drawn.with_proposals(proposals)


def trained(name, scenes, precision):
    """Return the loss after 50 steps, detections, and the trained model.

    The mean of the losses on all scenes after every second of the last 16 steps: a single one
    depends on rounding, which the steps before have multiplied, and on which RoIs were drawn.
    """
    architecture, backbone, arguments = ARCHITECTURES[name]
    keras.utils.set_random_seed(0)
    with policy(precision):
        model = architecture(backbone, scenes.classes, **arguments)
    model.compile(keras.optimizers.SGD(0.001, momentum=0.9))
    batches = scenes.batches(4)
    epochs = STEPS // 2
    scored = {"validation_data": batches, "validation_freq": [*range(epochs - 7, epochs + 1)]}
    history = model.fit(batches, steps_per_epoch=2, epochs=epochs, verbose=0, **scored).history
    loss = np.mean(history["val_loss"])
    return loss, model.predict(scenes.batches(4), verbose=0), model


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_mixed_precision_trains_to_the_loss_of_float32(name, scenes):
    losses = {}
    for precision in POLICIES:
        losses[precision], found, model = trained(name, scenes, precision)
        for key in ("boxes", "scores", "masks"):
            assert key not in found or found[key].dtype == np.float32
        assert np.isfinite(found["boxes"]).all()
        compute = precision.removeprefix("mixed_")
        assert model.backbone.layers[1].compute_dtype == compute
        scaled = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
        assert scaled == (precision == "mixed_float16")
        assert {w.dtype for w in model.trainable_weights} == {"float32"}
        # Of the first steps some may be skipped until the scale is right.
        assert STEPS - 10 <= int(model.optimizer.iterations) <= STEPS
        inputs, targets = next(iter(model._with_truth(scenes.batches(4)).tf_dataset()))
        first = model.extract_features(dict(inputs), training=False)
        assert first["features"][0].dtype == tf.as_dtype(compute)
        loss = model.compute_loss(inputs, targets, first, training=False)
        assert loss.dtype == first["proposals"].dtype == tf.float32
    for precision in POLICIES[1:]:
        assert losses[precision] == pytest.approx(losses["float32"], rel=0.01)


@pytest.mark.slow
def test_rcnn_is_fine_tuned_in_mixed_precision(scenes, tmp_path):
    losses = {}
    for precision in POLICIES:
        keras.utils.set_random_seed(0)
        with policy(precision):
            model = rk.models.RCNN(
                "alexnet",
                scenes.classes,
                crop_size=67,
                context=4,
                channels=(4, 6, 6, 6, 6),
                units=8,
                classifier="softmax",
                box_score_thresh=0.0,
            )
            assert model.network.layers[1].compute_dtype == precision.removeprefix("mixed_")
            lines = []
            fine_tune(
                model,
                scenes,
                steps=STEPS,
                learning_rate=0.001,
                sampler=WindowSampler(scenes, 4, 12),
                checkpoint=Checkpoint(tmp_path / precision),
                key="",
                log=lines.append,
            )
        losses[precision] = float(lines[-1].split("loss ")[1].split(",")[0])
        found = model.predict(scenes.batches(4), verbose=0)
        assert found["boxes"].dtype == found["scores"].dtype == np.float32
    for precision in POLICIES[1:]:
        assert losses[precision] == pytest.approx(losses["float32"], rel=0.01)


def test_bfloat16_on_a_cpu_that_is_slow_at_it_warns_once(monkeypatch):
    monkeypatch.setattr(detector_module.Path, "read_text", lambda path, *how: "flags : avx512_bf16")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda *kind: [])
    detector_module._warn_slow_bfloat16.cache_clear()
    with policy("mixed_bfloat16"):
        with pytest.warns(UserWarning, match="mixed_bfloat16 is slower than float32 on a CPU"):
            rk.models.FasterRCNN("resnet18_fpn", ["a"], **SMALL | RPN | PYRAMID)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = rk.models.FasterRCNN("resnet18_fpn", ["a"], **SMALL | RPN | PYRAMID)
            model.compile("sgd")
    detector_module._warn_slow_bfloat16.cache_clear()
