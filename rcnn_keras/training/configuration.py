"""The configuration of a training run: every section, key, default and range, validated whole.

The keys of `model` are the arguments of the model's constructor, and those of `augment` the
arguments of the augmentations, so that each has its name and its default in one place only. With
`model.preset` the training starts from the weights of a preset or of a `.keras` file, and the
defaults of the other keys are the arguments of that model.
"""

import importlib.util
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    AfterValidator,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from rcnn_keras.models import Detector, FasterRCNN, FastRCNN, MaskRCNN
from rcnn_keras.models.arguments import argument_errors
from rcnn_keras.presets import is_path, preset_arguments, preset_conflicts
from rcnn_keras.training.configuration_file import ConfigurationError, Document, read_document
from rcnn_keras.training.data_section import CocoData, VocData, absolute
from rcnn_keras.training.sections import (
    Section,
    arguments_section,
    describe,
    raise_errors,
)

ARCHITECTURES: dict[str, type[Detector]] = {
    "fast_rcnn": FastRCNN,
    "faster_rcnn": FasterRCNN,
    "mask_rcnn": MaskRCNN,
}
# Arguments of the models that are no keys: the data has the classes, `training` the seed.
NO_KEYS = ("classes", "seed")
MORE_KEYS = ("architecture", "preset")  # keys that are no arguments of the constructor

Share = Annotated[float, Field(ge=0, le=1)]
ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


def _preset_there(name: str, info: ValidationInfo) -> str:
    """Return a preset's name, or the whole path of a `.keras` file that is there."""
    name = absolute(name, info) if is_path(name) else name
    try:
        preset_arguments(name)
    except OSError as error:
        raise ValueError(str(error)) from error
    return name


PresetName = Annotated[str, AfterValidator(_preset_there)]


class ModelSchema:
    """Annotation of `model`: one section for each architecture, told by the key `architecture`."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        choices: dict[Any, Any] = {
            name: core_schema.no_info_after_validator_function(
                _checked,
                handler.generate_schema(
                    arguments_section(
                        model,
                        without=NO_KEYS,
                        architecture=(Literal[name], ...),
                        preset=(PresetName | None, None),
                    )
                ),
            )
            for name, model in ARCHITECTURES.items()
        }
        return core_schema.tagged_union_schema(choices, discriminator="architecture")


def _checked(model: Any) -> Section:
    values, errors = dict(model), {}
    if model.preset is not None:
        given = _model_arguments(model)
        values = preset_arguments(model.preset) | given
        errors = preset_conflicts(model.preset, given)
    raise_errors(model, argument_errors(values) | errors, values)
    return model


def _model_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments in a section `model`; with a preset those alone that are given."""
    given = dict(model) if model.preset is None else model.model_fields_set
    return {name: value for name, value in model if name in given and name not in MORE_KEYS}


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
    """The rate times `gamma` at each milestone, in epochs that need not be whole."""

    name: Literal["step"]  # type: ignore[assignment]
    milestones: tuple[Annotated[float, Field(gt=0)], ...] = Field(min_length=1)
    gamma: float = Field(default=0.1, gt=0, le=1)


class CosineSchedule(ScheduleSection):
    """Half a cosine over the whole run, down to `final_factor` of the base rate."""

    name: Literal["cosine"]  # type: ignore[assignment]
    final_factor: Share = 0.0


class AlternatingSection(Section):
    """Training in four steps, see `train_alternating`.

    `training.epochs` are those of a step of the RPN. The schedule is that of every step; for steps
    of the detector it is drawn out or in to their own epochs.
    """

    detector_epochs: int = Field(ge=1)


class TrainingSection(Section):
    """The run itself."""

    epochs: int = Field(ge=1)
    seed: int = Field(default=0, ge=0, lt=2**32)
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = "float32"
    evaluate_every: int = Field(default=1, ge=1)
    early_stopping_patience: int | None = Field(default=None, ge=1)
    tensorboard: bool = False
    backup: bool = False
    alternating: AlternatingSection | None = None

    @model_validator(mode="after")
    def _alternates_alone(self) -> "TrainingSection":
        if self.alternating is not None:
            for name in ("evaluate_every", "early_stopping_patience", "backup"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(
                        f"{name} does not go with alternating, which is scored once, after the "
                        f"last step, and goes on by itself after the last finished one"
                    )
        return self

    @model_validator(mode="after")
    def _tensorboard_is_installed(self) -> "TrainingSection":
        if self.tensorboard and importlib.util.find_spec("tensorboard") is None:
            raise ValueError("tensorboard: true needs a package: pip install tensorboard")
        return self


class Configuration(Section):
    """A whole training run. Paths are absolute; all defaults are filled in."""

    model: Annotated[Any, ModelSchema()]
    data: CocoData | VocData = Field(discriminator="format")
    optimizer: SGD | Adaptive = Field(discriminator="name")
    schedule: ScheduleSection | StepSchedule | CosineSchedule = Field(
        default=ScheduleSection(), discriminator="name"
    )
    training: TrainingSection

    @model_validator(mode="after")
    def _is_scored(self) -> "Configuration":
        if self.training.evaluate_every > self.training.epochs:
            raise ValueError(
                f"training.evaluate_every = {self.training.evaluate_every}: should be at most "
                f"training.epochs = {self.training.epochs}, or the model is never scored"
            )
        return self

    @model_validator(mode="after")
    def _milestones_are_in_the_run(self) -> "Configuration":
        milestones = getattr(self.schedule, "milestones", ())
        if any(b <= a for a, b in pairwise((*milestones, self.training.epochs))):
            raise ValueError(
                f"schedule.milestones = {list(milestones)}: should rise and end before "
                f"training.epochs = {self.training.epochs}"
            )
        return self

    @model_validator(mode="after")
    def _has_masks_to_learn(self) -> "Configuration":
        if self.learns_masks and self.data.format == "voc":
            raise ValueError(
                f"data.format = 'voc': {self.model.architecture} learns masks, of which Pascal VOC "
                f"annotations have none; give COCO files"
            )
        return self

    @model_validator(mode="after")
    def _has_an_rpn_to_alternate_with(self) -> "Configuration":
        model = ARCHITECTURES[self.model.architecture]
        if self.training.alternating and not issubclass(model, FasterRCNN):
            raise ValueError(
                f"training.alternating: {self.model.architecture} has no RPN to train in turn"
            )
        return self

    @model_validator(mode="after")
    def _has_the_proposals_it_takes(self) -> "Configuration":
        takes = ARCHITECTURES[self.model.architecture].takes_proposals
        for part, sources in (("train", self.data.train), ("val", self.data.val)):
            for source in sources:
                if takes and source.proposals is None:
                    raise ValueError(
                        f"data.{part}.proposals = None: {self.model.architecture} needs a file "
                        f"that `rcnn proposals` wrote"
                    )
                if not takes and source.proposals is not None:
                    raise ValueError(
                        f"data.{part}.proposals = {source.proposals!r}: "
                        f"{self.model.architecture} finds its own proposals"
                    )
        return self

    @property
    def learns_masks(self) -> bool:
        """Whether the model is one of masks."""
        return issubclass(ARCHITECTURES[self.model.architecture], MaskRCNN)

    @property
    def model_arguments(self) -> dict[str, Any]:
        """The arguments of the model's constructor, without classes and seed.

        With a preset only those that the configuration states: the others are the preset's.
        """
        return _model_arguments(self.model)

    def to_yaml(self) -> str:
        """Return the configuration, all defaults filled in, as YAML that reads back the same.

        Arguments of the model that a preset brings are left to it.
        """
        values = self.model_dump(mode="json")
        stated = (*MORE_KEYS, *self.model_arguments)
        values["model"] = {k: v for k, v in values["model"].items() if k in stated}
        return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)


def load_configuration(path: str | Path, overrides: Sequence[str] = ()) -> Configuration:
    """Read and validate a YAML configuration.

    Relative paths in it, and in overrides, are taken from the configuration file's folder.

    Args:
        path: the YAML file.
        overrides: strings `key.sub=value` that replace values of the file.

    Raises:
        ConfigurationError: with every error: its file or override, dotted key and value.
    """
    return validate(read_document(path, overrides))


def validate(document: Document) -> Configuration:
    """Validate a YAML document that was read; raise ConfigurationError with every error."""
    try:
        return Configuration.model_validate(
            _with_tuples(document.values), context={"folder": document.path.parent}
        )
    except ValidationError as error:
        lines = error.errors(include_url=False)
        raise ConfigurationError(describe(line, document) for line in lines) from error


def _with_tuples(value: Any) -> Any:
    """Turn YAML's lists into the tuples that strict validation wants."""
    if isinstance(value, dict):
        return {str(key): _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
