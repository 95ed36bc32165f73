"""The sections of a configuration: strict, and with errors in the user's words.

The keys of `augment` are the arguments of the augmentations, those of `model` the arguments of the
model's constructor. With `model.preset` the training starts from the weights of a preset or of a
`.keras` file, and the defaults of the other keys are the arguments of that model.
"""

import difflib
import importlib.util
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    ValidationError,
    ValidationInfo,
    create_model,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError, core_schema

from rcnn_keras.data import augmentation
from rcnn_keras.data.object_rules import Crowd, WithoutMask
from rcnn_keras.models import (
    RCNN,
    CascadeRCNN,
    Detector,
    FasterRCNN,
    FastRCNN,
    KeypointRCNN,
    MaskRCNN,
)
from rcnn_keras.models import arguments as rules
from rcnn_keras.models.arguments import argument_errors
from rcnn_keras.models.custom_layers import LAYER_ARGUMENTS
from rcnn_keras.parallel import Engine, engine_named
from rcnn_keras.presets import check_architecture, is_path, preset_arguments, preset_conflicts
from rcnn_keras.runs.distribution import Distribution
from rcnn_keras.runs.document import Document
from rcnn_keras.training.rcnn.linear_models import require_sklearn
from rcnn_keras.training.rcnn.stages import number_errors, train_rcnn

LONGEST_VALUE = 80

ARGUMENT = "argument"  # type of the errors that `raise_errors` makes


class Section(BaseModel):
    """A mapping of known keys; numbers are not read from strings, nor integers from booleans."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_keys(cls, values: Any, handler: Callable[[Any], "Section"]) -> "Section":
        try:
            return handler(values)
        except ValidationError as error:
            lines = [cls._with_suggestion(line) for line in error.errors(include_url=False)]
            raise ValidationError.from_exception_data(cls.__name__, lines) from error

    @classmethod
    def _with_suggestion(cls, line: Any) -> InitErrorDetails:
        message = line["msg"]
        if line["type"] == "extra_forbidden" and len(line["loc"]) == 1:
            near = difflib.get_close_matches(str(line["loc"][0]), cls.model_fields, n=1)
            known = ", ".join(cls.model_fields)
            message = "unknown key, " + (
                f"did you mean {near[0]!r}?" if near else f"not of: {known}"
            )
        return InitErrorDetails(
            type=PydanticCustomError(line["type"], message, line.get("ctx")),
            loc=line["loc"],
            input=line["input"],
        )


def arguments_section(
    function: Callable[..., Any], *, without: Sequence[str] = (), **fields: Any
) -> type[Section]:
    """Make the section whose keys are the arguments of a function or class, with its defaults.

    Args:
        function: every argument is annotated, sequences as tuples.
        without: arguments that are no keys.
        **fields: more keys, or another type for one, as `pydantic.create_model` takes them.
    """
    hints = get_type_hints(
        function.__init__ if inspect.isclass(function) else function, include_extras=True
    )
    for name, parameter in inspect.signature(function).parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if not variadic and name not in (*without, *fields):
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints[name], default)
    return create_model(function.__name__, __base__=Section, **fields)


def raise_errors(section: Section, errors: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Raise pydantic's error for keys of a section whose values do not fit; a rule for each."""
    if errors:
        lines = [
            InitErrorDetails(
                type=PydanticCustomError(ARGUMENT, rule),  # type: ignore[arg-type]
                loc=(name,),
                input=values[name],
            )
            for name, rule in errors.items()
        ]
        raise ValidationError.from_exception_data(type(section).__name__, lines)


def describe(error: Any, document: Document) -> str:
    """Put one of pydantic's errors into one line: `file: dotted.key = value: what is wrong`."""
    keys: list[str] = []
    node: Any = document.values
    for step in error["loc"]:
        if _has(node, step):
            node = node[step]
            keys.append(str(step))
    # What was not found above is the tag of a union, or the 0 of one item that stands for a list.
    value = f" = {_shortened(error['input'])}"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if error["type"] == "model_type":
        message = "should be a mapping of keys to values"
    if error["type"] == "missing":
        keys, value, message = [*keys, str(error["loc"][-1])], "", "missing"
    elif error["type"] == ARGUMENT and keys[-1:] != [error["loc"][-1]]:  # a default
        keys = [*keys, error["loc"][-1]]
    elif error["type"] == "union_tag_not_found":
        keys, value, message = [*keys, error["ctx"]["discriminator"].strip("'")], "", "missing"
    elif error["type"] == "union_tag_invalid":
        keys = [*keys, error["ctx"]["discriminator"].strip("'")]
        value = f" = {error['ctx']['tag']!r}"
        message = f"should be {error['ctx']['expected_tags']}"
    key = ".".join(keys)
    return f"{document.origin(key)}: " + (f"{key}{value}: {message}" if key else message)


def _has(node: Any, step: Any) -> bool:
    """Return whether a step of pydantic's path, which may name a choice of a union, leads on."""
    if isinstance(node, list):
        return isinstance(step, int) and step < len(node)
    return isinstance(node, dict) and step in node


def _shortened(value: Any) -> str:
    text = repr(_with_lists(value))
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}..."


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return [_with_lists(item) for item in value] if isinstance(value, tuple) else value


AUGMENTATIONS = {
    kind.__name__: kind
    for kind in (
        augmentation.RandomFlip,
        augmentation.ScaleJitter,
        augmentation.ColorJitter,
        augmentation.RandomRotation,
        augmentation.RandomTranslation,
        augmentation.RandomErasing,
    )
}


def absolute(path: str, info: ValidationInfo) -> str:
    """Resolve a path against the configuration file's folder."""
    folder = (info.context or {}).get("folder", ".")
    return str(Path(folder, Path(path).expanduser()).resolve())


File = Annotated[str, AfterValidator(absolute)]


class NamedAugmentation(Section):
    """One augmentation: a mapping of its name to its parameters."""

    @model_validator(mode="after")
    def _is_one(self) -> "NamedAugmentation":
        if len(self._chosen()) != 1:
            raise ValueError("should be one augmentation, such as 'RandomFlip: {horizontal: true}'")
        self.build()
        return self

    @model_serializer
    def _only_chosen(self) -> dict[str, Any]:
        return {name: section.model_dump() for name, section in self._chosen().items()}

    def _chosen(self) -> dict[str, Section]:
        return {name: section for name, section in self if section is not None}

    def build(self) -> augmentation.Augmentation:
        """Make the augmentation."""
        ((name, section),) = self._chosen().items()
        return AUGMENTATIONS[name](**dict(section))


if TYPE_CHECKING:
    AugmentationSection = NamedAugmentation
else:
    AugmentationSection = create_model(
        "AugmentationSection",
        __base__=NamedAugmentation,
        **{name: (arguments_section(call) | None, None) for name, call in AUGMENTATIONS.items()},
    )


def _sequence(value: Any) -> Any:
    return value if isinstance(value, tuple) else (value,)


def _validated(value: Any, info: ValidationInfo) -> Any:
    """Let validation data be stated or held out of the training data, one of the two."""
    split = info.data.get("validation_split")
    if not value and split is None:
        rule = "needs data to score on; or give validation_split, the share that is held out"
        raise PydanticCustomError(ARGUMENT, rule)
    if value and split is not None:
        raise ValueError("should not be there beside validation_split, which holds data out")
    return value


HELD_OUT = Field(default=(), validate_default=True)
Validation = AfterValidator(_validated)


class CocoSource(Section):
    """A COCO JSON file and the folder of its images, by default where `load_coco` looks."""

    annotations: File
    images: File | None = None
    proposals: File | None = None


class ViaSource(Section):
    """A file of the VGG Image Annotator, with its images and attribute as `load_via` has them."""

    annotations: File
    images: File | None = None
    attribute: str | None = None
    proposals: File | None = None


class VocSource(Section):
    """One split of a Pascal VOC folder, by default as `load_voc` has it."""

    root: File
    split: str | None = None
    proposals: File | None = None


class RecordSource(Section):
    """A folder of record files, as `rcnn data pack` writes it."""

    root: File
    proposals: File | None = None


class DataSection(Section):
    """What every format shares, and all ways to train; the rules are those of `load_coco`.

    Without `val`, `validation_split` is the share of the training images to score on, see
    `DetectionDataset.split`.
    """

    classes: tuple[str, ...] | None = None
    crowd: Crowd = "ignore"
    without_mask: WithoutMask = "keep"
    max_proposals: int = Field(default=2000, ge=1)
    check_images: bool = True
    validation_split: float | None = Field(default=None, gt=0, lt=1)


class BatchSection(DataSection):
    """What `fit` needs beside: how images come together."""

    batch_size: int = Field(default=2, ge=1)
    augment: tuple[AugmentationSection, ...] = ()
    shuffle: Literal["images", "shards"] = "images"
    max_objects: int | None = Field(default=None, ge=1)


class CocoFiles(Section):
    """COCO JSON; several files for one part are joined."""

    format: Literal["coco"]
    train: Annotated[tuple[CocoSource, ...], BeforeValidator(_sequence), Field(min_length=1)]
    val: Annotated[tuple[CocoSource, ...], BeforeValidator(_sequence), Validation] = HELD_OUT


class ViaFiles(Section):
    """Files of the VGG Image Annotator; several for one part are joined."""

    format: Literal["via"]
    train: Annotated[tuple[ViaSource, ...], BeforeValidator(_sequence), Field(min_length=1)]
    val: Annotated[tuple[ViaSource, ...], BeforeValidator(_sequence), Validation] = HELD_OUT


class VocSplits(Section):
    """Pascal VOC; several splits for one part are joined."""

    format: Literal["voc"]
    train: Annotated[tuple[VocSource, ...], BeforeValidator(_sequence), Field(min_length=1)]
    val: Annotated[tuple[VocSource, ...], BeforeValidator(_sequence), Validation] = HELD_OUT


class RecordFolders(Section):
    """Record files; several folders for one part are joined."""

    format: Literal["records"]
    train: Annotated[tuple[RecordSource, ...], BeforeValidator(_sequence), Field(min_length=1)]
    val: Annotated[tuple[RecordSource, ...], BeforeValidator(_sequence), Validation] = HELD_OUT


class CocoData(CocoFiles, DataSection):
    """COCO data of which windows are cut."""


class ViaData(ViaFiles, DataSection):
    """Data of the VGG Image Annotator of which windows are cut."""


class VocData(VocSplits, DataSection):
    """Pascal VOC data of which windows are cut."""


class RecordData(RecordFolders, DataSection):
    """Record files of which windows are cut."""


class CocoBatches(CocoFiles, BatchSection):
    """COCO data in batches."""


class ViaBatches(ViaFiles, BatchSection):
    """Data of the VGG Image Annotator in batches."""


class VocBatches(VocSplits, BatchSection):
    """Pascal VOC data in batches."""


class RecordBatches(RecordFolders, BatchSection):
    """Record files in batches."""


AnyData = (
    CocoData
    | ViaData
    | VocData
    | RecordData
    | CocoBatches
    | ViaBatches
    | VocBatches
    | RecordBatches
)


ARCHITECTURES: dict[str, type[Detector]] = {
    "cascade_rcnn": CascadeRCNN,
    "fast_rcnn": FastRCNN,
    "faster_rcnn": FasterRCNN,
    "keypoint_rcnn": KeypointRCNN,
    "mask_rcnn": MaskRCNN,
    "rcnn": RCNN,
}

RULES = {
    "cascade_rcnn": rules.CASCADE_RCNN,
    "fast_rcnn": rules.FAST_RCNN,
    "faster_rcnn": rules.FASTER_RCNN,
    "keypoint_rcnn": rules.KEYPOINT_RCNN,
    "mask_rcnn": rules.MASK_RCNN,
    "rcnn": rules.RCNN,
}

# Arguments of the models that are no keys: the data has classes and keypoints, `training` the seed,
# and models and layers cannot be written into a file of text.
NO_KEYS = (
    *("classes", "num_classes", "num_keypoints", "keypoint_names", "keypoint_edges"),
    *("seed", "feature_pyramid", *LAYER_ARGUMENTS),
)

MORE_KEYS = ("architecture", "preset")  # keys that are no arguments of the constructor


def _existing_preset(name: str, info: ValidationInfo) -> str:
    """Return a preset's name, or the absolute path of a `.keras` file that exists."""
    name = absolute(name, info) if is_path(name) else name
    try:
        preset_arguments(name)
    except OSError as error:
        raise ValueError(str(error)) from error
    return name


PresetName = Annotated[str, AfterValidator(_existing_preset)]


def _weights_there(name: str, info: ValidationInfo) -> str:
    """Return `"imagenet"` or a preset's name, or the whole path of a file that is there."""
    if not name.endswith(rules.WEIGHT_FILES):
        return name
    path = absolute(name, info)
    if not Path(path).is_file():
        raise ValueError("no such file")
    return path


WeightsName = Annotated[str, AfterValidator(_weights_there)]


class ModelSchema:
    """Annotation of `model`: a section for each architecture, chosen by the key of that name."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        choices: dict[Any, Any] = {
            name: core_schema.no_info_after_validator_function(
                _checked, handler.generate_schema(_section_of(name, model))
            )
            for name, model in ARCHITECTURES.items()
        }
        return core_schema.tagged_union_schema(choices, discriminator="architecture")


def model_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments in a section `model`; with a preset those alone that are given."""
    given = dict(model) if preset_of(model) is None else model.model_fields_set
    return {name: value for name, value in model if name in given and name not in MORE_KEYS}


def preset_of(model: Any) -> str | None:
    """Return the preset that a section `model` starts from."""
    return getattr(model, "preset", None)


def _section_of(name: str, model: type[Detector]) -> type[Section]:
    fields: dict[str, Any] = {
        "architecture": (Literal[name], ...),
        "preset": (PresetName | None, None),
    }
    default = inspect.signature(model).parameters["backbone"].default
    fields["backbone"] = (str, default)
    fields["backbone_weights"] = (WeightsName | None, None)
    if model is FastRCNN:
        fields["roi_pooling"] = (str, "pool")
    return arguments_section(model, without=NO_KEYS, **fields)


def _checked(model: Any) -> Section:
    values, errors = dict(model), {}
    preset = preset_of(model)
    if preset is not None:
        architecture = ARCHITECTURES[model.architecture]
        try:
            check_architecture(preset, architecture)
        except ValueError as error:
            raise_errors(model, {"preset": str(error)}, values)
        given = model_arguments(model)
        values = preset_arguments(preset, architecture) | given
        errors = preset_conflicts(preset, given, architecture)
    errors = argument_errors(values, RULES[model.architecture]) | errors
    raise_errors(model, errors, values)
    return model


Share = Annotated[float, Field(ge=0, le=1)]

ShareBelowOne = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSection(Section):
    """What every optimizer shares; see `build_optimizer`."""

    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    clip_global_norm: float | None = Field(default=None, gt=0)
    ema_momentum: ShareBelowOne | None = None
    backbone_rate: float = Field(default=1.0, gt=0, le=1)
    layer_decay: float = Field(default=1.0, gt=0, le=1)


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
    def _engine_is_installed(self) -> "EngineSection":
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
