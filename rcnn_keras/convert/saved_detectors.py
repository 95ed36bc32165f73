"""Detectors that this package saved in half precision, into folders.

FOLDER/model.json            class and arguments of the model, and metadata such as its scores
FOLDER/weights.safetensors   each variable as float16, named by submodule and path; those of layers
                             and models from outside of this package by submodule and number
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from rcnn_keras.models import CascadeRCNN, FasterRCNN, KeypointRCNN, MaskRCNN
from rcnn_keras.preset_table import MODEL, WEIGHTS
from rcnn_keras.utils.atomic import atomic_write

ARCHITECTURES: dict[str, type[FasterRCNN]] = {
    kind.__name__: kind for kind in (CascadeRCNN, FasterRCNN, KeypointRCNN, MaskRCNN)
}

SUBMODULES = {  # by attribute, and the argument for a layer of the user's own
    "backbone": "backbone",
    "fpn": "",
    "anchor_generator": "anchor_generator",
    "rpn_head": "rpn_head",
    "box_pooling": "roi_pooling",
    "box_head": "box_head",
    "mask_head": "mask_head",
    "keypoint_head": "keypoint_head",
}

MAX_FLOAT16 = np.finfo(np.float16).max


def save_half_precision(model: FasterRCNN, folder: str | os.PathLike, **metadata: Any) -> None:
    """Write a detector into a folder with its weights as float16; each file atomically.

    Args:
        model: a `FasterRCNN`, `MaskRCNN`, `CascadeRCNN` or `KeypointRCNN`.
        folder: created if missing; other files in it are kept.
        **metadata: further entries of `model.json`, such as the model's scores.

    Raises:
        ValueError: if a weight is not finite or exceeds float16's 65504; names it.
    """
    folder = Path(folder)
    content = {"class_name": type(model).__name__, "config": model.get_config(), **metadata}
    text = json.dumps(content, indent=1) + "\n"
    weights = {}
    for name, variable in _variables(model).items():
        values = keras.ops.convert_to_numpy(variable)
        if not np.abs(values).max(initial=0.0) <= MAX_FLOAT16:
            raise ValueError(f"{name} has values that float16 cannot hold")
        weights[name] = values.astype(np.float16)
    with atomic_write(folder / WEIGHTS) as temporary:
        temporary.write_bytes(save(weights))
    with atomic_write(folder / MODEL) as temporary:
        temporary.write_text(text, "utf-8")


def load_half_precision(folder: str | os.PathLike) -> FasterRCNN:
    """Return the detector that `save_half_precision` wrote, with float32 weights.

    Raises:
        FileNotFoundError: a file is missing; names it.
        ValueError: a file is damaged, or the weights are not those of the model; names the file and
            the field or weight.
    """
    folder = Path(folder)
    content = read_model(folder)
    weights = _read_weights(folder / WEIGHTS)
    try:
        model = ARCHITECTURES[content["class_name"]].from_config(content["config"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / MODEL}: config: {error}") from error
    variables = _variables(model)
    _check_fit(variables, weights, folder / WEIGHTS)
    for name, variable in variables.items():
        variable.assign(weights[name])
    return model


def read_model(folder: Path) -> dict[str, Any]:
    """Return the content of `model.json`, sequences in `config` as tuples; reads no weights.

    Raises:
        FileNotFoundError, ValueError: as `load_half_precision`.
    """
    path = folder / MODEL
    try:
        content = json.loads(_existing(path).read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not a JSON file: {error}") from error
    if not isinstance(content, dict) or content.get("class_name") not in ARCHITECTURES:
        kind = content.get("class_name") if isinstance(content, dict) else None
        raise ValueError(f"{path}: class_name must be one of {', '.join(ARCHITECTURES)}: {kind!r}")
    if not isinstance(content.get("config"), dict):
        raise ValueError(f"{path}: config must be a mapping of the model's arguments")
    return content | {"config": keras.tree.lists_to_tuples(content["config"])}


def _variables(model: FasterRCNN) -> dict[str, keras.Variable]:
    """Return the variables, named by the first submodule that has them and by their path."""
    variables: dict[str, keras.Variable] = {}
    parts = {name: (getattr(model, name, None), own) for name, own in SUBMODULES.items()}
    if not hasattr(model, "box_head"):  # but several
        parts |= {head.name: (head, "") for head in model.box_heads}
    for submodule, (layer, argument) in parts.items():
        seen = {
            id(variable) for variable in variables.values()
        }  # a C4 detector's heads share a trunk
        for number, variable in enumerate(layer.weights if layer is not None else ()):
            if id(variable) in seen:
                continue
            path = variable.path.removeprefix(f"{submodule}/")
            if argument in model.custom_layers:  # Keras may have numbered the layers inside
                path = f"{number}_{variable.name}"
            variables[f"{submodule}/{path}"] = variable
    known = set(map(id, variables.values()))
    missing = {id(v): v.path for v in model.weights if id(v) not in known}
    if missing:
        raise ValueError(f"none of {', '.join(SUBMODULES)} has {', '.join(missing.values())}")
    return variables


def _read_weights(path: Path) -> dict[str, np.ndarray]:
    try:
        return load_file(_existing(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error


def _check_fit(
    variables: Mapping[str, keras.Variable], weights: Mapping[str, np.ndarray], path: Path
) -> None:
    """Raise ValueError unless the weights are those of the variables, and finite."""
    for name in sorted(set(variables) | set(weights)):
        if name not in weights:
            raise ValueError(f"{path}: {name} is missing")
        if name not in variables:
            raise ValueError(f"{path}: {name} is not in the model")
        values, shape = weights[name], tuple(variables[name].shape)
        if values.shape != shape:
            raise ValueError(f"{path}: {name} has shape {values.shape}, not {shape}")
        if not np.isfinite(values).all():
            raise ValueError(f"{path}: {name} has values that are not finite")


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    return path
