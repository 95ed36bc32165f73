"""The section `training` of a configuration: of `fit`, and of the stages of R-CNN."""

import importlib.util
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from rcnn_keras.engines import Engine, engine_named
from rcnn_keras.training.distribution import Distribution
from rcnn_keras.training.rcnn.stages import number_errors, train_rcnn
from rcnn_keras.training.rcnn.svm import require_sklearn
from rcnn_keras.training.sections import Section, arguments_section, raise_errors

Seed = Annotated[int, Field(ge=0, lt=2**32)]


class AlternatingSection(Section):
    """Training in four steps, see `train_alternating`.

    `training.epochs` are those of a step of the RPN. The schedule is that of every step; for steps
    of the detector it is drawn out or in to their own epochs.
    """

    detector_epochs: int = Field(ge=1)


class CheckpointSection(Section):
    """How often a run is saved, and how many checkpoints are kept; see `Checkpoint`."""

    every_steps: int | None = Field(default=500, ge=1)
    keep: int = Field(default=2, ge=1)


class TrainingSection(Section):
    """The run itself."""

    epochs: int = Field(ge=1)
    seed: Seed = 0
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    distribute: Distribution = "auto"
    evaluate_every: int = Field(default=1, ge=1)
    early_stopping_patience: int | None = Field(default=None, ge=1)
    tensorboard: bool = False
    checkpoint: CheckpointSection | None = CheckpointSection()
    alternating: AlternatingSection | None = None

    @model_validator(mode="after")
    def _alternates_alone(self) -> "TrainingSection":
        if self.alternating is not None:
            for name in ("evaluate_every", "early_stopping_patience"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} does not go with alternating, which is scored once, after the "
                        f"last step"
                    )
            if self.distribute not in ("auto", "none"):
                raise ValueError("distribute: alternating training runs on one device")
        return self

    @model_validator(mode="after")
    def _tensorboard_is_installed(self) -> "TrainingSection":
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ValueError("tensorboard: true needs a package: pip install tensorboard")
        return self


class EngineSection(Section):
    """Where features of all windows are computed, if not in the training's own process."""

    engine: Literal["processes", "ray"] = "processes"
    workers: int | None = Field(default=None, ge=1)
    address: str | None = None

    @model_validator(mode="after")
    def _is_there(self) -> "EngineSection":
        try:
            self.build()
        except ImportError as error:
            raise ValueError(str(error)) from error
        return self

    def build(self) -> Engine:
        """Make the engine."""
        return engine_named(self.engine, self.workers, self.address)


def _with_sound_numbers(training: Any) -> Section:
    values = dict(training)
    raise_errors(training, number_errors(values), values)
    return training


def _with_sklearn(training: Any) -> Section:
    try:
        require_sklearn()
    except ImportError as error:
        raise ValueError(str(error)) from error
    return training


# The learning rate may only be a number: `schedule` makes more of it.
if TYPE_CHECKING:
    StagesSection = Any
else:
    StagesSection = Annotated[
        arguments_section(
            train_rcnn,
            without=("model", "dataset", "out", "val", "engine"),
            learning_rate=(Annotated[float, Field(gt=0)], 0.001),
            seed=(Seed, 0),
            features=(EngineSection | None, None),
        ),
        AfterValidator(_with_sound_numbers),
        AfterValidator(_with_sklearn),
    ]
