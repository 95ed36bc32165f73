"""Keypoint R-CNN: its keypoints, what they are trained on, and what is refused."""

from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.data.keypoints import COCO_PERSON
from rcnn_keras.models.arguments import KEYPOINT_RCNN, argument_errors
from rcnn_keras.models.errors import BatchError
from rcnn_keras.training.callbacks import coco_scores, summary_of

ARCHITECTURE = {
    "architecture": rk.models.KeypointRCNN,
    "keypoint_names": rk.data.synthetic.CORNERS.names,
    "keypoint_layers": (16, 16),
}


@pytest.fixture(scope="module")
def corners(tmp_path_factory):
    """Twelve drawn scenes of 96 x 96 pixels with the corners of their shapes."""
    folder = tmp_path_factory.mktemp("corners")
    return rk.data.draw_shapes(12, size=(96, 96), seed=5, out=folder, keypoints=True)


@pytest.fixture(scope="module")
def model(corners, make_detector):
    """A detector that was not trained; tests must leave its weights alone."""
    model = make_detector(corners.classes, box_score_thresh=0.0, **ARCHITECTURE)
    model.compile(keras.optimizers.SGD(0.001), run_eagerly=True)  # tracing takes longer
    return model


def test_the_defaults_are_those_of_persons(make_detector):
    signature = {"num_keypoints": None, "keypoint_names": None}
    signature |= {"keypoint_flip_pairs": None, "keypoint_edges": None}
    assert argument_errors(signature, KEYPOINT_RCNN) == {}
    made = make_detector(["person"], rk.models.KeypointRCNN, keypoint_layers=(8,))
    assert made.skeleton == COCO_PERSON
    config = made.get_config()
    assert config["num_keypoints"] == 17
    assert config["keypoint_names"] == COCO_PERSON.names
    assert config["keypoint_flip_pairs"] == COCO_PERSON.flip_pairs
    again = rk.models.KeypointRCNN.from_config(config)
    assert again.skeleton == COCO_PERSON
    assert [w.shape for w in again.weights] == [w.shape for w in made.weights]


@pytest.mark.parametrize(
    ("arguments", "name", "rule"),
    [
        ({"num_keypoints": 0}, "num_keypoints", "at least 1"),
        ({"num_keypoints": 3, "keypoint_names": ["a", "b"]}, "num_keypoints", "keypoint_names, 2"),
        ({"keypoint_names": ["a", "a"]}, "keypoint_names", "different names"),
        ({"num_keypoints": 4, "keypoint_flip_pairs": [(0, 4)]}, "keypoint_flip_pairs", "0..3"),
        ({"keypoint_flip_pairs": [1, 2]}, "keypoint_flip_pairs", "pairs of numbers"),
        ({"keypoint_edges": [(3, 3)]}, "keypoint_edges", "two different keypoints"),
        ({"keypoint_layers": ()}, "keypoint_layers", "one or more whole numbers"),
        ({"keypoint_scores": "softmax"}, "keypoint_scores", "one of probability, logit"),
        ({"keypoint_head": 3}, "keypoint_head", "a Keras layer"),
    ],
)
def test_wrong_arguments_are_named(arguments, name, rule):
    with pytest.raises(ValueError, match=f"{name} must be .*{rule}"):
        rk.models.KeypointRCNN("resnet18_fpn", ["a"], **arguments)


def test_keypoints_are_in_the_pixels_of_the_image(model):
    """In or on the box, whatever size the image has."""
    image = np.random.default_rng(0).integers(0, 255, (150, 260, 3), np.uint8)
    (found,) = model.detect(image)
    assert found.keypoints.shape == (len(found), 4, 3)
    assert found.skeleton == model.skeleton
    points = found.keypoints[..., :2]
    low, high = found.boxes[:, None, :2], found.boxes[:, None, 2:]
    assert ((points >= low - 0.01) & (points <= np.maximum(high, low + 3) + 0.01)).all()
    assert (found.keypoints[..., 2] > 0).all()
    assert found.take(np.array([2, 0])).keypoints[1, 0, 0] == found.keypoints[0, 0, 0]
    row = found.coco_rows(3, "a.png")[0]
    np.testing.assert_allclose(np.reshape(row["keypoints"], (4, 3)), found.keypoints[0])


def test_a_saved_model_gives_the_same_keypoints(model, corners, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    loaded.run_eagerly = True
    assert loaded.skeleton == model.skeleton
    for ours, theirs in zip(model.detect(corners[:2]), loaded.detect(corners[:2]), strict=True):
        np.testing.assert_array_equal(ours.keypoints, theirs.keypoints)


@pytest.mark.slow
def test_portable_kernels_give_the_same_keypoints(model, corners):
    portable = rk.models.with_kernels(model, "portable")
    inputs = np.stack([rk.data.read_image(record.image) for record in corners[:2]])
    ours, theirs = model.predict(inputs, verbose=0), portable.predict(inputs, verbose=0)
    np.testing.assert_allclose(ours["keypoints"], theirs["keypoints"], atol=1e-3)


def test_targets_without_keypoints_are_refused(model, corners):
    data = corners.batches(2, min_size=96, max_size=96).tf_dataset()
    with pytest.raises(ValueError, match="no 'keypoints'"):
        model.fit(data, verbose=0)
    batch = next(iter(corners.batches(2, min_size=96, max_size=96, keypoints=True)))
    renamed = {"kps" if k == "keypoints" else k: v for k, v in batch[1].items()}
    with pytest.raises(BatchError, match="'kps', which must be called 'keypoints'"):
        model.train_on_batch(batch[0], renamed)
    wrong = batch[1] | {"keypoints": batch[1]["keypoints"] + [0.0, 0.0, 0.5]}
    with pytest.raises(BatchError, match=r"image id \d+: keypoint 0 \(top\) of object"):
        model.train_on_batch(batch[0], wrong)


def test_data_of_other_keypoints_is_refused(model, corners, scenes):
    with pytest.raises(ValueError, match="shapes has no keypoints"):
        model.fit(scenes.batches(2), verbose=0)
    five = replace(corners[1], keypoints=np.zeros((len(corners[1]), 5, 3)))
    other = rk.data.DetectionDataset([five], corners.classes)
    with pytest.raises(ValueError, match="different keypoints"):
        model.evaluate(other.batches(1), verbose=0)
    circles = corners.with_classes(["circle"])
    bare = rk.data.DetectionDataset(circles, corners.classes, skeleton=corners.skeleton)
    with pytest.raises(ValueError, match="no object has a labelled keypoint"):
        coco_scores(model, bare)


def test_a_batch_without_any_object(model):
    inputs = rk.models.batch.complete_inputs(np.zeros((2, 96, 96, 3), "float32"))
    targets = {
        "boxes": np.zeros((2, 0, 4), "float32"),
        "labels": np.zeros((2, 0), "int32"),
        "keypoints": np.zeros((2, 0, 4, 3), "float32"),
    }
    first = model.extract_features(inputs, training=False)
    losses = model.losses_of(first, rk.models.batch.complete_targets(targets, 96, 96), False)
    assert losses["keypoint_loss"][0] == losses["keypoint_loss"][1] == 0


def test_the_total_is_the_sum_of_five_losses(model, corners):
    losses = model.evaluate(corners[:2].batches(2), verbose=0, return_dict=True)
    assert set(losses) == {*rk.models.KeypointRCNN.loss_names, "loss"}
    total = sum(losses[name] for name in rk.models.KeypointRCNN.loss_names)
    assert total == pytest.approx(losses["loss"], rel=1e-5)
    assert losses["keypoint_loss"] > np.log(56 * 56) / 2  # of a guess among all cells


class OneConvolution(keras.layers.Layer):
    """A head of the user's own."""

    def __init__(self, keypoints=4, **kwargs):
        super().__init__(**kwargs)
        self.conv = keras.layers.Conv2D(keypoints, 1, dtype="float32")

    def build(self, shape):
        self.conv.build(shape)

    def call(self, pooled):
        return self.conv(pooled)


def test_a_head_of_ones_own(corners, make_detector):
    own = {key: value for key, value in ARCHITECTURE.items() if key != "keypoint_layers"}
    model = make_detector(corners.classes, keypoint_head=OneConvolution(), **own)
    model.run_eagerly = True
    images = np.zeros((1, 64, 96, 3), np.uint8)
    assert model.predict(images, verbose=0)["keypoints"].shape == (1, 20, 4, 3)
    with pytest.raises(ValueError, match=r"keypoint_head must return logits \(n, M, M, P\)"):
        make_detector(corners.classes, keypoint_head=OneConvolution(5), **own)


@pytest.fixture(scope="module")
def trained(corners, make_detector):
    """A detector that was overfitted to four of the scenes."""
    model = make_detector(corners.classes, **ARCHITECTURE | {"keypoint_layers": (64, 64)})
    rate = keras.optimizers.schedules.CosineDecay(
        1e-4, 350, 0.1, warmup_target=3e-3, warmup_steps=50
    )
    model.compile(keras.optimizers.AdamW(rate, global_clipnorm=10.0))
    batches = corners[:4].batches(4, shuffle=True)
    history = model.fit(batches, steps_per_epoch=100, epochs=4, verbose=0)
    return model, history.history


def guessed(found, rng):
    """Detections whose keypoints are anywhere in their boxes."""
    low, high = found.boxes[:, None, :2], found.boxes[:, None, 2:]
    points = rng.uniform(low, high, (len(found), 4, 2))
    points = np.concatenate([points, np.ones((*points.shape[:2], 1))], axis=2)
    return replace(found, keypoints=points.astype("float32"))


@pytest.mark.slow
def test_the_corners_of_drawn_shapes_are_learned(trained, corners):
    model, history = trained
    seen, rng = corners[:4], np.random.default_rng(0)
    assert history["keypoint_loss"][-1] < 0.5 * history["keypoint_loss"][0]
    scores = summary_of(coco_scores(model, seen))
    chance = {r.image_id: guessed(d, rng) for r, d in zip(seen, model.detect(seen), strict=True)}
    by_chance = rk.evaluation.CocoScores(seen, chance, kind="keypoints").summary()
    assert scores["keypoint_AP50"] > 0.6
    assert by_chance["AP50"] < 0.2


@pytest.mark.slow
def test_scores_of_keypoints_are_logged(trained, corners):
    model, _ = trained
    callback = rk.callbacks.CocoEvaluation(corners[:4], keypoint_sigmas=[0.1] * 4)
    history = model.fit(corners[:4].batches(4), callbacks=[callback], verbose=0).history
    assert 0 <= history["val_keypoint_AP"][0] <= 1
    assert callback.keypoint_scores.summary()["AP"] == history["val_keypoint_AP"][0]
    assert "val_keypoint_AP/star" in history


@pytest.mark.slow
def test_weights_start_models_of_other_keypoints(trained, corners, tmp_path, caplog):
    model, _ = trained
    model.save(tmp_path / "corners.keras")
    same = rk.models.from_preset(tmp_path / "corners.keras")
    assert same.skeleton == model.skeleton
    with caplog.at_level("INFO", "rcnn_keras.presets"):
        other = rk.models.from_preset(tmp_path / "corners.keras", keypoint_names=["a", "b"])
    assert other.skeleton.names == ("a", "b")
    kept, new = caplog.messages[-1].split("; new: ")
    assert "keypoint_head.convs" in kept
    assert new == "keypoint_head.keypoint_logits"
    boxes = rk.models.FasterRCNN.from_preset(tmp_path / "corners.keras")
    assert boxes.skeleton is None
    tf.debugging.assert_equal(boxes.box_head.trunk.weights[0], model.box_head.trunk.weights[0])
