"""Pickles of numpy arrays, such as Detectron2's and Caffe2's weight files.

An array is pickled as a call of `_reconstruct`, which makes an empty one, and its state: version,
shape, type, order and bytes. Its bytes stay in the file, which is mapped into memory; only where
Python 3 wrote for Python 2, as a text, they are copied.
"""

import math
import mmap
from collections.abc import Callable
from os import PathLike
from typing import Any, Literal

import numpy as np

from rcnn_keras.convert.pickles import Global, LongText, Span, read_pickle
from rcnn_keras.convert.torch_files import ordered

NUMPY = ("numpy.core", "numpy._core")  # the module's name before and since numpy 2

PLAIN_TYPES = frozenset("biuf")  # kinds of dtype: bool, integers, floating point

MAX_DIMENSIONS = 32


class _Type:
    """Replacement for `numpy.dtype`."""

    def __init__(self, name: Any, *_: Any) -> None:
        try:
            self.dtype = np.dtype(name if isinstance(name, str) else None)
        except TypeError as error:
            raise ValueError(f"the pickle has an array of the type {name!r}") from error
        if not isinstance(name, str) or self.dtype.kind not in PLAIN_TYPES:
            raise ValueError(
                f"the pickle has an array of the type {name!r}, not of plain numbers; it is refused"
            )

    def build(self, state: Any) -> None:
        """Take the byte order; what else a state has is for other types."""
        match state:
            case (int(), ("<" | ">" | "|" | "=") as order, None, None, None, *_):
                self.dtype = self.dtype.newbyteorder(order)
            case _:
                raise ValueError("the pickle has an array of fields, not of plain numbers")


class _Array:
    """Replacement for an array: its shape and type, and where its bytes are."""

    def __init__(self) -> None:
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype = np.dtype("u1")
        self.order: Literal["C", "F"] = "C"
        self.content: bytes | bytearray | Span = b""

    def build(self, state: Any) -> None:
        """Take what `ndarray.__setstate__` takes."""
        match state:
            case (int(), tuple() as shape, _Type() as kind, bool() | int() as fortran, content):
                self.fill(content, kind, shape, "F" if fortran else "C")
            case _:
                raise ValueError("the pickle has an array without shape, type and bytes")

    def fill(self, content: Any, kind: Any, shape: Any, order: Any = "C") -> None:
        """Take shape, type, order and bytes, and check that they fit each other."""
        lengths = isinstance(shape, tuple) and all(isinstance(n, int) and n >= 0 for n in shape)
        if not lengths or len(shape) > MAX_DIMENSIONS or order not in ("C", "F"):
            raise ValueError("the pickle has an array whose shape is none")
        if isinstance(content, str):  # of Python 2, which writes bytes so
            content = content.encode("latin1")
        if not isinstance(kind, _Type) or not isinstance(content, bytes | bytearray | Span):
            raise ValueError("the pickle has an array without type and bytes")
        size = content.stop - content.start if isinstance(content, Span) else len(content)
        needed = math.prod(shape) * kind.dtype.itemsize
        if size != needed:
            raise ValueError(
                f"an array of the shape {shape} should have {needed} bytes, {size} are there"
            )
        self.content, self.dtype, self.shape, self.order = content, kind.dtype, shape, order


def _empty(*_: Any) -> _Array:
    """Replacement for `_reconstruct`."""
    return _Array()


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any = "C") -> _Array:
    """Replacement for `_frombuffer`, which protocol 5 calls."""
    array = _Array()
    array.fill(content, kind, shape, order)
    return array


def _scalar(kind: Any, content: Any) -> _Array:
    """Replacement for `scalar`."""
    return _from_buffer(content, kind, ())


def _encoded(text: Any, encoding: Any) -> Any:
    """Replacement for `_codecs.encode`, as Python 3 calls it for bytes under protocol 2."""
    if encoding != "latin1":
        raise ValueError(f"the pickle encodes a text as {encoding!r:.50}; only bytes are read")
    if isinstance(text, LongText):
        return text
    if not isinstance(text, str):
        raise ValueError(f"the pickle encodes a {type(text).__name__}, not a text")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Replacement for `bytes`, as Python 3 calls it for none under protocol 2."""
    return b""


BUILDERS: dict[str, Callable[..., Any]] = {
    "_codecs.encode": _encoded,
    "__builtin__.bytes": _no_bytes,
    "numpy.dtype": _Type,
    "collections.OrderedDict": ordered,
    **{f"{core}.multiarray._reconstruct": _empty for core in NUMPY},
    **{f"{core}.multiarray.scalar": _scalar for core in NUMPY},
    **{f"{core}.numeric._frombuffer": _from_buffer for core in NUMPY},
}

NAMES = frozenset({"numpy.ndarray"})  # an argument of `_reconstruct`


def read_numpy_pickle(
    path: str | PathLike, *keys: str
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read the arrays of a pickled dictionary, or of a dictionary in it.

    Nothing that the file names is imported or called. Its arrays must be of plain numbers; they are
    read-only, and views of the mapped file where the file has their bytes as they are. In memory
    is no more than the file's own size and one array.

    Args:
        path: file of `pickle.dump`, of any protocol from 2 on.
        keys: the first of these that the dictionary has, with a dictionary, is read; else the
            whole dictionary is.

    Returns:
        The arrays by their names, in the file's order, and the entries of the outer dictionary that
        are none, such as texts.

    Raises:
        ValueError: if the file is damaged or cut off, is no dictionary of arrays, or asks for
            anything that no array needs: names it.
        OSError: if the file cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) == 0:
                raise ValueError("the file is empty")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        value, _ = read_pickle(data, BUILDERS, NAMES)
        if not isinstance(value, dict):
            raise ValueError(f"holds a {type(value).__name__}, not a dictionary of arrays")
        inner = next((key for key in keys if isinstance(value.get(key), dict)), None)
        notes = {k: v for k, v in value.items() if not isinstance(v, _Array | dict | Global)}
        state = value[inner] if inner else {k: v for k, v in value.items() if k not in notes}
        return _arrays(state, memoryview(data)), notes
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _arrays(state: dict[Any, Any], data: memoryview) -> dict[str, np.ndarray]:
    def content(array: _Array) -> Any:
        place = array.content
        return data[place.start : place.stop] if isinstance(place, Span) else place

    arrays = {}
    for name, array in state.items():
        if not isinstance(name, str) or not isinstance(array, _Array):
            raise ValueError(f"{name!r:.80} is a {type(array).__name__}, not an array")
        numbers = np.frombuffer(content(array), array.dtype, math.prod(array.shape))
        arrays[name] = numbers.reshape(array.shape, order=array.order)
        arrays[name].flags.writeable = False
    return arrays
