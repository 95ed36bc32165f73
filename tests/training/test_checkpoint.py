"""A training that is interrupted and resumed ends as an uninterrupted one, to the last bit.

Most tests use a network of two layers, which starts quickly.
"""

import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import rcnn_keras as rk
from rcnn_keras.models import FasterRCNN, MaskRCNN
from rcnn_keras.training.checkpoint_state import (
    CheckpointError,
    checkpoints,
    description,
    latest,
    step_of,
    variables_of,
)

STEPS, EPOCHS = 4, 3


class Stopped(Exception):
    """The power failed."""


class Stop(keras.callbacks.Callback):
    """Raise after so many batches of this process, or in the middle of the end of an epoch."""

    def __init__(self, after=None, at_end_of=None, how=None):
        super().__init__()
        self.after, self.at_end_of = after, at_end_of
        self.how = how or self.fail

    @staticmethod
    def fail():
        raise Stopped

    def on_train_batch_end(self, batch, logs=None):
        if self.after is not None:
            self.after -= 1
            if self.after == 0:
                self.how()

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.at_end_of:
            self.how()


def rows(start):
    """Batches of a made-up function of the number of the step."""

    def row(number):
        x = tf.random.stateless_uniform((8, 3), [number, 7])
        return x, tf.reduce_sum(x, axis=1, keepdims=True)

    return tf.data.Dataset.counter(start).map(row)


def network(rate=0.1):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, "relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5, seed=1),  # its seed is a variable
            keras.layers.Dense(1),
        ]
    )
    optimizer = keras.optimizers.SGD(rate, momentum=0.9, use_ema=True, ema_momentum=0.5)
    model.compile(optimizer, "mse", run_eagerly=True)  # building a graph takes longer
    return model


def callbacks_of():
    """Callbacks that remember something, or do something at the beginning of an epoch."""
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    return [
        swap,
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.9 * rate),
        keras.callbacks.ReduceLROnPlateau("loss", min_delta=10.0, patience=1),
        keras.callbacks.EarlyStopping(
            "loss", min_delta=10.0, patience=2, restore_best_weights=True
        ),
    ]


def fit(folder, stop=None, *, epochs=EPOCHS, every_steps=3, model=None, callbacks=None):
    """Train, or go on; return the model and the history."""
    model = model or network()
    checkpoint = rk.callbacks.Checkpoint(folder, every_steps=every_steps)
    given = [checkpoint, *(callbacks_of() if callbacks is None else callbacks)]
    with checkpoint.resumed(
        model,
        {"rows": "made up"},
        given + ([stop] if stop else []),
        epochs=epochs,
        steps=STEPS,
        verbose=0,
    ) as (callbacks, epoch, behind):
        model.fit(
            rows(epoch * STEPS + behind),
            epochs=epochs,
            initial_epoch=epoch,
            steps_per_epoch=STEPS,
            callbacks=callbacks,
            verbose=0,
        )
    return model, model.history


def state(model):
    return [variable.numpy() for variable in variables_of(model)]


def assert_same(first, second):
    for a, b in zip(state(first[0]), state(second[0]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first[1].history == second[1].history
    assert first[1].epoch == second[1].epoch


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return *fit(folder), folder


def test_one_step_more_or_less_changes_the_result(undisturbed, tmp_path):
    """The comparison below can fail: the state moves with every step."""
    with pytest.raises(Stopped):
        fit(tmp_path, Stop(after=3))
    before = latest(tmp_path).arrays
    after = latest(undisturbed[2]).arrays
    moved = [name for name in before if not np.array_equal(before[name], after[name])]
    assert len(moved) > 15
    assert undisturbed[1].epoch == [0, 1, 2]
    assert len({*undisturbed[1].history["loss"]}) == 3
    rates = undisturbed[1].history["learning_rate"]
    assert rates[2] < 0.5 * rates[0]  # the plateau was seen


@pytest.mark.parametrize(
    "stops",
    [
        [Stop(after=1)],
        [Stop(after=4)],
        [Stop(at_end_of=0)],
        [Stop(at_end_of=2)],
        [Stop(after=2), Stop(after=3), Stop(after=1), Stop(after=5), Stop(at_end_of=1)],
    ],
    ids=["first step", "last of an epoch", "first end", "last end", "again and again"],
)
def test_a_training_stopped_anywhere_ends_as_an_uninterrupted_one(stops, undisturbed, tmp_path):
    for stop in stops:
        with pytest.raises(Stopped):
            fit(tmp_path, stop)
    assert_same(fit(tmp_path), undisturbed)


def test_a_finished_training_is_not_trained_again(undisturbed):
    again = fit(undisturbed[2], Stop(after=1))  # which nobody calls
    assert_same(again, undisturbed)


def test_a_training_that_stopped_early_is_not_continued(tmp_path):
    early = [keras.callbacks.EarlyStopping("loss", mode="max", min_delta=10.0, patience=1)]
    swap = [keras.callbacks.SwapEMAWeights(swap_on_epoch=True)]
    first = fit(tmp_path, callbacks=early + swap)
    assert first[1].epoch == [0, 1]
    assert_same(fit(tmp_path, Stop(after=1), callbacks=early + swap), first)


def test_checkpoints_are_saved_around_epoch_ends_and_every_few_steps(tmp_path, monkeypatch):
    steps = []
    save = rk.training.checkpoint.save

    def noted(directory, saved, keep):
        steps.append(saved.step)
        return save(directory, saved, keep)

    monkeypatch.setattr(rk.training.checkpoint, "save", noted)
    fit(tmp_path, every_steps=5, epochs=2)
    # the start; before the last step of an epoch; after its end; every five; at 8 once
    assert steps == [0, 3, 4, 5, 7, 8]
    assert [step_of(path) for path in checkpoints(tmp_path)] == [7, 8]


def test_batches_of_a_resumed_epoch_have_their_numbers(tmp_path):
    seen = []
    note = keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(batch),
        on_train_batch_end=lambda batch, logs: seen.append(batch),
    )
    with pytest.raises(Stopped):
        fit(tmp_path, Stop(after=3), every_steps=2, callbacks=[])
    fit(tmp_path, epochs=2, every_steps=2, callbacks=[note])
    assert seen == [2, 2, 3, 3, 0, 0, 1, 1, 2, 2, 3, 3]


@pytest.fixture
def listens():
    """A program started in the background of a shell ignores Ctrl-C; this one does not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)]
)
def test_a_signal_saves_after_the_step(number, error, undisturbed, listens, tmp_path, capsys):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(error) as caught:
        fit(tmp_path, Stop(after=6, how=lambda: os.kill(os.getpid(), number)), every_steps=100)
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    if error is SystemExit:
        assert caught.value.code == 143
    assert latest(tmp_path).step == 6
    assert "saved; started again, the training goes on here" in capsys.readouterr().out
    assert_same(fit(tmp_path, every_steps=100), undisturbed)


def test_a_signal_while_scoring_ends_the_training_at_once(undisturbed, listens, tmp_path):
    after = []
    stop = Stop(at_end_of=1, how=lambda: (os.kill(os.getpid(), signal.SIGINT), after.append(1)))
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path, stop)
    assert after == []
    assert latest(tmp_path).step == 2 * STEPS - 1
    assert_same(fit(tmp_path), undisturbed)


def test_a_second_signal_ends_the_process_at_once():
    program = (
        "import os, signal\n"
        "from rcnn_keras.training.checkpoint import StopRequest, stop_requests\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "with stop_requests(StopRequest()):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('goes on', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    print('never said', flush=True)\n"
    )
    environment = os.environ | {"RCNN_KERAS_LEAN": "1"}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True)
    assert ended.returncode == -signal.SIGINT
    assert ended.stdout == b"goes on\n"
    assert b"Once more ends it at once" in ended.stderr


def test_training_on_unknown_data_is_saved_after_each_epoch(tmp_path):
    model = network()
    checkpoint = rk.callbacks.Checkpoint(tmp_path, every_steps=1, keep=9)
    with checkpoint.resumed(model, rows(0), [checkpoint], epochs=2, verbose=0) as (given, *begin):
        model.fit(rows(0).take(3), epochs=2, callbacks=given, verbose=0)
    assert begin == [0, 0]
    assert [latest(tmp_path).state[name] for name in ("epoch", "batch")] == [2, 0]
    assert len(checkpoints(tmp_path)) == 3
    again = network()
    with checkpoint.resumed(again, rows(0), [checkpoint], epochs=3, verbose=0) as (_, *begin):
        assert begin == [2, 0]


def test_the_state_of_the_users_callbacks_is_saved(tmp_path):
    class Mine(keras.callbacks.Callback):
        seen = ()

        def on_train_begin(self, logs=None):
            self.seen = []

        def on_train_batch_end(self, batch, logs=None):
            self.seen.append(np.float32(batch))

        def get_state(self):
            return {"seen": self.seen, "array": np.arange(3)}

        def set_state(self, state):
            self.seen = state["seen"]
            np.testing.assert_array_equal(state["array"], [0, 1, 2])

    with pytest.raises(Stopped):
        fit(tmp_path, Stop(after=6), callbacks=[Mine()], every_steps=1)
    mine = Mine()
    fit(tmp_path, callbacks=[mine], epochs=2)
    assert mine.seen == [0, 1, 2, 3, 0, 1, 2, 3]


def test_another_optimizer_or_other_data_is_refused(undisturbed, tmp_path):
    folder = undisturbed[2]
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    with pytest.raises(CheckpointError, match=r"another run: optimizer\.learning_rate was 0\.1.*"):
        fit(folder, model=network(rate=0.2))
    checkpoint = rk.callbacks.Checkpoint(folder)
    how = {"epochs": EPOCHS, "steps": STEPS}
    with (
        pytest.raises(CheckpointError, match=r"data\.rows was 'made up', is 'others'"),
        checkpoint.resumed(network(), {"rows": "others"}, [checkpoint], **how),
    ):
        pass
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_numbers_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="every_steps must be at least 1, not 0"):
        rk.callbacks.Checkpoint(tmp_path, every_steps=0)
    with pytest.raises(ValueError, match="keep must be at least 1, not 0"):
        rk.callbacks.Checkpoint(tmp_path, keep=0)


@pytest.fixture(scope="module")
def scenes():
    return rk.data.draw_shapes(4, size=(64, 64), seed=5)


@pytest.fixture
def make(small_arguments):
    def build(classes, kind=FasterRCNN, **arguments):
        small = small_arguments | {"anchor_sizes": ((8,), (16,), (32,), (64,), (128,))}
        model = kind(classes=classes, **(small | arguments))
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9))
        return model

    return build


def test_another_architecture_other_classes_or_data_are_refused_before_training(
    scenes, make, tmp_path
):
    checkpoint = rk.callbacks.Checkpoint(tmp_path)
    model = make(scenes.classes)
    batches = scenes.batches(2, shuffle=True)
    seen = model._with_truth(batches.sized(model.min_sizes, None))
    how = {"epochs": 1, "steps": 2, "verbose": 0}
    given = [rk.callbacks.CocoEvaluation(scenes), checkpoint]
    with checkpoint.resumed(model, seen, given, **how) as (callbacks, *_):
        callbacks.on_train_begin()
    kept = checkpoints(tmp_path)
    assert [step_of(path) for path in kept] == [0]
    renamed = rk.data.DetectionDataset(list(scenes), ("disc", *scenes.classes[1:]))
    cases = [
        (make(renamed.classes), renamed, r"classes was .*'circle'.*is .*'disc'"),
        (make(scenes.classes, box_units=9), scenes, r"model\.box_units was 8, is 9"),
        (make(scenes.classes, MaskRCNN), scenes, "architecture was 'FasterRCNN', is 'MaskRCNN'"),
        (model, scenes[:3], r"data\.images changed"),
    ]
    for other, data, message in cases:
        with pytest.raises(CheckpointError, match=message):
            other.fit(
                data.batches(2, shuffle=True),
                steps_per_epoch=2,
                callbacks=[rk.callbacks.Checkpoint(tmp_path)],
                verbose=0,
            )
    with pytest.raises(CheckpointError, match=r"data\.seed was 0, is 1"):
        model.fit(scenes.batches(2, shuffle=True, seed=1), callbacks=[checkpoint], verbose=0)
    scoring = rk.callbacks.CocoEvaluation(scenes[:3])
    with pytest.raises(CheckpointError, match=r"validation data\.1\.number of images was 4, is 3"):
        model.fit(batches, callbacks=[scoring, checkpoint], verbose=0)
    assert checkpoints(tmp_path) == kept
    with pytest.raises(ValueError, match="fit takes one Checkpoint, not 2"):
        model.fit(batches, callbacks=[checkpoint, rk.callbacks.Checkpoint(tmp_path)])


def test_a_detector_is_described_the_same_in_every_process(scenes, make):
    batches = scenes.batches(2)
    first, second = (description(make(scenes.classes), batches, 2) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)


def test_the_last_scores_are_logged_between_two_evaluations(scenes):
    scoring = rk.callbacks.CocoEvaluation(scenes, every=2)
    scoring.set_state({"val_AP": 0.25})
    logs = {}
    scoring.on_epoch_end(2, logs)  # no model is asked
    assert logs == {"val_AP": 0.25}
    assert scoring.get_state() == {"val_AP": 0.25}
