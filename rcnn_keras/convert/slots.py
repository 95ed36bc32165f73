"""Where each tensor of a PyTorch model goes in ours, and the check that all of them do.

PyTorch keeps kernels as (out, in, h, w), of transposed convolutions (in, out, h, w), of depthwise
ones (channels, 1, h, w), and dense kernels as (out, in).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from rcnn_keras.layers.normalization import BATCH_NORMS

MOST_LISTED = 20  # names of one kind in an error's message
CONVOLUTIONS = (layers.Conv2D, layers.Conv2DTranspose, layers.DepthwiseConv2D)
STEP_COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; nothing here needs it


class Slot(NamedTuple):
    """A variable of ours, the shape of the tensor that it takes, and how to arrange its values."""

    variable: keras.Variable
    shape: tuple[int, ...]
    arrange: Callable[[np.ndarray], np.ndarray]


def slots(layer: layers.Layer, name: str, *, drop: int = 0, map_size: int = 1) -> dict[str, Slot]:
    """Return the slots of a layer, by the names of the tensors of the PyTorch module `name`.

    Args:
        layer: a convolution, a dense layer or a batch norm, built.
        name: of the module that corresponds to it.
        drop: rows (outputs) of the module that ours has not, at the front.
        map_size: S, of a dense layer on a flattened `(S, S, C)` map, which is (C, S, S) there.

    Raises:
        TypeError: for a layer of another kind.
    """
    if isinstance(layer, BATCH_NORMS):
        variables = {
            "weight": layer.gamma,
            "bias": layer.beta,
            "running_mean": layer.moving_mean,
            "running_var": layer.moving_variance,
        }
        return {f"{name}.{k}": _vector(variable, 0) for k, variable in variables.items()}
    if isinstance(layer, layers.Dense):
        kernel = _dense(layer.kernel, drop, map_size)
    elif isinstance(layer, CONVOLUTIONS):
        kernel = _convolution(layer, drop)
    else:
        raise TypeError(f"{layer.name} is a {type(layer).__name__}, which no tensor is for")
    found = {f"{name}.weight": kernel}
    return found | ({f"{name}.bias": _vector(layer.bias, drop)} if layer.use_bias else {})


def _vector(variable, drop):
    return Slot(variable, (variable.shape[0] + drop,), lambda values: values[drop:])


def _dense(kernel, drop, map_size):
    inputs, outputs = kernel.shape
    channels = inputs // map_size**2

    def arrange(values):
        values = values[drop:].reshape(-1, channels, map_size, map_size)
        return values.transpose(2, 3, 1, 0).reshape(inputs, outputs)

    return Slot(kernel, (outputs + drop, inputs), arrange)


def _convolution(layer, drop):
    height, width, *channels = layer.kernel.shape
    if not isinstance(layer, layers.DepthwiseConv2D):  # whose (channels, 1) is PyTorch's order
        channels.reverse()
    first, second = channels

    def arrange(values):
        return values[drop:].transpose(2, 3, 1, 0).reshape(layer.kernel.shape)

    return Slot(layer.kernel, (first + drop, second, height, width), arrange)


def fill(
    slots: Mapping[str, Slot],
    state: Mapping[str, np.ndarray],
    source: Any,
    unused: Iterable[str] = (),
) -> None:
    """Put every tensor of a state dict into its slot.

    Args:
        slots: by the tensors' names.
        state: the tensors.
        source: what an error calls the state dict: its file.
        unused: names of tensors that are known to have no place.

    Raises:
        ValueError: before anything is changed, with the names (and shapes) of all tensors that
            are missing, have no place, have another shape or type, or are not finite.
    """
    spare = set(unused)
    problems = {
        "missing": [name for name in slots if name not in state],
        "without a place in the model": [
            name
            for name in state
            if name not in slots and name not in spare and not _is_counter(name, slots)
        ],
        "of another shape": [
            f"{name} {state[name].shape}, not {slot.shape}"
            for name, slot in slots.items()
            if name in state and state[name].shape != slot.shape
        ],
        "not of finite floating-point numbers": [
            name
            for name, slot in slots.items()
            if name in state and state[name].shape == slot.shape and not _is_finite(state[name])
        ],
    }
    lines = [f"  {kind}: {_listing(names)}" for kind, names in problems.items() if names]
    if lines:
        raise ValueError("\n".join([f"{source}: the tensors do not fit the model", *lines]))
    for name, slot in slots.items():
        slot.variable.assign(slot.arrange(state[name]).astype("float32"))


def _is_counter(name, slots):
    module, _, last = name.rpartition(".")
    return last == STEP_COUNTER and f"{module}.running_mean" in slots


def _is_finite(values):
    return values.dtype.kind == "f" and bool(np.isfinite(values).all())


def _listing(names):
    more = len(names) - MOST_LISTED
    return ", ".join(names[:MOST_LISTED]) + (f" and {more} more" if more > 0 else "")
