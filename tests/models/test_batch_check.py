"""Own pipelines: what they may not give is refused by name, whatever form they have."""

import dataclasses
import pickle
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.models.batch import complete_inputs, complete_targets
from rcnn_keras.models.batch_check import checked
from rcnn_keras.models.errors import BatchError, plain_errors

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


def test_a_forked_child_is_refused_at_once(detector, monkeypatch, tmp_path):
    monkeypatch.setattr(detector, "_process", 1)
    names = ["fit", "evaluate", "predict", "detect", "detect_each", "__call__"]
    for name in [*names, "train_on_batch", "test_on_batch", "predict_on_batch"]:
        with pytest.raises(RuntimeError, match="load the model in each process"):
            getattr(detector, name)(IMAGES)
    for path in ("folder", "x.tflite"):
        with pytest.raises(RuntimeError, match="load the model in each process"):
            detector.export(tmp_path / path)


def test_no_model_is_built_loaded_or_received_in_a_fork(detector, monkeypatch, tmp_path):
    detector.save(tmp_path / "model.keras")
    pickled = pickle.dumps(detector)
    monkeypatch.setattr("rcnn_keras.models.errors._builder", 1)
    for build in (
        lambda: type(detector).from_config(detector.get_config()),
        lambda: rk.models.load_detector(tmp_path / "model.keras"),
        lambda: keras.models.load_model(tmp_path / "model.keras"),
        lambda: pickle.loads(pickled),
    ):
        with pytest.raises(RuntimeError, match="a model was built in another process"):
            build()


@pytest.mark.parametrize("method", ["train_on_batch", "test_on_batch"])
def test_single_batches_are_checked(detector, method):
    images = np.full((1, 96, 96, 3), 9, "uint8")
    targets = {"boxes": np.array([[[30.0, 5.0, 5.0, 30.0]]]), "labels": np.zeros((1, 1), "int32")}
    with pytest.raises(BatchError, match=r"image 0: box 0 .* has no area"):
        getattr(detector, method)(images, targets)
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        getattr(detector, method)(images, targets, sample_weight=np.ones(1))


def read(model, data):
    """Read data as `evaluate` does, without the time that it takes to trace a graph."""
    with plain_errors():
        for _ in checked(model, data, source="data"):
            pass


@pytest.fixture
def only_read(monkeypatch):
    """`fit` reads a batch and does not train."""
    monkeypatch.setattr(keras.Model, "fit", lambda model, x, *_, **__: next(iter(x)) and None)


def many(count=20):
    """Twenty images in ten batches."""
    parts = [
        {k: np.concatenate([v] * (count // 4)) for k, v in p.items()} for p in (INPUTS, TARGETS)
    ]
    parts[0]["image_ids"] = np.arange(100, 100 + count)
    return tuple(parts)


def pairs(x, y):
    for i in range(0, len(x["images"]), 2):
        yield tuple({k: v[i : i + 2] for k, v in p.items()} for p in (x, y))


class Tens(Sequence):
    def __len__(self):
        return len(self.parts[0]["images"]) // 2


@pytest.mark.parametrize("form", [dataset, pairs, Tens])
def test_the_tenth_batch_is_named(form, detector):
    x, y = many()
    y["labels"][19, 0] = 7
    with pytest.raises(BatchError, match=r"batch 9 \(from 0\), image id 119: label 7 of object 0"):
        read(detector, form(x, y))


def test_pixels_of_a_later_batch_are_looked_at(detector):
    x, y = many()
    x["images"][18] *= 257
    with pytest.raises(BatchError, match=r"batch 9 .* image id 118: .* are not 0\.\.255"):
        read(detector, dataset(x, y))


def test_images_of_arrays_are_named_by_their_place(detector):
    images = np.concatenate([IMAGES] * 10)
    boxes, labels = (np.concatenate([TARGETS[k]] * 10) for k in ("boxes", "labels"))
    boxes[37, 0, 2] = 500
    with pytest.raises(BatchError, match=r"training data: image 37: box 0 .* outside the image"):
        detector.fit(images, {"boxes": boxes, "labels": labels}, verbose=0)


def unknown_ranks(x, y):
    """A pipeline whose shapes are lost in Python code, as many are."""
    data = dataset(x, y)
    kinds = tf.nest.map_structure(lambda spec: spec.dtype, data.element_spec)

    def through_python(*batch):
        flat = tf.nest.flatten(batch)
        flat = tf.py_function(lambda *a: [tf.identity(v) for v in a], flat, tf.nest.flatten(kinds))
        return tf.nest.pack_sequence_as(batch, flat)

    return data.map(through_python)


def test_data_of_unknown_ranks_get_theirs_and_are_checked(detector):
    x, y = checked(detector, unknown_ranks(INPUTS, TARGETS), source="data").element_spec
    assert {k: v.shape.rank for k, v in (x | y).items()} == {
        "images": 4,
        "image_ids": 1,
        "boxes": 3,
        "labels": 2,
    }
    read(detector, unknown_ranks(INPUTS, TARGETS))
    gray = INPUTS | {"images": IMAGES[..., :1]}
    with pytest.raises(BatchError, match=r"'images' has shape .* 1\), not \(B, H, W, 3\)"):
        read(detector, unknown_ranks(gray, TARGETS))
    flat = TARGETS | {"labels": TARGETS["labels"][:, 0]}
    with pytest.raises(BatchError, match=r"'labels' has shape \(2,\), not \(B, N\)"):
        read(detector, unknown_ranks(INPUTS, flat))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"gt_boxes": TARGETS["boxes"], "labels": TARGETS["labels"]}, "'gt_boxes', which must be"),
        ({"bounding_boxes": TARGETS}, r"a dict 'bounding_boxes' of \['boxes', 'labels'\]"),
        ((TARGETS["boxes"], TARGETS["labels"]), "the targets are a tuple"),
        (TARGETS | {"labels": np.eye(3, dtype=int)[TARGETS["labels"]]}, "not one-hot"),
        (TARGETS | {"boxes": np.array([[[1]], [[2, 3]]] * 2, object)}, "pad all to one length"),
        (TARGETS | {"crowd": np.full((4, 2), 7)}, "image id 11: crowd 7 of object 0 is neither"),
        (TARGETS | {"crowd": np.zeros((4, 3), bool)}, "do not fit 'crowd'"),
        (TARGETS | {"labels": np.array([["cat", ""]] * 4)}, "is string; numbers are needed"),
    ],
)
def test_targets_of_another_form_are_named(targets, message, detector):
    with pytest.raises(BatchError, match=message):
        detector.fit(INPUTS, targets, verbose=0)


def test_targets_among_the_inputs_are_named(detector):
    with pytest.raises(BatchError, match=r"\['boxes', 'labels'\] are among the inputs"):
        detector.fit(tf.data.Dataset.from_tensor_slices(INPUTS | TARGETS).batch(2), verbose=0)


@pytest.mark.parametrize(("boxes", "labels"), [("int32", "int64"), ("float64", "uint8")])
def test_boxes_and_labels_may_be_of_any_type_of_numbers(boxes, labels, detector):
    regions = tf.constant(TARGETS["boxes"].astype(boxes))
    x = {"images": tf.constant(IMAGES), "proposals": regions}
    assert complete_inputs(x)["proposals"].dtype == "float32"
    y = {
        "boxes": TARGETS["boxes"].astype(boxes),
        "labels": TARGETS["labels"].clip(0).astype(labels),
    }
    complete = complete_targets(y, 96, 96)
    assert {name: value.dtype for name, value in complete.items()} == {
        "boxes": "float32",
        "labels": "int32",
        "crowd": "bool",
    }
    np.testing.assert_array_equal(complete["boxes"][:, :-1], TARGETS["boxes"])


def test_predict_on_batch_and_a_direct_call_are_checked(detector):
    for use in (detector.predict_on_batch, detector):
        with pytest.raises(BatchError, match=r"look like 0\.\.1"):
            use(IMAGES / 255)
        with pytest.raises(BatchError, match="not batched"):
            use(IMAGES[0])
        with pytest.raises(BatchError, match="have 'image', which must be called 'images'"):
            use({"image": IMAGES})


def test_what_is_suspicious_in_the_first_batch_is_warned_of(detector):
    crowd = TARGETS | {"crowd": TARGETS["labels"] >= 0}
    with pytest.warns(UserWarning, match="first batch: crowd is 1 for all 2 objects"):
        read(detector, dataset(INPUTS, crowd))
    shifted = TARGETS | {"labels": TARGETS["labels"] * 0 - 1}
    with pytest.warns(UserWarning, match="have an area and the label -1"):
        read(detector, dataset(INPUTS, shifted))


def test_weights_of_validation_data_are_refused_before_training(detector):
    with pytest.raises(ValueError, match="sample_weight is not supported"):
        detector.fit(INPUTS, TARGETS, validation_data=(INPUTS, TARGETS, np.ones(4)), verbose=0)


class TestBatches:
    """Records and augmentations that a user makes are an own pipeline too."""

    def records(self, scenes, change):
        record = scenes[1]
        bad = dataclasses.replace(record, boxes=change(record.boxes.copy(), record))
        return rk.data.DetectionDataset([scenes[0], bad], scenes.classes)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda b, r: b[:, [2, 1, 0, 3]], "object 0 .* has no area"),
            (lambda b, r: b + 90, "object 0 .* is outside the image, which is 96 x 96"),
            (lambda b, r: b * np.nan, "object 0 .* is not finite"),
        ],
    )
    @pytest.mark.parametrize("verb", ["fit", "evaluate"])
    def test_boxes_of_records(self, verb, change, message, detector, scenes):
        data = self.records(scenes, change)
        with pytest.raises(BatchError, match=rf"{re.escape(scenes[1].path)}: {message}"):
            getattr(detector, verb)(data.batches(1), verbose=0)

    @pytest.mark.parametrize(
        ("key", "factor", "message"),
        [("image", 1 / 255, r"look like 0\.\.1"), ("boxes", 1 / 96, r"within 0\.\.1")],
    )
    def test_an_augmentation(self, key, factor, message, detector, scenes, only_read):
        def augment(sample, seed):
            return sample | {key: sample[key] * factor}

        with pytest.raises(BatchError, match=f"augmented data: batch 0 .*{message}"):
            detector.fit(scenes.batches(2, augment=augment), verbose=0)

    def test_data_of_crowd_regions_alone_are_warned_of(self, detector, scenes, only_read):
        only = [dataclasses.replace(r, crowd=np.ones(len(r), bool)) for r in scenes[:2]]
        data = rk.data.DetectionDataset(only, scenes.classes)
        with pytest.warns(UserWarning, match="nothing but background is learned"):
            detector.fit(data.batches(1), steps_per_epoch=1, verbose=0)


def test_two_replicas_are_checked(detector, two_replicas):
    x, y = many()
    y["boxes"][18, 0] = [40, 5, 5, 50]
    data = checked(detector, dataset(x, y), source="data")
    with (
        pytest.raises(BatchError, match=r"batch 9 \(from 0\), image id 118: box 0 .* no area"),
        plain_errors(),
    ):
        for _ in two_replicas.experimental_distribute_dataset(data):
            pass


def test_masks_and_proposals_are_checked(scenes, make_detector):
    masks = np.zeros((4, 2, 96, 96), "uint8")
    masks[:, 0, 5:50, 5:40] = 1
    model = make_detector(scenes.classes, rk.models.MaskRCNN)
    for bad, message in (
        (None, "the targets have no 'masks'"),
        (masks * 255, "image id 11: the mask of object 0 has the value 255"),
        (masks[:, :, ::2, ::2], r"'masks' .* must be \(2, 2, 96, 96\)"),
        (masks * 0, "are empty"),
        (masks[:, :, ::-1, ::-1], "none of the batch fits its box"),
    ):
        targets = TARGETS if bad is None else TARGETS | {"masks": bad}
        with pytest.raises(BatchError, match=message):
            read(model, dataset(INPUTS, targets))
    fast = rk.models.FastRCNN("resnet18", scenes.classes, backbone_width=0.25, box_units=8)
    regions = np.tile(np.array([[[5, 5, 40, 50], [50, 20, 90, 90]]], "float32"), (4, 1, 1))
    with pytest.raises(BatchError, match="the inputs have no 'proposals'"):
        fast.predict(dataset(INPUTS, TARGETS), verbose=0)
    for bad, message in (
        (regions / 96, r"proposal 0 .* within 0\.\.1"),
        (regions + 80, "proposal 0 .* outside the image"),
        (regions[..., [2, 1, 0, 3]], "proposal 0 .* has no area"),
    ):
        with pytest.raises(BatchError, match=message):
            fast.predict(INPUTS | {"proposals": bad}, verbose=0)
