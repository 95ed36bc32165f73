"""What the sections of a configuration share: strictness, and errors in the user's words."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from rcnn_keras.training.configuration_file import Document

LONGEST_VALUE = 80
ARGUMENT = "argument"  # type of the errors that `raise_errors` makes


class Section(BaseModel):
    """A mapping of known keys; numbers are not read from strings, nor integers from booleans."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, protected_namespaces=()
    )

    @model_validator(mode="wrap")
    @classmethod
    def _suggest_keys(cls, values, handler):
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
