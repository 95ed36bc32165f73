"""What a checkpoint holds, and its files: atomic, checksummed, the last few kept.

DIRECTORY/step_00000150/       after 150 steps of training
    state.json      the format's version, and everything that is not an array
    arrays.npz      the variables
    SHA256SUMS      of both files; `sha256sum -c SHA256SUMS` checks them by hand

The state of a callback is that of its methods `get_state()` and `set_state(state)`: numbers,
strings, None and arrays, in lists and dicts. Of Keras' callbacks the attributes below are saved.
"""

import importlib.metadata
import json
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import keras
import numpy as np

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.data.value_range import FULL
from rcnn_keras.keras_internals import CALLBACK_STATE
from rcnn_keras.models import Detector
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.hashing import file_sha256, sha256

FORMAT = 1

STATE, ARRAYS, SUMS = "state.json", "arrays.npz", "SHA256SUMS"

PREFIX = "step_"

MARGIN = 1 << 20  # bytes in addition to the arrays


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, or that belongs to another run."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        step: of training, counted from its start.
        state: everything that JSON can hold.
        arrays: by name.
    """

    step: int
    state: dict[str, Any]
    arrays: dict[str, np.ndarray]


def save(directory: str | Path, saved: Saved, keep: int = 2) -> Path:
    """Write a checkpoint, and remove all but the last `keep`.

    The write is atomic: a process killed during it leaves the earlier checkpoints unchanged. One of
    a later step, which a run that resumed from an earlier checkpoint left behind, is removed.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: it cannot be written, for example because the disk is full; says why, and which
            checkpoints are kept.
    """
    directory = Path(directory)
    folder = directory / f"{PREFIX}{saved.step:08}"
    try:
        with atomic_write(folder) as temporary:
            temporary.mkdir()
            state = {"format": FORMAT, "step": saved.step} | saved.state
            (temporary / STATE).write_text(json.dumps(state, indent=1) + "\n", "utf-8")
            np.savez(temporary / ARRAYS, **saved.arrays)  # type: ignore[arg-type]
            sums = [f"{file_sha256(temporary / name)}  {name}\n" for name in (STATE, ARRAYS)]
            (temporary / SUMS).write_text("".join(sums), "utf-8")
    except OSError as error:
        steps = ", ".join(str(step_of(path)) for path in checkpoints(directory))
        raise OSError(
            f"the checkpoint of step {saved.step} could not be written to {directory}: "
            f"{error.strerror or error}. "
            + (f"Those before it are kept: step {steps}" if steps else "There is none before it")
        ) from error
    folders = checkpoints(directory)
    kept = [path for path in folders if step_of(path) <= saved.step][-keep:]
    for path in folders:
        if path not in kept:
            shutil.rmtree(path)
    return folder


def latest(directory: str | Path) -> Saved | None:
    """Return the last valid checkpoint, None if there are none at all.

    One that is incomplete or was altered is reported in a warning, and the one before it is used.

    Raises:
        CheckpointError: none is valid, or one has the format of a later version.
    """
    folders = checkpoints(Path(directory))
    for folder in reversed(folders):
        if (damage := damage_of(folder)) is None:
            return _read(folder)
        warnings.warn(f"{folder} {damage}; the checkpoint before it is used", stacklevel=2)
    if folders:
        raise CheckpointError(
            f"{directory}: no checkpoint is valid. Remove the folder to train from the start"
        )
    return None


def checkpoints(directory: Path) -> list[Path]:
    """Return the folders of all checkpoints, the earliest first."""
    return sorted(path for path in directory.glob(f"{PREFIX}*") if path.name[5:].isdigit())


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint's folder."""
    return int(folder.name.removeprefix(PREFIX))


def damage_of(folder: Path) -> str | None:
    """Return what is wrong with the files of a checkpoint, None if they are unchanged.

    Raises:
        OSError: a file cannot be read.
    """
    if not (folder / SUMS).is_file():
        return f"has no {SUMS}"
    lines = [
        line.split("  ") for line in (folder / SUMS).read_text("utf-8", "replace").splitlines()
    ]
    if [line[1:] for line in lines] != [[STATE], [ARRAYS]]:
        return f"is incomplete or was altered: {SUMS}"
    for stated, name in lines:
        if not (folder / name).is_file():
            return f"has no {name}"
        if file_sha256(folder / name) != stated:
            return f"is incomplete or was altered: {name}"
    return None


def prepare(directory: str | Path, size: int) -> None:
    """Create the folder, remove unfinished writes of a killed run, and check the free space.

    Args:
        directory: of the checkpoints.
        size: of one checkpoint in bytes, which must fit beside the existing ones.

    Raises:
        OSError: the folder cannot be created or written to, or the disk is too full.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise OSError(f"no checkpoints can be written to {directory}: {error}") from error
    for folder in directory.glob(f".{PREFIX}*"):
        shutil.rmtree(folder)
    free = shutil.disk_usage(directory).free
    if free < size + MARGIN:
        raise OSError(
            f"no room for checkpoints in {directory}: one takes {size / 1e6:,.0f} MB, "
            f"{free / 1e6:,.0f} MB are free"
        )


def differences(old: Mapping[str, Any], new: Mapping[str, Any], path: str = "") -> list[str]:
    """Return a line for each key whose value changed."""
    lines = []
    for key in dict.fromkeys((*old, *new)):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{path}{key}.")
        elif a != b:
            digests = isinstance(a, str) and a.startswith("sha256:")
            lines.append(f"{path}{key}" + (" changed" if digests else f" was {a!r}, is {b!r}"))
    return lines


def _read(folder: Path) -> Saved:
    state = json.loads((folder / STATE).read_text("utf-8"))
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{folder} has format {state['format']}; this version reads format {FORMAT}"
        )
    with np.load(folder / ARRAYS, allow_pickle=False) as file:
        return Saved(state["step"], state, {name: file[name] for name in file.files})


ARRAY = "array:"  # prefix of the name of an array that is saved in arrays.npz


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of the model, its seeds and its optimizer, each once."""
    if not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    return list({id(variable): variable for variable in variables}.values())


def size_of(model: keras.Model) -> int:
    """Return the size of all variables in bytes."""
    return sum(variable.numpy().nbytes for variable in variables_of(model))


def state_of(
    model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the callbacks' states, as JSON can hold them, and all arrays by name."""
    arrays = {f"variable_{i:04}": v.numpy() for i, v in enumerate(variables_of(model))}
    arrays |= {f"metric_{i:04}": v.numpy() for i, v in enumerate(model.metrics_variables)}
    states = {name: _without_arrays(_get(c), name, arrays) for name, c in _named(callbacks).items()}
    return {name: state for name, state in states.items() if state is not None}, arrays


def restore(
    model: keras.Model,
    callbacks: Sequence[keras.callbacks.Callback],
    states: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Put the model and its callbacks into the state that `state_of` returned.

    Callbacks are matched by class, and several of one class by order; a new one starts fresh. So do
    the means of metrics that were given to `compile`, which Keras builds in the first step.

    Raises:
        CheckpointError: the variables are not those of this model.
    """
    variables, values = variables_of(model), _with_prefix("variable_", arrays)
    if not _same_shapes(values, variables):
        raise CheckpointError(
            f"the checkpoint's {len(values)} variables are not the {len(variables)} of the model "
            f"and its optimizer"
        )
    _assign(variables, values)
    metrics, values = model.metrics_variables, _with_prefix("metric_", arrays)
    if _same_shapes(values, metrics):
        _assign(metrics, values)
    for name, callback in _named(callbacks).items():
        if name in states:
            _set(callback, _with_arrays(states[name], arrays))


def description(
    model: keras.Model,
    data: Any,
    steps_per_epoch: int | None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Return what must be unchanged for a run to resume, as JSON can hold it.

    Args:
        model: compiled, and not trained yet.
        data: `Batches`, or a dict that describes the data; anything else is not described.
        steps_per_epoch: None if it is not known.
        callbacks: the data of those that score must be the same, as their scores are compared.
    """
    content: dict[str, Any] = {"architecture": type(model).__name__}
    if isinstance(model, Detector):
        config = model.get_config()
        content |= {"classes": config.pop("classes"), "model": _without_names(config)}
    content |= {
        "precision": model.dtype_policy.name,
        "variables": sum(v.shape.num_elements() or 0 for v in map(_value, model.variables)),
        "optimizer": {"kind": type(model.optimizer).__name__}
        | _without_names(model.optimizer.get_config()),
        "steps_per_epoch": steps_per_epoch,
    }
    if isinstance(data, Batches):
        content["data"] = batches_fingerprint(data)
    elif isinstance(data, Mapping):
        content["data"] = data
    is_detector = isinstance(model, Detector)
    masks = is_detector and model.has_masks
    keypoints = is_detector and model.skeleton is not None
    scored = [getattr(callback, "dataset", None) for callback in callbacks]
    validation = [
        dataset_fingerprint(d, masks=masks, keypoints=keypoints)
        for d in scored
        if isinstance(d, DetectionDataset)
    ]
    if validation:
        content["validation data"] = dict(enumerate(validation, 1))
    return json.loads(json.dumps(content, default=repr))


def versions() -> dict[str, str]:
    """Return the versions of the packages on which the exact numbers depend."""
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}


def _with_prefix(prefix: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [array for name, array in arrays.items() if name.startswith(prefix)]


def _same_shapes(values: Sequence[np.ndarray], variables: Sequence[keras.Variable]) -> bool:
    return [tuple(x.shape) for x in values] == [tuple(x.shape) for x in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        # NumPy's files do not support bfloat16; they return its bytes.
        dtype = variable.numpy().dtype
        variable.assign(value.view(dtype) if value.dtype.kind == "V" else value)


def _value(variable: keras.Variable) -> Any:
    return variable.value


def _without_names(config: Any) -> Any:
    """Leave out names, in which Keras counts the objects that a process creates."""
    if isinstance(config, Mapping):
        return {key: _without_names(value) for key, value in config.items() if key != "name"}
    return config


def _named(callbacks: Sequence[keras.callbacks.Callback]) -> dict[str, keras.callbacks.Callback]:
    """Name callbacks by class and order: `ModelCheckpoint`, `ModelCheckpoint 2`."""
    named: dict[str, keras.callbacks.Callback] = {}
    for callback in callbacks:
        kind = type(callback).__name__
        count = sum(type(other).__name__ == kind for other in named.values())
        named[f"{kind} {count + 1}" if count else kind] = callback
    return named


def _attributes(callback: keras.callbacks.Callback) -> tuple[str, ...]:
    return next((names for kind, names in CALLBACK_STATE.items() if isinstance(callback, kind)), ())


def _get(callback: keras.callbacks.Callback) -> Any:
    if hasattr(callback, "get_state"):
        return callback.get_state()
    # Keras sets some only when an epoch begins.
    names = [name for name in _attributes(callback) if hasattr(callback, name)]
    return {name: getattr(callback, name) for name in names} or None


def _set(callback: keras.callbacks.Callback, state: Any) -> None:
    if hasattr(callback, "set_state"):
        callback.set_state(state)
    else:
        vars(callback).update(state)


def _without_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a state with arrays replaced by their names, and put the arrays into `arrays`."""
    if isinstance(value, Mapping):
        return {k: _without_arrays(v, f"{name}/{k}", arrays) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(v, f"{name}/{i}", arrays) for i, v in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        arrays[name] = value
        return ARRAY + name
    return value


def _with_arrays(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        return {k: _with_arrays(v, arrays) for k, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(v, arrays) for v in value]
    if isinstance(value, str) and value.startswith(ARRAY):
        return arrays[value.removeprefix(ARRAY)]
    return value


def batches_fingerprint(batches: Batches) -> dict[str, Any]:
    """Return all that decides what is in which batch, long parts of it as SHA-256.

    Raises:
        FileNotFoundError: an image file is gone.
    """
    keypoints = batches.skeleton is not None
    parts = dataset_fingerprint(batches.dataset, masks=batches.masks, keypoints=keypoints)
    if batches.proposals:
        proposals = (np.asarray(record.proposals).tobytes() for record in batches.dataset)
        parts["proposals"] = _digest(proposals)
    settings = ("batch_size", "shuffle", "seed", "min_size", "max_size", "max_objects", "antialias")
    return {
        **parts,
        **{name: getattr(batches, name) for name in settings},
        "augment": _text(batches.augment),
        **({} if batches.value_range == FULL else {"value_range": str(batches.value_range)}),
        **({} if batches.image_rule is None else {"image_rule": str(batches.image_rule)}),
    }


def dataset_fingerprint(
    dataset: DetectionDataset, *, masks: bool, keypoints: bool = False
) -> dict[str, Any]:
    """Return how many images a dataset has, and the SHA-256 of them and of their objects.

    Image files count by name, number of bytes and size in pixels, images in memory by their
    pixels, those in TFRecord files by the file's number of bytes and their place in it; the folder
    that holds the files does not count.

    Args:
        dataset: of annotated images.
        masks: whether the objects' segmentations count.
        keypoints: whether their keypoints count.

    Raises:
        FileNotFoundError: an image file is gone.
    """
    records = list(dataset)
    parts = {
        "number of images": len(records),
        "images": _digest(part for record in records for part in _image(record)),
        "objects": _digest(part for record in records for part in _objects(record)),
    }
    if masks:
        parts["segmentations"] = _digest(part for r in records for part in _segmentations(r))
    if keypoints:
        parts["keypoints"] = _digest(
            b"none" if r.keypoints is None else r.keypoints.tobytes() for r in records
        )
    return parts


def _image(record: Record) -> Iterable[bytes]:
    yield f"{record.image_id} {record.height} {record.width} {Path(record.path).name} ".encode()
    if record.pixels is not None:
        yield np.ascontiguousarray(record.pixels).tobytes()
    elif record.tfrecord is not None:
        file = Path(record.tfrecord.file)
        yield f"{file.name} {file.stat().st_size} {record.tfrecord.offset}\n".encode()
    else:
        yield f"{Path(record.path).stat().st_size}\n".encode()


def _objects(record: Record) -> Iterable[bytes]:
    yield f"{len(record)} ".encode()
    yield from (array.tobytes() for array in (record.boxes, record.labels, record.crowd))


def _segmentations(record: Record) -> Iterable[bytes]:
    for segmentation in record.segmentations or ():
        if isinstance(segmentation, list):
            for polygon in segmentation:
                yield np.asarray(polygon, np.float64).tobytes()
            yield b"\n"
        else:
            yield repr(segmentation and sorted(segmentation.items())).encode()


def _digest(chunks: Iterable[bytes]) -> str:
    return f"sha256:{sha256(chunks)}"


def _text(augment: Any) -> str:
    """Return an augmentation with its arguments, without the addresses of functions."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(augment))
