"""A second `fit`, or a second pass, goes on in the data instead of repeating the first."""

import keras
import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.data import RandomFlip


@pytest.fixture
def batches(scenes):
    return scenes.batches(2, shuffle=True, augment=RandomFlip(), seed=3)


def trained(make_detector, scenes, fits):
    """The weights of a detector after some calls of `fit`, each a function of the model."""
    keras.utils.set_random_seed(1)
    model = make_detector(scenes.classes)
    model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
    for fit in fits:
        fit(model)
    return model


def assert_same_weights(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_two_calls_of_one_epoch_are_one_call_of_two(make_detector, scenes, batches):
    once = trained(make_detector, scenes, [lambda m: m.fit(batches, epochs=2, verbose=0)])
    twice = trained(make_detector, scenes, [lambda m: m.fit(batches, verbose=0)] * 2)
    assert_same_weights(once, twice)
    assert twice.data_offset == len(batches)


SKIPPING = keras.optimizers.LossScaleOptimizer  # leaves out gradients that are not finite


@pytest.mark.parametrize(
    ("make_optimizer", "gradient"),
    [
        pytest.param(
            lambda: keras.optimizers.SGD(0.01, gradient_accumulation_steps=2),
            0.0,
            marks=pytest.mark.slow,
        ),
        (lambda: SKIPPING(keras.optimizers.SGD(0.01)), np.inf),
    ],
    ids=["accumulated", "skipped"],
)
def test_batches_count_that_do_not_change_the_weights(
    make_detector, scenes, batches, make_optimizer, gradient, monkeypatch
):
    def step(self, data):  # without what takes seconds to trace
        weights = self.trainable_weights
        self.optimizer.apply([keras.ops.full(w.shape, gradient) for w in weights], weights)
        return {"loss": keras.ops.zeros(())}

    model = make_detector(scenes.classes)
    monkeypatch.setattr(type(model), "train_step", step)
    model.compile(make_optimizer())
    for _ in range(2):
        model.fit(batches, verbose=0)
    assert model._samples_read == 2 * len(scenes)


@pytest.mark.slow  # several trainings; of one, see the first test
def test_initial_epoch_continues_as_keras_counts(make_detector, scenes, batches):
    def second(model):
        model.fit(batches, initial_epoch=1, epochs=2, verbose=0)

    once = trained(make_detector, scenes, [lambda m: m.fit(batches, epochs=2, verbose=0)])
    twice = trained(make_detector, scenes, [lambda m: m.fit(batches, verbose=0), second])
    assert_same_weights(once, twice)


@pytest.mark.slow  # several trainings; of one, see the first test
def test_a_new_compile_and_another_batch_size_go_on_in_the_data(make_detector, scenes, batches):
    def second(model):
        model.freeze_backbone(1)
        model.compile(keras.optimizers.SGD(0.001))
        model.fit(scenes.batches(1, shuffle=True, seed=3), steps_per_epoch=1, verbose=0)

    model = trained(make_detector, scenes, [lambda m: m.fit(batches, verbose=0), second])
    assert model.data_offset == 2 * len(batches)  # samples of batches of two


@pytest.mark.slow  # several trainings; of one, see the first test
def test_a_stopped_second_fit_resumes_exactly(make_detector, scenes, batches, tmp_path):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise KeyboardInterrupt

    def first(model):
        model.fit(batches, verbose=0)
        model.compile(keras.optimizers.SGD(0.001, momentum=0.9))

    def second(folder, *more):
        def fit(model):
            checkpoint = rk.callbacks.Checkpoint(tmp_path / folder, every_steps=1)
            model.fit(batches, epochs=2, callbacks=[checkpoint, *more], verbose=0)

        return fit

    uninterrupted = trained(make_detector, scenes, [first, second("whole")])
    with pytest.raises(KeyboardInterrupt):
        trained(make_detector, scenes, [first, second("stopped", Stop())])
    resumed = trained(make_detector, scenes, [first, second("stopped")])
    assert_same_weights(uninterrupted, resumed)
    assert resumed.data_offset == uninterrupted.data_offset == len(batches)
    assert resumed._samples_read == uninterrupted._samples_read


def test_each_pass_over_batches_has_its_own_order_and_flips(scenes):
    batches = scenes.batches(1, shuffle=True, augment=RandomFlip(), seed=3)
    passes = [
        [(int(x["image_ids"][0]), float(y["boxes"][0, 0, 0])) for x, y in batches] for _ in range(3)
    ]
    assert len({tuple(order) for order in passes}) == 3
    ids = sorted(record.image_id for record in scenes)
    assert all(sorted(i for i, _ in order) == ids for order in passes)
    again = scenes.batches(1, shuffle=True, augment=RandomFlip(), seed=3)
    first = [(int(x["image_ids"][0]), float(y["boxes"][0, 0, 0])) for x, y in again]
    assert first == passes[0]
