"""The state of a training: every variable of the model, and what its callbacks remember.

A callback with methods `get_state()` and `set_state(state)` is asked for its state: numbers, texts,
None and arrays, in lists and dicts. Of Keras' own callbacks the attributes below are taken.
"""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from rcnn_keras.data.batches import Batches
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.fingerprint import fingerprint, fingerprint_of
from rcnn_keras.models import Detector
from rcnn_keras.training.checkpoint_files import CheckpointError

ATTRIBUTES: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("best", "best_epoch", "best_weights", "wait", "stopped_epoch"),
    keras.callbacks.History: ("epoch", "history"),
    keras.callbacks.ModelCheckpoint: (
        *("best", "_current_epoch"),
        *("_last_batch_seen", "_batches_seen_since_last_saving"),
    ),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.TensorBoard: ("_global_train_batch", "_global_test_batch"),
}
ARRAY = "array:"  # before the name of an array that stands apart


def variables_of(model: keras.Model) -> list[keras.Variable]:
    """Return the variables of the model, its seeds and its optimizer, each once."""
    if not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)
    found = [*model.variables, *model.optimizer.variables]
    return list({id(variable): variable for variable in found}.values())


def size_of(model: keras.Model) -> int:
    """Return the bytes that all variables take."""
    return sum(variable.numpy().nbytes for variable in variables_of(model))


def state_of(
    model: keras.Model, callbacks: Sequence[keras.callbacks.Callback]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return what the callbacks remember, as JSON has it, and all arrays by name."""
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

    Callbacks are found by their class, and of several by their order; a new one begins anew. So do
    the means of metrics that were given to `compile`, which Keras builds in the first step.

    Raises:
        CheckpointError: the variables are not those of this model.
    """
    variables, values = variables_of(model), _starting_with("variable_", arrays)
    if not _fit(values, variables):
        raise CheckpointError(
            f"the checkpoint's {len(values)} variables are not the {len(variables)} of the model "
            f"and its optimizer"
        )
    _assign(variables, values)
    metrics, values = model.metrics_variables, _starting_with("metric_", arrays)
    if _fit(values, metrics):
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
    """Return what must be the same for a run to go on, as JSON has it.

    Args:
        model: compiled, and not trained yet.
        data: `Batches`; or a dict that describes the data; of anything else nothing is known.
        steps_per_epoch: None where it is not known.
        callbacks: of those that score, the data must be the same, for their scores are compared.
    """
    parts: dict[str, Any] = {"architecture": type(model).__name__}
    if isinstance(model, Detector):
        config = model.get_config()
        parts |= {"classes": config.pop("classes"), "model": _unnamed(config)}
    parts |= {
        "precision": model.dtype_policy.name,
        "variables": sum(v.shape.num_elements() or 0 for v in map(_value, model.variables)),
        "optimizer": {"kind": type(model.optimizer).__name__}
        | _unnamed(model.optimizer.get_config()),
        "steps_per_epoch": steps_per_epoch,
    }
    if isinstance(data, Batches):
        parts["data"] = fingerprint(data)
    elif isinstance(data, Mapping):
        parts["data"] = data
    masks = isinstance(model, Detector) and model.has_masks
    scored = [getattr(callback, "dataset", None) for callback in callbacks]
    validation = [fingerprint_of(d, masks=masks) for d in scored if isinstance(d, DetectionDataset)]
    if validation:
        parts["validation data"] = dict(enumerate(validation, 1))
    return json.loads(json.dumps(parts, default=repr))


def versions() -> dict[str, str]:
    """Return the versions of the packages on which the last bits depend."""
    return {name: importlib.metadata.version(name) for name in ("tensorflow", "keras", "numpy")}


def _starting_with(prefix: str, arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    return [array for name, array in arrays.items() if name.startswith(prefix)]


def _fit(values: Sequence[np.ndarray], variables: Sequence[keras.Variable]) -> bool:
    return [tuple(x.shape) for x in values] == [tuple(x.shape) for x in variables]


def _assign(variables: Sequence[keras.Variable], values: Sequence[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        # NumPy's files know no bfloat16 and give its bytes back.
        dtype = variable.numpy().dtype
        variable.assign(value.view(dtype) if value.dtype.kind == "V" else value)


def _value(variable: keras.Variable) -> Any:
    return variable.value


def _unnamed(config: Any) -> Any:
    """Leave out the names that Keras counts up with each object that a process makes."""
    if isinstance(config, Mapping):
        return {key: _unnamed(value) for key, value in config.items() if key != "name"}
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
    return next((names for kind, names in ATTRIBUTES.items() if isinstance(callback, kind)), ())


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
    """Return a state with the name of each array in its place, and put the arrays into `arrays`."""
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
