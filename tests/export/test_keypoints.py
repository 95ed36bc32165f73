"""Keypoints in exported detectors are those of `detect`."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.export.served_detector import ServedDetector

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model(small_arguments):
    keras.utils.set_random_seed(0)
    changes = {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0}
    arguments = small_arguments | changes | {"num_keypoints": 3, "keypoint_layers": (8,)}
    model = rk.models.KeypointRCNN(classes=["a", "b"], **arguments)
    model.box_head.class_logits.bias.assign([0.0, 0.3, 0.1])
    model.run_eagerly = True
    return model


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(1)
    drawn = rng.integers(0, 60, (130, 90, 3), np.uint8)
    drawn[30:80, 40:] += 150
    return drawn


def png(image):
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


def test_keypoints_are_put_back_by_a_rule_of_resizing_too(small_arguments, image):
    keras.utils.set_random_seed(0)
    changes = {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0, "resizing": "detectron2"}
    arguments = small_arguments | changes | {"num_keypoints": 3, "keypoint_layers": (8,)}
    model = rk.models.KeypointRCNN(classes=["a", "b"], **arguments)
    model.run_eagerly = True
    (expected,) = model.detect(image)
    assert len(expected) > 0
    found = ServedDetector(model).on_images({"images": tf.constant(image[None])})
    boxes = found["boxes"].numpy()[0]
    has_area = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)  # `detect` leaves out the others
    keypoints = found["keypoints"].numpy()[0, has_area]
    np.testing.assert_allclose(boxes[has_area], expected.boxes, atol=1e-2)
    np.testing.assert_allclose(keypoints, expected.keypoints, atol=1e-2)


def test_keypoints_are_put_back_into_the_image_that_was_sent(model, image):
    (expected,) = model.detect(image)
    served = ServedDetector(model)
    for found in (
        served.on_images({"images": tf.constant(image[None])}),
        served.on_files({"image_bytes": tf.constant([png(image)])}),
    ):
        keypoints = found["keypoints"].numpy()[0, : len(expected)]
        np.testing.assert_allclose(keypoints, expected.keypoints, atol=1e-2)
    named = served.with_detection_names({"input_tensor": tf.constant(image[None])})
    places = named["detection_keypoints"].numpy()[0, : len(expected)]
    in_pixels = places[..., ::-1] * [90, 130]
    np.testing.assert_allclose(in_pixels, expected.keypoints[..., :2], atol=1e-2)
    scores = named["detection_keypoint_scores"].numpy()[0, : len(expected)]
    np.testing.assert_allclose(scores, expected.keypoints[..., 2], atol=1e-4)


@pytest.mark.slow
def test_a_saved_model_gives_keypoints(model, image, tmp_path):
    folder = model.export(tmp_path / "served")
    names = (folder / "assets.extra" / "keypoints.txt").read_text().splitlines()
    assert names == ["keypoint_0", "keypoint_1", "keypoint_2"]
    found = tf.saved_model.load(folder).signatures["serving_default"](tf.constant(image[None]))
    (expected,) = model.detect(image)
    keypoints = found["keypoints"].numpy()[0, : len(expected)]
    np.testing.assert_allclose(keypoints, expected.keypoints, atol=1e-2)


@pytest.mark.slow
def test_a_litert_file_gives_keypoints(model, tmp_path):
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    file = model.export(tmp_path / "model.tflite")
    images = np.random.default_rng(2).integers(0, 255, (1, *SIZE, 3), np.uint8)
    runner = interpreter.Interpreter(str(file))
    runner.allocate_tensors()
    found = runner.get_signature_runner()(images=images)
    expected = model.predict(images, verbose=0)
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=1e-2)
    np.testing.assert_allclose(found["keypoints"], expected["keypoints"], atol=0.05)
