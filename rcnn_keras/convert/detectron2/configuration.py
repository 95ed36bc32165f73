"""A configuration of Detectron2: a name of its zoo, a YAML file, or the mapping that one holds."""

import ast
import difflib
import os
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import yaml

from rcnn_keras.convert.detectron2.settings import BASES, check_settings
from rcnn_keras.convert.detectron2.zoo import KEYPOINTS, ZOO

Configuration = str | PathLike[str] | Mapping[str, Any]

BASE = "_BASE_"

MAX_BASES = 20  # files of a chain of bases

# The zoo's files that others build on, known where they are not beside those.
BASE_FILES = {
    "Base-RCNN-C4.yaml": BASES["c4"],
    "Base-RCNN-DilatedC5.yaml": BASES["dc5"],
    "Base-RCNN-FPN.yaml": BASES["fpn"],
    "Base-Keypoint-RCNN-FPN.yaml": BASES["fpn"] | KEYPOINTS,
}


def read_configuration(config: Configuration) -> dict[str, Any]:
    """Return the keys that a configuration sets, dotted, its bases' included.

    Args:
        config: a name of `ZOO`, with or without `.yaml`; the path of a YAML file; or a mapping,
            nested or of dotted keys.

    Raises:
        ValueError: for an unknown name, with the nearest; for a file that is no YAML, or whose base
            is missing; for a key that Detectron2 has not, with the nearest, and for a value
            that has no counterpart here.
        OSError: if a file cannot be read.
    """
    if isinstance(config, Mapping):
        source, settings = "config", _flat(config)
        settings = {key: value for key, value in settings.items() if key != BASE}
    else:
        source = os.fspath(config)
        name = source.removesuffix(".yaml").removesuffix(".yml")
        if name in ZOO and not os.path.isfile(source):
            return dict(ZOO[name])
        if name == source and not os.path.isfile(source):
            near = difflib.get_close_matches(name, ZOO, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(
                f"config must be the path of a YAML file or a name of Detectron2's zoo; "
                f"received {source!r}{hint}"
            )
        settings = _read_file(Path(source), MAX_BASES)
    try:
        check_settings(settings)
    except ValueError as error:
        raise ValueError(
            "\n".join(f"{source}: {line}" for line in str(error).split("\n"))
        ) from error
    return settings


def _read_file(path: Path, depth: int) -> dict[str, Any]:
    """Return the dotted keys of a file, after those of the file that it builds on."""
    if depth == 0:
        raise ValueError(f"{path}: more than {MAX_BASES} files build on each other")
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file of plain values ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not keys and values")
    base = content.pop(BASE, None)
    settings = _flat(content)
    if base is None:
        return settings
    beside = path.parent / os.path.expanduser(str(base))
    if beside.is_file():
        return _read_file(beside, depth - 1) | settings
    if (name := Path(str(base)).name) in BASE_FILES:
        return BASE_FILES[name] | settings
    raise ValueError(
        f"{path}: it builds on {base}, which is not at {beside} and not of {', '.join(BASE_FILES)}"
    )


def _flat(values: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested mappings as one, of dotted keys."""
    settings: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            settings |= _flat(value, f"{name}.")
        else:
            settings[name] = _literal(value)
    return settings


def _literal(value: Any) -> Any:
    """Return a value as Detectron2 reads it: text in Python's notation is what it says."""
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return value
    return list(value) if isinstance(value, tuple) else value
