"""The configuration of a training run: all sections, keys, defaults and ranges, validated at once.

The keys of `model` are the arguments of the model's constructor, those of `augment` the arguments
of the augmentations, and for R-CNN those of `training` the arguments of `train_rcnn`, so that
names and defaults are defined only once.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import Field, ValidationError, model_validator

from rcnn_keras.models import CascadeRCNN, FasterRCNN, KeypointRCNN, MaskRCNN
from rcnn_keras.presets import preset_arguments
from rcnn_keras.runs.distribution import Distribution
from rcnn_keras.runs.document import ConfigurationError, Document, read_document
from rcnn_keras.runs.schema import (
    ARCHITECTURES,
    MORE_KEYS,
    SGD,
    Adaptive,
    CocoBatches,
    CocoData,
    CosineSchedule,
    ModelSchema,
    RecordBatches,
    RecordData,
    ScheduleSection,
    Section,
    StagesSection,
    StepSchedule,
    TrainingSection,
    ViaBatches,
    ViaData,
    VocBatches,
    VocData,
    describe,
    model_arguments,
    preset_of,
)

AnySchedule = ScheduleSection | StepSchedule | CosineSchedule

AnyConfiguration = TypeVar("AnyConfiguration", bound="Configuration")


class Configuration(Section):
    """A whole training run. Paths are absolute; all defaults are filled in."""

    model: Annotated[Any, ModelSchema()]
    data: Any
    schedule: AnySchedule = Field(default=ScheduleSection(), discriminator="name")
    training: Any

    @model_validator(mode="after")
    def _check_proposals(self: AnyConfiguration) -> AnyConfiguration:
        takes_proposals = ARCHITECTURES[self.model.architecture].takes_proposals
        for part, sources in (("train", self.data.train), ("val", self.data.val)):
            for source in sources:
                if takes_proposals and source.proposals is None:
                    raise ValueError(
                        f"data.{part}.proposals = None: {self.model.architecture} needs a file "
                        f"that `rcnn proposals` wrote"
                    )
                if not takes_proposals and source.proposals is not None:
                    raise ValueError(
                        f"data.{part}.proposals = {source.proposals!r}: "
                        f"{self.model.architecture} finds its own proposals"
                    )
        return self

    @model_validator(mode="after")
    def _check_milestones(self: AnyConfiguration) -> AnyConfiguration:
        milestones = getattr(self.schedule, "milestones", ())
        unit, length = self.length
        if any(b <= a for a, b in pairwise((*milestones, length))):
            raise ValueError(
                f"schedule.milestones = {list(milestones)}: should rise and end before "
                f"training.{unit} = {length}"
            )
        return self

    @property
    def length(self) -> tuple[str, int]:
        """Length of the run: its key in `training`, and the value."""
        raise NotImplementedError

    @property
    def distribute(self) -> Distribution:
        """Devices of the training; training in stages or alternating steps uses one."""
        return "none"

    @property
    def trains_masks(self) -> bool:
        """Whether the model predicts masks."""
        model = ARCHITECTURES[self.model.architecture]
        if issubclass(model, CascadeRCNN):
            arguments = dict(self.model)
            if self.preset is not None:
                arguments = preset_arguments(self.preset, model) | self.model_arguments
            return bool(arguments["masks"])
        return issubclass(model, MaskRCNN)

    @property
    def trains_keypoints(self) -> bool:
        """Whether the model predicts keypoints."""
        return issubclass(ARCHITECTURES[self.model.architecture], KeypointRCNN)

    @property
    def preset(self) -> str | None:
        """The preset whose weights the run starts from, or None."""
        return preset_of(self.model)

    @property
    def model_arguments(self) -> dict[str, Any]:
        """The arguments of the model's constructor, without classes and seed.

        With a preset only those in the configuration: all others are the preset's.
        """
        return model_arguments(self.model)

    def to_yaml(self) -> str:
        """Return the configuration with all defaults as YAML, which loads as an equal one.

        Arguments of the model that come from a preset are left out.
        """
        values = self.model_dump(mode="json")
        stated = (*MORE_KEYS, *self.model_arguments)
        values["model"] = {k: v for k, v in values["model"].items() if k in stated}
        return yaml.safe_dump(values, sort_keys=False, default_flow_style=None)


class FitConfiguration(Configuration):
    """A run of `fit`, or of `train_alternating`."""

    data: CocoBatches | ViaBatches | VocBatches | RecordBatches = Field(discriminator="format")
    optimizer: SGD | Adaptive = Field(discriminator="name")
    training: TrainingSection

    @model_validator(mode="after")
    def _check_evaluate_every(self) -> "FitConfiguration":
        if self.training.evaluate_every > self.training.epochs:
            raise ValueError(
                f"training.evaluate_every = {self.training.evaluate_every}: should be at most "
                f"training.epochs = {self.training.epochs}, or the model is never scored"
            )
        return self

    @model_validator(mode="after")
    def _check_masks(self) -> "FitConfiguration":
        needed = {"masks": self.trains_masks, "keypoints": self.trains_keypoints}
        for what, is_needed in needed.items():
            if is_needed and self.data.format == "voc":
                raise ValueError(
                    f"data.format = 'voc': {self.model.architecture} is trained on {what}, which "
                    f"Pascal VOC annotations do not have; use COCO files"
                )
        return self

    @model_validator(mode="after")
    def _check_shuffle(self) -> "FitConfiguration":
        if self.data.shuffle == "shards" and self.data.format != "records":
            raise ValueError(
                f"data.shuffle = 'shards': needs data.format 'records', not {self.data.format!r}"
            )
        return self

    @model_validator(mode="after")
    def _check_alternating(self) -> "FitConfiguration":
        model = ARCHITECTURES[self.model.architecture]
        if self.training.alternating and not issubclass(model, FasterRCNN):
            raise ValueError(
                f"training.alternating: {self.model.architecture} has no RPN to train alternately"
            )
        return self

    @property
    def distribute(self) -> Distribution:
        """Devices of the training; alternating training uses one."""
        return self.training.distribute if self.training.alternating is None else "none"

    @property
    def length(self) -> tuple[str, int]:
        """The epochs."""
        return "epochs", self.training.epochs


class RCNNConfiguration(Configuration):
    """A run of `train_rcnn`, in stages; milestones of the schedule are in steps."""

    data: CocoData | ViaData | VocData | RecordData = Field(discriminator="format")
    training: StagesSection

    @property
    def length(self) -> tuple[str, int]:
        """The steps of fine-tuning."""
        return "steps", self.training.steps


def load_configuration(path: str | Path, overrides: Sequence[str] = ()) -> Configuration:
    """Read and validate a YAML configuration.

    Relative paths in it and in overrides are relative to the folder of the file.

    Args:
        path: the YAML file.
        overrides: strings `key.sub=value` that replace values of the file.

    Raises:
        ConfigurationError: lists every error with its file or override, dotted key and value.
    """
    return validate(read_document(path, overrides))


def validate(document: Document) -> Configuration:
    """Validate a document; raise ConfigurationError with every error."""
    values = _with_tuples(document.values)
    model = values.get("model")
    is_rcnn = isinstance(model, dict) and model.get("architecture") == "rcnn"
    kind = RCNNConfiguration if is_rcnn else FitConfiguration
    try:
        return kind.model_validate(values, context={"folder": document.path.parent})
    except ValidationError as error:
        lines = error.errors(include_url=False)
        raise ConfigurationError(describe(line, document) for line in lines) from error


def _with_tuples(value: Any) -> Any:
    """Convert YAML's lists to tuples, which strict validation expects."""
    if isinstance(value, dict):
        return {str(key): _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value
