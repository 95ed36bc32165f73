"""The sections `optimizer` and `schedule` of a configuration."""

from typing import Annotated, Literal

from pydantic import Field

from rcnn_keras.training.sections import Section

Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSection(Section):
    """What every optimizer shares; see `build_optimizer`."""

    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_global_norm: float | None = Field(default=None, gt=0)
    ema_momentum: ShareBelowOne | None = None


class SGD(OptimizerSection):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"]
    momentum: ShareBelowOne = 0.9
    nesterov: bool = False


class Adaptive(OptimizerSection):
    """AdamW, or LAMB for large batches."""

    name: Literal["adamw", "lamb"]
    beta_1: ShareBelowOne = 0.9
    beta_2: ShareBelowOne = 0.999
    epsilon: float = Field(default=1e-7, gt=0)


class ScheduleSection(Section):
    """A constant rate after a linear warm-up; see `build_schedule`."""

    name: Literal["constant"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)
    warmup_factor: Share = 0.001


class StepSchedule(ScheduleSection):
    """The rate times `gamma` at each milestone, in epochs that need not be whole.

    Milestones of R-CNN are in steps.
    """

    name: Literal["step"]  # type: ignore[assignment]
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    gamma: float = Field(default=0.1, gt=0, le=1)


class CosineSchedule(ScheduleSection):
    """Half a cosine over the whole run, down to `final_factor` of the base rate."""

    name: Literal["cosine"]  # type: ignore[assignment]
    final_factor: Share = 0.0
