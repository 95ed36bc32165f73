"""Strict reading of a YAML file, with overrides from the command line. Needs no TensorFlow."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

NULLS = ("", "~", "null", "Null", "NULL")  # ways of YAML to write None


class ConfigurationError(ValueError):
    """An invalid configuration; `errors` has one line for each error."""

    def __init__(self, errors: Iterable[str]):
        self.errors = tuple(errors)
        super().__init__("\n".join(self.errors))


@dataclass(frozen=True)
class Document:
    """The values of a YAML file and its overrides, not yet validated.

    Attributes:
        path: the file.
        values: nested dicts and lists of the file's values, with overrides applied.
        overridden: the key of each override, and the outermost mapping that it created.
    """

    path: Path
    values: dict[str, Any]
    overridden: tuple[tuple[str, str], ...] = ()

    def origin(self, key: str) -> str:
        """Return the source of a dotted key's value: the file, or `--set KEY`."""
        for override, created in reversed(self.overridden):
            if f"{key}.".startswith(f"{created}."):
                return f"--set {override}"
        return str(self.path)


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads 1e-4 as a number, as YAML 1.2 does, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key.value!r} is given twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+.0123456789"),
)


def read_document(path: str | Path, overrides: Sequence[str] = ()) -> Document:
    """Read a YAML file and apply overrides.

    Args:
        path: the YAML file.
        overrides: strings `key.sub=value`, the value in YAML; a number in the key is the index
            of a list's item, from 0. Mappings that the file lacks are created.

    Raises:
        ConfigurationError: the file is missing or not YAML, a key is given twice, or an override
            has no `=` or its key leads into a value that is neither a mapping nor a list.
    """
    path = Path(path)
    try:
        values = yaml.load(path.read_text("utf-8"), _Loader)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise ConfigurationError([f"{path}: cannot be read: {reason}"]) from error
    except yaml.YAMLError as error:
        raise ConfigurationError([f"{path}{_position(error)}: {_problem(error)}"]) from error
    if not isinstance(values, dict):
        raise ConfigurationError([f"{path}: expected a mapping of sections, not {values!r}"])
    overridden = [_override(values, override) for override in overrides]
    return Document(path, values, tuple(overridden))


def _override(values: dict[str, Any], override: str) -> tuple[str, str]:
    """Apply one `key.sub=value`; return the key, and the outermost mapping created for it."""
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigurationError([f"--set {override}: should look like key.sub=value"])
    value = _override_value(text, override)
    node: Any = values
    *parents, last = key.split(".")
    created = key
    for depth, part in enumerate(parents, start=1):
        if created == key and isinstance(node, dict) and node.get(part) is None:
            created = ".".join(parents[:depth])
        node = _child(node, part, override)
    if isinstance(node, list):
        node[_index(node, last, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise ConfigurationError(
            [f"--set {override}: {'.'.join(parents)} is {node!r}, not a section"]
        )
    return key, created


def _override_value(text: str, override: str) -> Any:
    """Return what an override's value means: YAML, or a path or other text as it stands.

    Text with characters that mean something in YAML, such as `data/#1/train.json`, is no number,
    list or mapping, so it is taken as it stands. What begins like a list, a mapping or a quoted
    string must be one.
    """
    try:
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        if _is_text(text):
            return text
        raise ConfigurationError(
            [
                f"--set {override}: the value is not YAML: {_problem(error)}; a text that begins "
                f"with {text.strip()[0]} is given in quotes: '\"...\"'"
            ]
        ) from error
    # A comment, an anchor, a tag, or a mapping or list without brackets would change a text.
    plain = isinstance(value, (str, dict, list)) or (value is None and text.strip() not in NULLS)
    return text if plain and _is_text(text) else value


def _is_text(text: str) -> bool:
    """Tell whether a value is meant as a text: it is neither quoted nor in brackets."""
    start = text.strip()[:1]
    if start in ("[", "{"):
        closed = text.strip().endswith({"[": "]", "{": "}"}[start])
        return not closed and any(mark in text for mark in "/\\")
    return start not in ("'", '"', "")


def _child(node: Any, part: str, override: str) -> Any:
    """Return the child of `node` for one part of a dotted key; a missing mapping is created."""
    if isinstance(node, list):
        return node[_index(node, part, override)]
    if not isinstance(node, dict):
        raise ConfigurationError([f"--set {override}: {part!r} is not a key of {node!r}"])
    if node.get(part) is None:
        node[part] = {}
    return node[part]


def _index(items: list[Any], part: str, override: str) -> int:
    if not part.isdecimal() or int(part) >= len(items):
        raise ConfigurationError(
            [f"--set {override}: {part!r} should be one of 0..{len(items) - 1}, the list's items"]
        )
    return int(part)


def _position(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    return f":{mark.line + 1}:{mark.column + 1}" if mark else ""


def _problem(error: yaml.YAMLError) -> str:
    return getattr(error, "problem", None) or str(error)
