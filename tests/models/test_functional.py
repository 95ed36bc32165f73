"""A detector inside other functional models, and copies of it."""

import copy

import keras
import numpy as np
import pytest

from rcnn_keras.models import FasterRCNN
from rcnn_keras.models.errors import BatchError


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 96, 96, 3)).astype("float32")


@pytest.mark.slow  # saves and loads a graph around a graph
def test_a_functional_model_around_a_detector_takes_images_alone(detector, images, tmp_path):
    pixels = keras.Input((None, None, 3))
    model = keras.Model(pixels, detector(pixels))
    expected = detector.predict(images, verbose=0)
    found = model.predict(images, verbose=0)
    model.save(tmp_path / "around.keras")
    loaded = keras.models.load_model(tmp_path / "around.keras").predict(images, verbose=0)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
        np.testing.assert_array_equal(loaded[name], values)


def test_a_symbolic_call_has_the_shapes_of_the_detections(detector):
    found = detector({"images": keras.Input((96, 96, 3), batch_size=3)})
    assert found["boxes"].shape == (3, 20, 4)
    assert found["num_detections"].dtype == "int32"


def test_a_symbolic_call_says_what_is_missing(detector, monkeypatch):
    with pytest.raises(BatchError, match=r"'images' has shape \(None, 96, 96, 4\)"):
        detector(keras.Input((96, 96, 4)))
    monkeypatch.setattr(FasterRCNN, "takes_proposals", True)
    with pytest.raises(BatchError, match="the inputs have no 'proposals'"):
        detector(keras.Input((96, 96, 3)))


def test_a_deep_copy_is_a_detector_of_its_own(detector, images):
    other = copy.deepcopy(detector)
    assert type(other) is FasterRCNN
    expected = detector.predict(images, verbose=0)
    np.testing.assert_array_equal(other.predict(images, verbose=0)["boxes"], expected["boxes"])
    other.set_weights([0 * w for w in other.get_weights()])
    np.testing.assert_array_equal(detector.predict(images, verbose=0)["boxes"], expected["boxes"])


def test_a_clone_is_the_graph_alone(detector, images):
    clone = keras.models.clone_model(detector)
    assert not isinstance(clone, FasterRCNN)
    for layer in clone.layers:
        layer.set_weights(detector.get_layer(layer.name).get_weights())
    sizes = np.full((2, 2), 96, "int32")
    found = clone({"images": images, "image_sizes": sizes}, training=False)
    expected = detector.predict(images, verbose=0)
    np.testing.assert_array_equal(found["labels"], expected["labels"])
    np.testing.assert_allclose(found["boxes"], expected["boxes"], atol=0.01)
