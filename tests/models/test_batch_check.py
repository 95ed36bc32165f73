"""Own pipelines: what they may not give is refused by name, whatever form they have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.models.errors import BatchError

IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 96, 96, 3)).astype("float32")
INPUTS = {"images": IMAGES, "image_ids": np.array([11, 12, 13, 14])}
TARGETS = {
    "boxes": np.tile(np.array([[[5, 5, 40, 50], [0, 0, 0, 0]]], "float32"), (4, 1, 1)),
    "labels": np.tile(np.array([[0, -1]], "int32"), (4, 1)),
}


def changed(name, place, value):
    array = TARGETS[name].copy()
    array[place] = value
    return INPUTS, TARGETS | {name: array}


def dataset(x, y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(2)


def generator(x, y):
    for i in (0, 2):
        yield tuple({k: v[i : i + 2] for k, v in part.items()} for part in (x, y))


class Sequence(keras.utils.PyDataset):
    def __init__(self, x, y):
        super().__init__()
        self.parts = x, y

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return tuple({k: v[2 * i : 2 * i + 2] for k, v in p.items()} for p in self.parts)


BAD = [
    (changed("boxes", (3, 0), [40, 5, 5, 50]), r"image id 14: box 0 .* has no area"),
    (changed("boxes", (3, 0), [40, 5, 150, 50]), r"image id 14: box 0 .* outside the image"),
    (changed("boxes", (3, 0, 1), np.nan), r"image id 14: box 0 .* is not finite"),
    (changed("labels", (2, 0), 9), r"image id 13: label 9 of object 0 is not in 0\.\."),
    ((INPUTS, TARGETS | {"boxes": TARGETS["boxes"] / 96}), r"within 0\.\.1"),
    ((INPUTS | {"images": IMAGES / 255}, TARGETS), r"look like 0\.\.1"),
    ((INPUTS | {"images": IMAGES / 127.5 - 1}, TARGETS), r"are not 0\.\.255"),
    ((INPUTS, {"boxes": TARGETS["boxes"], "classes": TARGETS["labels"]}), "called 'labels'"),
    ((INPUTS, TARGETS | {"labels": TARGETS["labels"].astype("float32")}), "cast it to int32"),
]


@pytest.mark.parametrize("form", [dataset, generator, Sequence])
@pytest.mark.parametrize(("data", "message"), BAD)
def test_bad_batches_are_named(form, data, message, detector):
    with pytest.raises(BatchError, match=message) as error:
        detector.evaluate(form(*data), verbose=0)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(("data", "message"), BAD)
def test_bad_arrays_are_named_before_training(data, message, detector):
    with pytest.raises(BatchError, match=message):
        detector.fit(*data, batch_size=2, verbose=0)


def test_unbatched_and_ragged_data_are_named(detector):
    one = tf.data.Dataset.from_tensor_slices((INPUTS, TARGETS))
    with pytest.raises(BatchError, match="not batched"):
        detector.fit(one, verbose=0)
    ragged = one.map(lambda x, y: (x, y | {"labels": y["labels"]})).ragged_batch(2)
    ragged = ragged.map(lambda x, y: (x, y | {"labels": tf.RaggedTensor.from_tensor(y["labels"])}))
    with pytest.raises(BatchError, match="is ragged"):
        detector.fit(ragged, verbose=0)


def test_predict_refuses_images_of_another_range(detector):
    with pytest.raises(BatchError, match=r"look like 0\.\.1"):
        detector.predict(IMAGES / 255, verbose=0)


@pytest.mark.parametrize("name", ["loss", "metrics", "weighted_metrics", "loss_weights"])
def test_compile_names_what_it_does_not_take(name, detector):
    with pytest.raises(ValueError, match=f"^{name} is not supported"):
        detector.compile("sgd", **{name: ["mse"]})


@pytest.mark.parametrize("name", ["sample_weight", "class_weight"])
def test_fit_names_the_weights_that_it_does_not_take(name, detector):
    with pytest.raises(ValueError, match=f"^{name} is not supported"):
        detector.fit(INPUTS, TARGETS, **{name: {0: 1.0}})


def test_a_forked_child_is_refused_at_once(detector, monkeypatch):
    monkeypatch.setattr(detector, "_process", 1)
    for use in (detector.fit, detector.evaluate, detector.predict, detector.detect, detector):
        with pytest.raises(RuntimeError, match="load the model in each process"):
            use(IMAGES)


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_single_batches_are_checked(detector, method):
    images = np.full((1, 96, 96, 3), 9, "uint8")
    targets = {"boxes": np.array([[[30.0, 5.0, 5.0, 30.0]]]), "labels": np.zeros((1, 1), "int32")}
    with pytest.raises(BatchError, match=r"image 0: box 0 .* has no area"):
        getattr(detector, method)(images, targets)
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        getattr(detector, method)(images, targets, sample_weight=np.ones(1))
