"""Training: what `fit` runs, logs, keeps and refuses."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.models import NonFiniteLossError

LOSSES = ("rpn_objectness_loss", "rpn_box_loss", "class_loss", "box_loss")


@pytest.fixture(scope="module")
def run(scenes, make_detector, tmp_path_factory):
    """A detector that was overfitted to four scenes, with all of Keras' callbacks on."""
    folder = tmp_path_factory.mktemp("run")
    four = scenes[2:]  # in the first, two objects have one nearest anchor, so one is never matched
    model = make_detector(scenes.classes)
    rate = keras.optimizers.schedules.CosineDecay(0.001, 200, warmup_target=0.02, warmup_steps=20)
    model.compile(keras.optimizers.SGD(rate, momentum=0.9))
    history = model.fit(
        four.batches(4, shuffle=True, augment=rk.data.RandomFlip()),
        steps_per_epoch=50,
        epochs=4,
        validation_data=four.batches(3),
        callbacks=[
            keras.callbacks.EarlyStopping(monitor="val_AP", patience=10),
            keras.callbacks.ModelCheckpoint(
                folder / "best.keras", monitor="val_AP50", save_best_only=True
            ),
            keras.callbacks.TensorBoard(folder / "logs"),
            keras.callbacks.BackupAndRestore(folder / "backup"),
            rk.callbacks.CocoEvaluation(four, every=2),
        ],
        verbose=0,
    )
    return {"model": model, "four": four, "history": history.history, "folder": folder}


def test_four_images_are_overfitted(run):
    """Loss, sampler, encoder and decoder agree only if a detector can overfit."""
    assert run["history"]["val_AP50"][-1] >= 0.95
    assert run["history"]["loss"][-1] < run["history"]["loss"][0] / 2
    model, four = run["model"], run["four"]
    found = dict(zip([r.image_id for r in four], model.detect(four), strict=True))
    scores = rk.evaluation.CocoScores(four, found).summary()
    assert scores["AP50"] == pytest.approx(run["history"]["val_AP50"][-1], abs=1e-6)


def test_history_has_every_loss_and_its_validation_loss(run):
    history = run["history"]
    for name in (*LOSSES, "loss"):
        assert len(history[name]) == 4
        assert len(history[f"val_{name}"]) == 4
    assert sum(history[name][-1] for name in LOSSES) == pytest.approx(history["loss"][-1], 1e-4)
    assert {"val_AP", "val_AP50", "val_AP75", "val_AP/circle"} <= set(history)


def test_callbacks_write_their_files(run):
    assert (run["folder"] / "best.keras").exists()
    assert any((run["folder"] / "logs").rglob("events*"))
    best = keras.models.load_model(run["folder"] / "best.keras")
    assert best.optimizer is not None


def test_evaluate_returns_every_loss(run, scenes):
    result = run["model"].evaluate(scenes[:4].batches(3), verbose=0, return_dict=True)
    assert set(result) == {*LOSSES, "loss"}
    # Which anchors and RoIs are sampled is a function of the image, not of its batch.
    again = run["model"].evaluate(scenes[:4].batches(3), verbose=0, return_dict=True)
    assert result == again


def state_of(model):
    return [variable.numpy() for variable in model.variables]


@pytest.mark.parametrize(("key", "what"), [("image", "the images are"), ("boxes", "the boxes are")])
def test_bad_data_stops_the_run_before_anything_changes(run, scenes, key, what):
    model = run["model"]
    before = state_of(model)

    def poison(sample, seed):
        return sample | {key: sample[key] * np.nan}

    batches = scenes[3:4].batches(1, augment=poison)
    with pytest.raises(NonFiniteLossError, match="shapes_000003") as error:
        model.fit(batches, verbose=0)
    assert error.value.what == what
    assert error.value.image_ids == [scenes[3].image_id]
    assert error.value.step == int(model.optimizer.iterations)
    for old, new in zip(before, state_of(model), strict=True):
        np.testing.assert_array_equal(old, new)


def test_gradients_that_overflow_are_not_applied(run, scenes):
    """A kernel of 1e30: the losses are finite still, the gradients are not."""
    model = run["model"]
    # What enters fc7 came out of a ReLU, so every unit of it grows, whatever the weights are.
    kernel = model.box_head.trunk.get_layer("fc7").kernel
    kept = kernel.numpy()
    kernel.assign(np.full(kernel.shape, 1e30))
    before = [w.numpy() for w in model.trainable_weights]
    with pytest.raises(NonFiniteLossError, match=r"shapes_00000[01]") as error:
        model.fit(scenes[:2].batches(2), verbose=0)
    assert sorted(error.value.image_ids) == [scenes[0].image_id, scenes[1].image_id]
    for old, new in zip(before, model.trainable_weights, strict=True):
        np.testing.assert_array_equal(old, new.numpy())
    kernel.assign(kept)


def test_an_image_cut_off_in_the_middle_is_named(run, tmp_path):
    drawn = rk.data.draw_shapes(2, size=(96, 96), seed=9, out=tmp_path)
    path = tmp_path / "shapes_000001.png"
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 40] = bytes(40)  # the header and the end are as they were
    path.write_bytes(content)
    with pytest.raises(rk.data.ImageError, match=r"shapes_000001\.png"):
        run["model"].detect(drawn)
    with pytest.raises(rk.data.ImageError, match=r"shapes_000001\.png"):
        run["model"].fit(drawn.batches(2), verbose=0)


def test_a_damaged_record_file_is_named(run, tmp_path, in_process):
    drawn = rk.data.draw_shapes(2, size=(96, 96), seed=9)
    records = rk.data.save_tfrecord(drawn, tmp_path / "records", shard_size=1, engine=in_process())
    (path,) = tmp_path.rglob("00001-of-*.tfrecord")
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    for use in (run["model"].fit, run["model"].evaluate):
        with pytest.raises(rk.data.DatasetError, match=r"00001-of-00002\.tfrecord: sha256"):
            use(records.batches(2), verbose=0)
    with pytest.raises(
        rk.data.ImageError, match=r"00001-of-00002\.tfrecord/shapes_000001\.png: can"
    ):
        run["model"].detect(records)


@pytest.mark.slow
def test_the_same_seed_trains_the_same_weights_with_one_forward_pass_a_step(scenes, make_detector):
    runs = []

    def weights():
        model = make_detector(scenes.classes)
        passes = tf.Variable(0)
        backbone_call = model.backbone.call

        def counted(*arguments, **named):
            passes.assign_add(1)
            return backbone_call(*arguments, **named)

        model.backbone.call = counted
        model.compile(keras.optimizers.SGD(0.01))
        model.fit(scenes.batches(2, shuffle=True), steps_per_epoch=3, verbose=0)
        runs.append(int(passes))
        return model.rpn_head.convs[0].kernel.numpy()

    np.testing.assert_array_equal(weights(), weights())
    assert runs == [3, 3]


@pytest.mark.slow
def test_mixed_bfloat16_trains_with_boxes_and_losses_in_float32(scenes, make_detector):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = make_detector(scenes.classes)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile(keras.optimizers.SGD(0.01))
    history = model.fit(scenes.batches(2), epochs=2, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert model.get_layer("backbone").get_layer("conv1").compute_dtype == "bfloat16"
    batch, _ = next(iter(scenes.batches(2, min_size=96, max_size=96)))
    first = model.extract_features(dict(batch), training=False)
    assert first["features"][0].dtype == tf.bfloat16
    for name in ("rpn_logits", "rpn_deltas", "anchors"):
        assert first[name][0].dtype == tf.float32
    found = model.predict(scenes.batches(2), verbose=0)
    assert found["boxes"].dtype == found["scores"].dtype == np.float32


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("resnet18", "vgg16", "zf")],
)
def test_detectors_on_one_map_train(backbone, scenes, make_detector):
    units = {"box_units": None if backbone == "resnet18" else 32}
    keras.utils.set_random_seed(0)
    model = rk.models.FasterRCNN(
        backbone,
        scenes.classes,
        min_size=96,
        max_size=96,
        anchor_sizes=((16, 32, 64),),
        rpn_post_nms_top_n_train=64,
        rpn_post_nms_top_n_test=32,
        box_batch_size_per_image=16,
        norm="group",
        rpn_objectness="softmax" if backbone == "zf" else "sigmoid",
        **units,
    )
    assert model.rpn_head.anchors_per_position == 9
    assert model.anchor_sampler.ignore_border
    model.compile(keras.optimizers.Adam(1e-4))
    history = model.fit(scenes.batches(3), epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert len(model.detect(scenes[0].path)) == 1
