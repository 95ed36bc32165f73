import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.backbones.crop_networks import CROP_SIZES
from rcnn_keras.models import RCNN
from rcnn_keras.ops import decode_boxes, warp_regions

CLASSES = ("cat", "dog", "owl")
SMALL = {"crop_size": 67, "context": 8, "channels": (8, 8, 8, 8, 8), "units": 16}
RNG = np.random.default_rng(0)
IMAGES = [RNG.integers(0, 256, (60, 80, 3), np.uint8), RNG.integers(0, 256, (50, 40, 3), np.uint8)]
PROPOSALS = [
    np.sort(RNG.uniform(0, 40, (count, 2, 2)), axis=1).reshape(count, 4).astype("f4")
    for count in (30, 11)
]


def rcnn(**arguments):
    """A detector with drawn weights in every part."""
    keras.utils.set_random_seed(0)
    model = RCNN("alexnet", CLASSES, **(SMALL | {"box_score_thresh": 0.0} | arguments))
    rng = np.random.default_rng(1)
    for part in (model.class_logits, model.svm, model.box_regressor):
        part.set_weights([rng.normal(0, 0.3, w.shape) for w in part.weights])
    return model


@pytest.fixture(scope="module")
def model():
    return rcnn()


def slowly(model, image, proposals, classifier="svm", box_regression=True):
    """Scores `(R, K)` and boxes `(R, K, 4)`, proposal by proposal."""
    scores, boxes = [], []
    mean, std = model.get_config()["image_mean"], model.get_config()["image_std"]
    pixels = ((image - np.array(mean)) / np.array(std)).astype("f4")[None]
    for box in proposals:
        crop = warp_regions(pixels, [image.shape[:2]], box[None], [0], 67, 8)
        features = model.network(crop)
        pool5, fc7 = np.reshape(features["pool5"], -1), np.reshape(features["fc7"], -1)
        if classifier == "svm":
            kernel, bias = model.svm.get_weights()
            scores.append(1 / (1 + np.exp(-(fc7 @ kernel + bias))))
        else:
            kernel, bias = model.class_logits.get_weights()
            powers = np.exp(fc7 @ kernel + bias)
            scores.append(powers[1:] / powers.sum())
        kernel, bias = model.box_regressor.get_weights()
        deltas = (pool5 @ kernel + bias).reshape(3, 4) * box_regression
        moved = np.asarray(decode_boxes(deltas, box[None]))
        height, width = image.shape[:2]
        boxes.append(np.clip(moved, 0, [width, height, width, height]))
    return np.array(scores), np.array(boxes)


def paper_s_detections(model, image, proposals, **how):
    """Rows `(score, class, box)`, best first, of a greedy NMS class by class."""
    scores, boxes = slowly(model, image, proposals, **how)
    kept = []
    for k in range(3):
        sides = boxes[:, k, 2:] - boxes[:, k, :2]
        chosen = []
        for r in np.argsort(-scores[:, k], kind="stable"):
            overlaps = _ious(boxes[r, k], boxes[chosen, k])
            if sides[r].min() >= 0.01 and np.all(overlaps <= 0.3):
                chosen.append(r)
        kept += [(scores[r, k], k, *boxes[r, k]) for r in chosen]
    return np.array(sorted(kept, reverse=True))


def assert_detections(scores, labels, boxes, expected):
    assert 3 < len(scores) == len(expected)
    np.testing.assert_allclose(scores, expected[:, 0], atol=1e-4)
    np.testing.assert_array_equal(labels, expected[:, 1])
    np.testing.assert_allclose(boxes, expected[:, 2:], atol=0.02)


def test_detections_follow_the_paper(model):
    found = model.detect(IMAGES, batch_size=2, proposals=PROPOSALS)
    for image, proposals, detections in zip(IMAGES, PROPOSALS, found, strict=True):
        expected = paper_s_detections(model, image, proposals)
        assert_detections(detections.scores, detections.labels, detections.boxes, expected)


@pytest.mark.parametrize(
    "how",
    [
        {"classifier": "softmax", "box_regression": True},
        {"classifier": "softmax", "box_regression": False},
        {"classifier": "svm", "box_regression": False},
    ],
)
def test_variants_are_made_of_the_same_parts(how, model):
    variant = model.variant(**how)
    assert variant.get_config() == model.get_config() | how
    for ours, theirs in zip(model.weights, variant.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    inputs = {
        "images": IMAGES[0][None],
        "image_sizes": np.array([[60, 80]], "i4"),
        "proposals": PROPOSALS[0][None],
        "num_proposals": np.array([len(PROPOSALS[0])], "i4"),
    }
    found = variant.detections_of(model.extract_features(inputs, training=False))
    count = int(found["num_detections"][0])
    rows = (np.asarray(found[name])[0, :count] for name in ("scores", "labels", "boxes"))
    assert_detections(*rows, paper_s_detections(model, IMAGES[0], PROPOSALS[0], **how))


def _ious(box, others):
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(box[2:] - box[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1)
    return both / (areas - both)


def test_a_loaded_model_has_the_same_weights_and_detections(model, tmp_path):
    model.save(tmp_path / "rcnn.keras")
    loaded = keras.models.load_model(tmp_path / "rcnn.keras")
    assert type(loaded) is RCNN
    assert loaded.get_config() == model.get_config()
    for part in ("network", "class_logits", "svm", "box_regressor"):
        pairs = zip(getattr(model, part).weights, getattr(loaded, part).weights, strict=True)
        for ours, theirs in pairs:
            np.testing.assert_array_equal(ours, theirs)
    (a,), (b,) = (m.detect(IMAGES[0], proposals=PROPOSALS[:1]) for m in (model, loaded))
    np.testing.assert_allclose(a.boxes, b.boxes, atol=1e-3)  # convolutions' sums vary in order
    np.testing.assert_allclose(a.scores, b.scores, atol=1e-5)


def test_exported_it_detects_without_keras(model, tmp_path):
    model.export(tmp_path / "served")
    loaded = tf.saved_model.load(str(tmp_path / "served"))
    served = loaded.signatures["serving_default"](
        images=tf.constant(IMAGES[0][None]), proposals=tf.constant(PROPOSALS[0][None], tf.float32)
    )
    (found,) = model.detect(IMAGES[0], proposals=[PROPOSALS[0]])
    assert served["num_detections"] == [len(found)]
    for name in ("boxes", "scores", "labels"):
        values = served[name][0, : len(found)]
        np.testing.assert_allclose(values, getattr(found, name), atol=2e-3)


def test_sizes_and_counts_of_inputs_are_optional(model):
    image, proposals = IMAGES[0][None].astype("f4"), PROPOSALS[0][None]
    found = model.predict({"images": image, "proposals": proposals}, verbose=0)
    (expected,) = model.detect(IMAGES[0], proposals=[PROPOSALS[0]])
    np.testing.assert_allclose(found["scores"][0, : len(expected)], expected.scores, atol=1e-5)


def test_an_image_without_proposals_has_no_detections(model):
    (found,) = model.detect(IMAGES[0], proposals=[[]])
    assert len(found) == 0


@pytest.mark.parametrize(
    ("act", "error", "message"),
    [
        (lambda m: m.detect(IMAGES[0]), ValueError, "image 0 has no proposals"),
        (lambda m: m.predict(IMAGES[0][None], verbose=0), ValueError, "have no 'proposals'"),
        (lambda m: m.fit([]), NotImplementedError, "train_rcnn"),
    ],
)
def test_missing_proposals_and_fit_are_refused(model, act, error, message):
    with pytest.raises(error, match=message):
        act(model)


def test_other_detectors_refuse_proposals(make_detector):
    with pytest.raises(ValueError, match="FasterRCNN finds its own proposals"):
        make_detector(CLASSES).detect(IMAGES[0], proposals=PROPOSALS[:1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "resnet50"}, "backbone must be one of alexnet, vgg16; received 'resnet50'"),
        ({"crop_size": 60}, "crop_size must be a whole number of at least 67 for alexnet; rec"),
        ({"crop_size": 100, "context": 50}, "context must be a whole number from 0 to less than"),
        ({"channels": (4, 4, 4, 4)}, "channels must be 5 even whole numbers above 0; received"),
        ({"channels": (4, 4, 4, 3, 4)}, "channels must be 5 even"),
        ({"channels": 8}, "channels must be 5 even whole numbers above 0; received 8"),
        ({"units": 0}, "units must be a whole number of at least 1; received 0"),
        ({"classifier": "tree"}, "classifier must be 'svm' or 'softmax'; received 'tree'"),
        ({"box_nms_thresh": 1.5}, "box_nms_thresh must be in 0..1; received 1.5"),
        ({"backbone_weights": "imagenet"}, "backbone_weights must be None for alexnet"),
        ({"backbone": "vgg16", "crop_size": 227}, "crop_size must be 224 for vgg16; received 227"),
        ({"backbone": "vgg16", "channels": (2,) * 5}, "channels must be None for vgg16"),
        (
            {"backbone": "vgg16", "units": 8, "backbone_weights": "imagenet"},
            "units must be 4096 for weights of ImageNet; received 8",
        ),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        RCNN(**({"classes": CLASSES} | arguments))


def test_defaults_are_those_of_the_paper():
    defaults = {n: p.default for n, p in inspect.signature(RCNN).parameters.items()}
    assert defaults["context"] == 16
    assert defaults["box_nms_thresh"] == 0.3
    assert defaults["units"] == 4096
    assert CROP_SIZES == {"alexnet": 227, "vgg16": 224}
