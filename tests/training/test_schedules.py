"""Learning rates, at every step, against closed forms in numpy."""

import keras
import numpy as np
import pytest

from rcnn_keras.training.schedules import LinearWarmup, StepDecay, build_schedule

STEPS_PER_EPOCH = 7
EPOCHS = 9
STEPS = np.arange(STEPS_PER_EPOCH * EPOCHS)


def rates(schedule):
    return np.array([float(schedule(step)) for step in STEPS])


def warmup(steps, factor):
    return np.where(steps > STEPS, factor + (1 - factor) * STEPS / steps, 1.0)


def test_step_decay_is_torchs_multi_step_lr_after_a_linear_warm_up():
    schedule = build_schedule(
        "step",
        0.02,
        epochs=EPOCHS,
        steps_per_epoch=STEPS_PER_EPOCH,
        warmup_steps=10,
        warmup_factor=0.25,
        milestones=[6, 8.2],
        gamma=0.1,
    )
    decay = np.where(STEPS < 42, 1.0, np.where(STEPS < 57, 0.1, 0.01))  # 8.2 * 7 = 57.4
    np.testing.assert_allclose(rates(schedule), 0.02 * decay * warmup(10, 0.25), rtol=1e-6)


def test_cosine_reaches_its_final_factor():
    schedule = build_schedule(
        "cosine",
        0.5,
        epochs=EPOCHS,
        steps_per_epoch=STEPS_PER_EPOCH,
        warmup_steps=5,
        warmup_factor=0.0,
        final_factor=0.1,
    )
    cosine = 0.1 + 0.9 * (1 + np.cos(np.pi * STEPS / 63)) / 2
    np.testing.assert_allclose(rates(schedule), 0.5 * cosine * warmup(5, 0.0), rtol=1e-5, atol=1e-8)
    assert float(schedule(63)) == pytest.approx(0.05)


def test_constant_keeps_the_rate_and_ignores_milestones():
    schedule = build_schedule("constant", 0.3, epochs=9, steps_per_epoch=7, milestones=[2])
    np.testing.assert_allclose(rates(schedule), 0.3, rtol=1e-6)


def test_a_warm_up_of_n_minus_1_steps_from_one_nth_rises_by_one_nth():
    schedule = LinearWarmup(StepDecay(1.0), steps=9, factor=0.1)
    np.testing.assert_allclose(rates(schedule), np.minimum((STEPS + 1) / 10, 1), rtol=1e-6)


@pytest.mark.parametrize("name", ["constant", "step", "cosine"])
def test_schedules_survive_keras_serialization_inside_an_optimizer(name):
    schedule = build_schedule(
        name, 0.1, epochs=9, steps_per_epoch=7, warmup_steps=4, milestones=[3, 5]
    )
    config = keras.optimizers.serialize(keras.optimizers.SGD(schedule))
    again = keras.optimizers.deserialize(config)._learning_rate
    assert type(again) is LinearWarmup
    np.testing.assert_array_equal(rates(again), rates(schedule))


@pytest.mark.parametrize(("steps", "factor"), [(0, 0.1), (5, -0.1), (5, 1.1)])
def test_warm_up_arguments_out_of_range_are_refused(steps, factor):
    with pytest.raises(ValueError, match=f"steps={steps}, factor={factor}"):
        LinearWarmup(StepDecay(1.0), steps, factor)
