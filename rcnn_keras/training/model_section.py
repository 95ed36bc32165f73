"""The section `model` of a configuration: the arguments of a model's constructor.

With `model.preset` the training starts from the weights of a preset or of a `.keras` file, and the
defaults of the other keys are the arguments of that model.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from rcnn_keras.models import RCNN, Detector, FasterRCNN, FastRCNN, MaskRCNN
from rcnn_keras.models.arguments import argument_errors
from rcnn_keras.models.rcnn_arguments import rcnn_argument_errors
from rcnn_keras.presets import is_path, preset_arguments, preset_conflicts
from rcnn_keras.training.data_section import absolute
from rcnn_keras.training.sections import Section, arguments_section, raise_errors

ARCHITECTURES: dict[str, type[Detector]] = {
    "fast_rcnn": FastRCNN,
    "faster_rcnn": FasterRCNN,
    "mask_rcnn": MaskRCNN,
    "rcnn": RCNN,
}
# Arguments of the models that are no keys: the data has the classes, `training` the seed.
NO_KEYS = ("classes", "seed")
MORE_KEYS = ("architecture", "preset")  # keys that are no arguments of the constructor


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
    fields: dict[str, Any] = {"architecture": (Literal[name], ...)}
    if model is not RCNN:  # of which nobody publishes weights
        fields["preset"] = (PresetName | None, None)
    return arguments_section(model, without=NO_KEYS, **fields)


def _checked(model: Any) -> Section:
    values, errors = dict(model), {}
    preset = preset_of(model)
    if preset is not None:
        given = model_arguments(model)
        values = preset_arguments(preset) | given
        errors = preset_conflicts(preset, given)
    of_its_kind = rcnn_argument_errors if model.architecture == "rcnn" else argument_errors
    raise_errors(model, of_its_kind(values) | errors, values)
    return model
