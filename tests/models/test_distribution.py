"""Several devices and several workers give what one device gives with the same global batch."""

import json
import os
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.keras_internals import apply_summed_gradients
from rcnn_keras.models.batch import ensure_nonempty, pad_to_common_shape
from rcnn_keras.ops import batch_norm, gather_replicas, pack_bits
from rcnn_keras.runs.launch import launch

HERE = Path(__file__).parent
SAME = 1e-6


def on_both(strategy, function, parts):
    """Run a function on a part each, and return the results of both."""
    shared = strategy.experimental_distribute_values_from_function(
        lambda context: parts[context.replica_id_in_sync_group]
    )
    results = tf.function(lambda: strategy.run(function, args=(shared,)))()
    first, second = (
        tf.nest.map_structure(lambda v, i=i: strategy.experimental_local_results(v)[i], results)
        for i in (0, 1)
    )
    return first, second


def part_of(images, targets=3):
    """A replica's part of a batch: images of ones, all of whose masks' pixels are set."""
    count, height, width = images
    inputs = {
        "images": tf.ones((count, height, width, 3)),
        "image_sizes": tf.fill((count, 2), 7),
        "image_ids": tf.range(count, dtype=tf.int64),
    }
    return inputs, {
        "boxes": tf.ones((count, targets, 4)),
        "labels": tf.ones((count, targets), tf.int32),
        "masks": pack_bits(tf.ones((count, targets, height, width))),
    }


def test_parts_are_filled_up_to_one_size(two_replicas):
    parts = [part_of((2, 64, 32)), part_of((1, 32, 96))]
    both = on_both(two_replicas, lambda part: pad_to_common_shape(*part), parts)
    for (inputs, targets), (given, _) in zip(both, parts, strict=True):
        count, height, width = given["images"].shape[:3]
        assert inputs["images"].shape == (count, 64, 96, 3)
        np.testing.assert_array_equal(inputs["images"][:, :height, :width], 1)
        assert tf.reduce_sum(inputs["images"]) == count * height * width * 3
        assert targets["masks"].shape == (count, 3, 64, 12)
        np.testing.assert_array_equal(targets["masks"][:, :, :height, : width // 8], 255)
        assert np.count_nonzero(targets["masks"]) == count * 3 * height * width // 8
        assert int(inputs["num_images"]) == count
        assert float(inputs["mean_images"]) == 1.5


def test_a_replica_without_an_image_gets_a_blank_one(two_replicas):
    """As tf.distribute gives it: of no height and no width either."""
    parts = [part_of((1, 64, 32)), part_of((0, 0, 0))]
    _, (inputs, targets) = on_both(two_replicas, lambda part: pad_to_common_shape(*part), parts)
    assert inputs["images"].shape == (1, 64, 32, 3)
    assert not inputs["images"].numpy().any()
    assert int(inputs["num_images"]) == 0
    assert float(inputs["mean_images"]) == 0.5
    assert targets["labels"].numpy().tolist() == [[-1] * 3]
    assert {len(value) for value in (*targets.values(), inputs["image_ids"])} == {1}


def test_one_device_has_its_batch_as_it_is():
    part = part_of((0, 32, 32))
    assert pad_to_common_shape(*part) == part
    filled = ensure_nonempty(part[0])
    assert filled["images"].shape == (1, 64, 64, 3)
    assert int(filled["num_images"]) == 0
    assert gather_replicas(tf.constant([1, 2])).numpy().tolist() == [[1, 2]]


def test_batch_norm_is_that_of_the_whole_batch(two_replicas):
    """Values and gradients, against TensorFlow's kernel on the whole; the parts are unequal."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(3, 2, (3, 4, 5, 6)), tf.float32)
    gamma, beta, weights = (tf.constant(rng.normal(size=6), tf.float32) for _ in range(3))

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch([x, gamma])
            y, mean, variance = batch_norm(x, gamma, beta, 1e-3)
            loss = tf.reduce_sum(y**2 * weights * tf.range(5.0)[:, None])
        return y, mean, variance, *tape.gradient(loss, [x, gamma])

    y, mean, variance, dx, dgamma = run(x)
    first, second = on_both(two_replicas, run, [x[:2], x[2:]])
    for found, expected in ((0, y), (3, dx)):
        joined = tf.concat([first[found], second[found]], axis=0)
        np.testing.assert_allclose(joined, expected, rtol=1e-4, atol=1e-4)
    for part in (first, second):
        np.testing.assert_allclose(part[1], mean, rtol=1e-6)
        np.testing.assert_allclose(part[2], variance, rtol=1e-5)
    np.testing.assert_allclose(first[4] + second[4], dgamma, rtol=1e-4)


@pytest.mark.parametrize("scaled", [False, True])
def test_summed_gradients_are_clipped_and_applied_once(two_replicas, scaled):
    """The sum [30, 40] of norm 50 becomes [3, 4]; the parts, clipped alone, [5, 0] and [0, 5]."""
    with two_replicas.scope():
        weight = keras.Variable([1.0, 1.0])
        optimizer = keras.optimizers.SGD(1.0, global_clipnorm=5.0)
        if scaled:
            optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=8.0)
        optimizer.build([weight])

    def step(gradient):
        context = tf.distribute.get_replica_context()
        scaled_sum = context.all_reduce("SUM", optimizer.scale_loss(gradient))
        apply_summed_gradients(optimizer, [scaled_sum], [weight])
        return tf.identity(weight.value)

    parts = [tf.constant([30.0, 0.0]), tf.constant([0.0, 40.0])]
    for after in on_both(two_replicas, step, parts):
        np.testing.assert_allclose(after, [-2, -3], rtol=1e-6)


# What follows trains detectors.


@pytest.fixture(scope="module")
def worker():
    sys.path.insert(0, str(HERE))
    try:
        yield __import__("distributed_worker")
    finally:
        sys.path.remove(str(HERE))


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five scenes and their file."""
    folder = tmp_path_factory.mktemp("five")
    rk.data.draw_shapes(5, size=(64, 64), seed=5, out=folder)
    return folder / "annotations.json"


@pytest.fixture(scope="module")
def alone(worker, five):
    """The results of one device."""
    scenes = rk.data.load_coco(five)
    return worker.results_of(worker.build(scenes), scenes)


def assert_same(results, expected):
    (weights, numbers, found), (weights_1, numbers_1, found_1) = results, expected
    for one, other in zip(weights, weights_1, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=SAME)
    assert set(numbers) == set(numbers_1)
    for name, values in numbers_1.items():
        np.testing.assert_allclose(numbers[name], values, rtol=SAME, atol=SAME, err_msg=name)
    for name, values in found_1.items():
        assert found[name].shape == values.shape
        np.testing.assert_allclose(found[name], values, atol=1e-4, err_msg=name)  # pixels


@pytest.mark.slow
def test_two_devices_give_what_one_gives(worker, five, alone, two_replicas):
    scenes = rk.data.load_coco(five)
    with two_replicas.scope():
        model = worker.build(scenes)
    assert_same(worker.results_of(model, scenes), alone)


@pytest.mark.slow
@pytest.mark.parametrize("recompute_stages", [0, 2])
def test_two_devices_train_batch_norm_as_one_does(
    recompute_stages, scenes, make_detector, two_replicas
):
    """One step: where statistics are of a few pixels, later ones multiply rounding errors."""

    def trained():
        model = make_detector(scenes.classes, norm="batch", recompute_stages=recompute_stages)
        model.compile(keras.optimizers.SGD(0.02))
        before = model.get_weights()
        model.fit(scenes.batches(4), steps_per_epoch=1, verbose=0)
        return before, model.get_weights()

    before, alone = trained()
    with two_replicas.scope():
        _, shared = trained()
    for one, other in zip(shared, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=SAME, atol=SAME)
    moved = [np.abs(a - b).max() for a, b in zip(before, alone, strict=True)]
    assert max(moved) > 0.1
    assert np.median(moved) > 10 * SAME


@pytest.mark.slow  # two processes; of their parts, see the first tests
def test_two_workers_give_what_one_process_gives(five, alone, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    command = [sys.executable, str(HERE / "distributed_worker.py"), str(five), str(tmp_path)]
    assert launch(command, workers=2, retries=0) == 0
    first, second = (np.load(tmp_path / f"{index}.npz") for index in (0, 1))
    assert set(first) == set(second)
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    numbers, theirs = (json.loads((tmp_path / f"{i}.json").read_text()) for i in (0, 1))
    assert numbers == theirs
    weights = [first[name] for name in first if name.startswith("arr_")]
    found = {name: first[name] for name in alone[2]}
    assert_same((weights, numbers, found), alone)
