"""A cascade as a SavedModel and as a LiteRT file: the detections are those of Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.export.fixed_size import letterboxed

litert_interpreter = pytest.importorskip("ai_edge_litert.interpreter")

SIZE = (64, 96)


@pytest.fixture(scope="module")
def model(small_arguments):
    """An untrained detector whose scores are far apart, and whose stages move the boxes."""
    keras.utils.set_random_seed(0)
    changes = {"min_size": 64, "max_size": 96, "box_score_thresh": 0.0, "box_nms_thresh": 0.3}
    detector = rk.models.CascadeRCNN(
        classes=["circle", "square"], masks=True, **small_arguments | changes
    )
    for head in detector.box_heads:
        for layer in (head.class_logits, head.box_deltas):
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * 300, bias + 0.01])
    return detector


@pytest.mark.slow
def test_exports_find_what_keras_finds(model, tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 90, 3)).astype("uint8")
    (expected,) = model.detect(image)
    assert len(expected) > 1
    saved = tf.saved_model.load(model.export(tmp_path / "saved"))
    found = saved.signatures["serving_default"](images=tf.constant(image[None]))
    n = int(found["num_detections"][0])
    np.testing.assert_array_equal(found["labels"][0, :n], expected.labels)
    np.testing.assert_allclose(found["boxes"][0, :n], expected.boxes, atol=1e-2)
    np.testing.assert_allclose(found["scores"][0, :n], expected.scores, atol=1e-4)

    path = model.export(tmp_path / "model.tflite", size=SIZE)
    interpreter = litert_interpreter.Interpreter(str(path))
    interpreter.allocate_tensors()
    boxed, _ = letterboxed(image, model, SIZE)
    expected = model.predict(boxed, verbose=0)
    found = interpreter.get_signature_runner()(images=boxed)
    assert expected["num_detections"][0] > 1
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    for name, atol in (("boxes", 1e-2), ("scores", 1e-4), ("masks", 1e-3)):
        np.testing.assert_allclose(found[name], expected[name], atol=atol, err_msg=name)
