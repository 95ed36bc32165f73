"""What lies between a request and a detector, without writing anything."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.data.images import resized_size as expected_size
from rcnn_keras.export.served_detector import ServedDetector, count_proposals, resized_size

pytestmark = pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning")


@pytest.fixture(autouse=True, scope="module")
def eager():
    """Tracing takes longer than the few images; what is exported runs as a graph elsewhere."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture(scope="module")
def served(model):
    return ServedDetector(model, pasted=True)


def assert_finds(outputs, place, expected):
    count = int(outputs["num_detections"][place])
    assert count == len(expected) > 2
    np.testing.assert_array_equal(outputs["labels"][place][:count], expected.labels)
    np.testing.assert_allclose(outputs["boxes"][place][:count], expected.boxes, atol=1e-3)
    np.testing.assert_allclose(outputs["scores"][place][:count], expected.scores, atol=1e-5)


def test_sizes_are_those_of_detect_to_the_pixel():
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (1, 5000), (333, 500), (800, 1333), *rng.integers(1, 3000, (300, 2)).tolist()]
    for size in sizes:
        for limits in ((800, 1333), (320, 320), (64, 96)):
            found = resized_size(tf.constant(size), *limits).numpy()
            assert tuple(found) == expected_size(*size, *limits), (size, limits)


def test_proposals_end_with_the_last_that_has_an_area():
    proposals = np.zeros((3, 4, 4), "f4")
    proposals[0, :2] = [1, 1, 5, 5]
    proposals[1, 2] = [0, 0, 3, 3]
    np.testing.assert_array_equal(count_proposals(tf.constant(proposals)), [2, 3, 0])
    np.testing.assert_array_equal(count_proposals(tf.zeros((2, 0, 4))), [0, 0])


def test_names_of_signatures_and_inputs(served):
    def names(detection_names):
        found = served.signatures(detection_names)
        return {name: sorted(inputs) for name, (_, inputs) in found.items()}

    own = {"serving_default": ["images"], "image_bytes": ["image_bytes"]}
    assert names(False) == own
    assert names(True) == {
        "serving_default": ["input_tensor"],
        "images": ["images"],
        "image_bytes": ["image_bytes"],
    }


def test_detection_api_has_the_same_detections(served, detected, images):
    image, expected = images["c"], detected["c"]
    found = served.with_detection_names({"input_tensor": tf.constant(image[None])})
    found = {key: value.numpy()[0] for key, value in found.items()}
    count = len(expected)
    assert {value.dtype.name for value in found.values()} == {"float32"}
    assert found["num_detections"] == count
    np.testing.assert_array_equal(found["detection_classes"][:count], expected.labels + 1)
    np.testing.assert_array_equal(found["detection_classes"][count:], 0)
    y1, x1, y2, x2 = found["detection_boxes"][:count].T
    boxes = np.stack([x1 * 75, y1 * 130, x2 * 75, y2 * 130], axis=1)
    np.testing.assert_allclose(boxes, expected.boxes, atol=1e-3)
    np.testing.assert_allclose(found["detection_scores"][:count], expected.scores, atol=1e-5)
    np.testing.assert_allclose(found["detection_masks"][:count], expected.masks, atol=1e-4)


def test_masks_of_whole_images(served, detected, images):
    expected = detected["c"].bool_masks()
    outputs = served.on_images({"images": tf.constant(images["c"][None])})
    masks = outputs["masks"].numpy()[0]
    assert masks.shape == (6, 130, 75)
    assert np.count_nonzero(masks[: len(expected)] != expected) <= 5
    assert expected.any()


def fast_rcnn():
    arguments = {"min_size": 64, "max_size": 96, "box_units": 8, "recompute_stages": 0}
    model = rk.models.FastRCNN("zf", ("cat", "dog"), box_score_thresh=0.0, **arguments)
    model.box_head.class_logits.bias.assign([0.0, 0.4, 0.2])
    return model


def rcnn():
    model = rk.models.RCNN(
        "alexnet",
        ("cat", "dog"),
        crop_size=67,
        context=8,
        channels=(8, 8, 8, 8, 8),
        units=16,
        box_score_thresh=0.0,
    )
    rng = np.random.default_rng(1)
    for part in (model.svm, model.box_regressor):
        part.set_weights([rng.normal(0, 0.3, w.shape) for w in part.weights])
    return model


@pytest.mark.parametrize("build", [fast_rcnn, rcnn])
def test_proposals_are_in_pixels_of_the_image_sent(build, images, encode_png):
    keras.utils.set_random_seed(0)
    model = build()
    corners = np.sort(np.random.default_rng(2).uniform(0, 60, (12, 2, 2)), axis=1)
    proposals = corners.reshape(12, 4).astype("f4")
    sent = [images["a"], images["c"]]
    expected = model.detect(sent, batch_size=2, proposals=[proposals, proposals[:5]])
    padded = np.stack([proposals, np.where(np.arange(12)[:, None] < 5, proposals, 0)])
    served = ServedDetector(model)
    files = tf.constant([encode_png(image) for image in sent])
    outputs = served.on_files({"image_bytes": files, "proposals": tf.constant(padded)})
    for place in range(2):
        assert_finds(outputs, place, expected[place])
    # one image alone, by its pixels
    alone = model.detect(sent[1], proposals=[proposals[:5]])[0]
    pixels = {"images": tf.constant(sent[1][None]), "proposals": tf.constant(padded[1:])}
    assert_finds(served.on_images(pixels), 0, alone)
    none = served.on_images(pixels | {"proposals": tf.zeros((1, 0, 4))})
    np.testing.assert_array_equal(none["num_detections"], [0])
