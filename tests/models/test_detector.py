"""The detector as a Keras model: inputs, saving, detecting, errors."""

import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.models.detector import scores_first
from rcnn_keras.models.errors import NON_FINITE, plain_errors
from rcnn_keras.ops import check_finite


@pytest.mark.slow
def test_a_plain_array_is_enough_for_predict(detector):
    images = np.random.default_rng(0).uniform(0, 255, (2, 70, 90, 3)).astype("float32")
    plain = detector.predict(images, verbose=0)
    sizes = np.array([[70, 90]] * 2, "int32")
    full = detector.predict({"images": images, "image_sizes": sizes}, verbose=0)
    assert plain["boxes"].shape == (2, 20, 4)
    for name, value in full.items():
        np.testing.assert_array_equal(plain[name], value)
    assert plain["num_detections"].min() > 0
    x2, y2 = plain["boxes"][..., 2], plain["boxes"][..., 3]
    assert x2.max() <= 90
    assert y2.max() <= 70


@pytest.mark.slow
def test_detections_do_not_depend_on_the_padding(detector):
    image = np.random.default_rng(1).uniform(0, 255, (1, 64, 64, 3)).astype("float32")
    sizes = np.array([[64, 64]], "int32")
    found = []
    for filling in (0, 200):
        padded = np.pad(image, ((0, 0), (0, 32), (0, 64), (0, 0)), constant_values=filling)
        found.append(detector.predict({"images": padded, "image_sizes": sizes}, verbose=0))
    for name, value in found[0].items():
        np.testing.assert_array_equal(value, found[1][name])


def test_saved_and_loaded_model_detects_the_same_to_the_last_bit(detector, scenes, tmp_path):
    path = tmp_path / "model.keras"
    detector.save(path)
    before = detector.detect(scenes)
    np.savez(tmp_path / "found.npz", **{str(i): d.boxes for i, d in enumerate(before)})
    loaded = keras.models.load_model(path)
    assert loaded.get_config() == detector.get_config()
    for a, b in zip(before, loaded.detect(scenes), strict=True):
        np.testing.assert_array_equal(a.boxes, b.boxes)
        np.testing.assert_array_equal(a.scores, b.scores)
        np.testing.assert_array_equal(a.labels, b.labels)
    code = (  # a new process
        "import keras, numpy, sys, rcnn_keras\n"
        "model = keras.models.load_model(sys.argv[1])\n"
        "found = numpy.load(sys.argv[2])\n"
        "for i, d in enumerate(model.detect(sys.argv[3:])):\n"
        "    assert (d.boxes == found[str(i)]).all()\n"
    )
    files = [str(record.path) for record in scenes]
    arguments = [sys.executable, "-c", code, str(path), str(tmp_path / "found.npz"), *files]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_get_config_holds_every_argument(detector):
    arguments = set(inspect.signature(rk.models.FasterRCNN.__init__).parameters) - {"self"}
    assert set(detector.get_config()) == arguments


def test_keras_tools_see_a_functional_model(detector, capsys):
    detector.summary()
    text = capsys.readouterr().out
    for name in ("backbone", "fpn", "rpn_head", "anchor_generator", "proposals", "box_head"):
        assert name in text
        assert detector.get_layer(name).name == name
    pytest.importorskip("pydot")
    dot = keras.utils.model_to_dot(detector, show_shapes=True)
    assert "rpn_head" in dot.to_string()


def test_detect_answers_in_the_pixels_that_were_given(detector, scenes):
    record = scenes[0]
    image = rk.data.read_image(record.path)
    doubled = np.repeat(np.repeat(image, 2, 0), 2, 1)  # resized back to 96 x 96 before the model
    from_file, from_array, from_double = detector.detect([record.path, image, doubled])
    np.testing.assert_array_equal(from_file.boxes, from_array.boxes)
    assert from_file.image_size == (96, 96)
    assert from_double.image_size == (192, 192)
    np.testing.assert_allclose(from_double.boxes, from_file.boxes * 2, atol=0.05)
    assert from_file.class_names == [scenes.classes[i] for i in from_file.labels]
    assert np.all(np.diff(from_file.scores) <= 0)


def test_detect_takes_one_image_many_or_none(detector, scenes):
    path = scenes[0].path
    assert len(detector.detect(path)) == 1
    assert len(detector.detect([path, path, path], batch_size=2)) == 3
    assert detector.detect([]) == []
    gray = np.full((50, 40), 128, "uint8")
    assert detector.detect(gray)[0].image_size == (50, 40)


def test_detect_names_the_image_that_cannot_be_read(detector, tmp_path):
    text = tmp_path / "notes.jpg"
    text.write_text("not an image")
    with pytest.raises(rk.data.ImageError, match=r"notes\.jpg"):
        detector.detect([text])
    with pytest.raises(rk.data.ImageError, match=r"absent\.png"):
        detector.detect([tmp_path / "absent.png"])


def test_classes_of_data_and_model_must_agree(detector, tmp_path):
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0)
    record = rk.data.Record(1, str(tmp_path / "a.png"), 40, 40, *empty)
    other = rk.data.DetectionDataset([record], ["circle", "kite"])
    with pytest.raises(ValueError, match=r"only in the data \['kite'\]"):
        detector.evaluate(other.batches(1), verbose=0)
    shuffled = rk.data.DetectionDataset([record], detector.classes[::-1])
    with pytest.raises(ValueError, match="the order differs"):
        detector.fit(shuffled.batches(1), verbose=0)
    callback = rk.callbacks.CocoEvaluation(other)
    callback.set_model(detector)
    with pytest.raises(ValueError, match="kite"):
        callback.on_train_begin()


def test_fit_of_a_model_that_is_not_compiled_is_refused(scenes, make_detector):
    with pytest.raises(ValueError, match=r"compile\(\)"):
        make_detector(scenes.classes).fit(scenes.batches(1), verbose=0)


def test_callbacks_that_write_scores_run_before_those_that_read_them(scenes):
    stop = keras.callbacks.EarlyStopping(monitor="val_AP", patience=1)
    keep = keras.callbacks.ModelCheckpoint("x.keras", monitor="val_loss")
    scores = rk.callbacks.CocoEvaluation(scenes)
    assert scores_first([stop, keep, scores]) == [scores, stop, keep]
    assert (stop.mode, keep.mode) == ("max", "auto")
    assert scores_first(None) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": []}, "classes"),
        ({"classes": ["a", "a"]}, "classes"),
        ({"classes": "cat"}, "classes"),
        ({"min_size": 100, "max_size": 90}, "min_size"),
        ({"rpn_nms_thresh": 1.5}, "rpn_nms_thresh"),
        ({"box_bg_iou_thresh": 0.7}, "box_bg_iou_thresh"),
        ({"box_detections_per_img": 0}, "box_detections_per_img"),
        ({"backbone": "resnet81_fpn"}, "did you mean 'resnet18_fpn'"),
        ({"norm": "layer"}, "norm"),
        ({"anchor_sizes": ((8,), (16,))}, "anchor_sizes"),
        ({"backbone_weights": "coco"}, "backbone_weights"),
        ({"backbone_weights": "imagenet"}, "keras.applications has no resnet18"),
        ({"backbone": "vgg16", "backbone_weights": "imagenet", "box_units": 64}, "box_units=64"),
        ({"backbone": "resnet50_fpn", "backbone_weights": "imagenet"}, "stride_in_1x1"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    arguments = {"backbone": "resnet18_fpn", "classes": ["a", "b"]} | arguments
    with pytest.raises(ValueError, match=message):
        rk.models.FasterRCNN(**arguments)


def test_losses_without_targets_are_refused(detector):
    images = np.zeros((1, 64, 64, 3), "float32")
    with pytest.raises(ValueError, match="targets"):
        detector.compute_loss({"images": images}, None, None)


@pytest.mark.parametrize("eager", [True, False])
def test_a_failed_check_becomes_an_error_that_names_the_images(eager, scenes):
    def step(loss):
        return check_finite(loss, f"{NON_FINITE}the loss is", [tf.constant(7), tf.constant([2, 9])])

    run = step if eager else tf.function(step)
    with plain_errors(scenes):
        assert run(tf.constant(1.5)) == 1.5
    with (
        pytest.raises(rk.models.NonFiniteLossError, match="the loss is not finite at step 7") as e,
        plain_errors(scenes),
    ):
        run(tf.constant(np.nan))
    assert (e.value.step, e.value.image_ids) == (7, [2, 9])
    assert e.value.paths == [scenes[1].path]
