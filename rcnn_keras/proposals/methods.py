"""The methods that propose boxes, by name."""

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

# Each names a function of an `(H, W, 3)` uint8 RGB image and keyword arguments that JSON can hold;
# it returns `(R, 4)` float32 xyxy in the image's pixels, best first, and for the same image always
# the same. The function is imported when it is used, so that no method has to wait for another's
# packages.
METHODS = {
    "selective_search": "rcnn_keras.proposals.selective_search:selective_search",
    "objectness": "rcnn_keras.proposals.objectness:objectness_windows",
}

Method = Callable[..., np.ndarray]


def method_named(name: str) -> Method:
    """Return the function of a method; ValueError for a name that is not in `METHODS`."""
    if name not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, not {name!r}")
    module, function = METHODS[name].split(":")
    return getattr(importlib.import_module(module), function)


def full_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's arguments with its defaults filled in, as JSON gives them back.

    Raises:
        ValueError: for an argument that the method lacks, one that it needs and was not given, or a
            value that it refuses.
    """
    method = method_named(name)
    _, *parameters = inspect.signature(method).parameters.values()
    known = {parameter.name: parameter.default for parameter in parameters}
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{name} has no argument {argument!r}; it has {list(known)}")
    given = {key: value for key, value in known.items() if value is not inspect.Parameter.empty}
    full = json.loads(json.dumps({**given, **arguments}))
    missing = [key for key in known if key not in full]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    method(np.zeros((8, 8, 3), np.uint8), **full)  # a wrong value is told before any long work
    return full
