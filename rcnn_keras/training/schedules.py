"""Learning rates as pure functions of the step, so that a run resumes by its step number alone."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
from keras import ops
from keras.optimizers.schedules import CosineDecay, LearningRateSchedule

__all__ = ["LinearWarmup", "StepDecay", "build_schedule"]


@keras.saving.register_keras_serializable("rcnn_keras")
class StepDecay(LearningRateSchedule):
    """`learning_rate * gamma ** (number of boundaries passed)`, torch's MultiStepLR.

    Keras' PiecewiseConstantDecay still has the old rate at the boundary, one step longer.

    Args:
        learning_rate: rate before the first boundary.
        boundaries: steps from which the rate is multiplied by `gamma` again; may be empty.
        gamma: the factor.
    """

    def __init__(self, learning_rate: float, boundaries: Sequence[int] = (), gamma: float = 0.1):
        self.learning_rate = learning_rate
        self.boundaries = tuple(boundaries)
        self.gamma = gamma

    def __call__(self, step: Any) -> Any:
        """Return the rate of `step` (from 0), a float32 scalar."""
        passed = ops.cast(step, "float32") >= ops.array(self.boundaries, "float32")
        return self.learning_rate * self.gamma ** ops.sum(ops.cast(passed, "float32"))

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {
            "learning_rate": self.learning_rate,
            "boundaries": list(self.boundaries),
            "gamma": self.gamma,
        }


@keras.saving.register_keras_serializable("rcnn_keras")
class LinearWarmup(LearningRateSchedule):
    """A schedule whose first steps are scaled linearly from `factor` to 1, torch's LinearLR.

    Step s has the factor `factor + (1 - factor) * min(s / steps, 1)`: step 0 has `factor`, and step
    `steps` is the first with the full rate. `(s + 1) / n` is `steps = n - 1, factor = 1 / n`.

    Args:
        schedule: the schedule that is scaled, on the same step numbers.
        steps: length of the warm-up in steps, at least 1.
        factor: the factor of step 0, in 0..1.
    """

    def __init__(self, schedule: LearningRateSchedule, steps: int, factor: float = 0.001):
        if steps < 1 or not 0 <= factor <= 1:
            raise ValueError(
                f"a warm-up needs steps >= 1 and a factor in 0..1, got steps={steps}, "
                f"factor={factor}"
            )
        self.schedule = schedule
        self.steps = steps
        self.factor = factor

    def __call__(self, step: Any) -> Any:
        """Return the rate of `step` (from 0), a float32 scalar."""
        progress = ops.minimum(ops.cast(step, "float32") / self.steps, 1.0)
        return (self.factor + (1.0 - self.factor) * progress) * self.schedule(step)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments, the inner schedule serialized."""
        return {
            "schedule": keras.saving.serialize_keras_object(self.schedule),
            "steps": self.steps,
            "factor": self.factor,
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "LinearWarmup":
        """Return the schedule of `get_config()`."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["steps"], config["factor"])


def build_schedule(
    name: Literal["constant", "step", "cosine"],
    learning_rate: float,
    *,
    epochs: float,
    steps_per_epoch: int,
    warmup_steps: int = 0,
    warmup_factor: float = 0.001,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
    final_factor: float = 0.0,
) -> LearningRateSchedule:
    """Build the learning rate schedule of a run.

    Args:
        name: `constant`, `step` (times `gamma` at each milestone) or `cosine` (half a cosine from
            `learning_rate` at step 0 to `final_factor * learning_rate` at the last step).
        learning_rate: the base rate.
        epochs: length of the run.
        steps_per_epoch: optimizer steps per epoch.
        warmup_steps: length of the linear warm-up, which multiplies the schedule; 0 for none.
        warmup_factor: the warm-up's factor at step 0.
        milestones: epochs, not necessarily whole, at whose nearest step the rate drops.
        gamma: factor of each drop.
        final_factor: share of the base rate that is left at the end of `cosine`.
    """
    schedule: LearningRateSchedule
    if name == "cosine":
        schedule = CosineDecay(learning_rate, round(epochs * steps_per_epoch), final_factor)
    else:
        boundaries = [round(milestone * steps_per_epoch) for milestone in milestones]
        schedule = StepDecay(learning_rate, boundaries if name == "step" else (), gamma)
    return LinearWarmup(schedule, warmup_steps, warmup_factor) if warmup_steps else schedule
