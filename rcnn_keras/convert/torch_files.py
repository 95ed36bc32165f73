"""Files of `torch.save`, read without torch and without running code from them.

Since PyTorch 1.6 a file is a zip archive of uncompressed entries: `NAME/data.pkl`, a pickle that
names storages, and `NAME/data/KEY`, the bytes of each. Older files have five pickles in sequence (a
magic number, a version, the writer's system, the object, the storages' keys) and then the
storages, each after its length.
"""

import mmap
import struct
import zipfile
from collections.abc import Callable, Sequence
from functools import cache
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from rcnn_keras.convert.pickles import MAX_BYTES, Global, fill, read_pickle

DTYPES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.BFloat16Storage": "<u2",  # the upper half of a float32
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "|i1",
    "torch.ByteStorage": "|u1",
    "torch.BoolStorage": "|u1",  # anything but 0 is True
}

STATE_KEYS = ("model", "state_dict")  # under which training scripts save the state dict

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C  # the first object of a file before PyTorch 1.6

MAGIC_PICKLE = b"\x80\x02\x8a\x0a" + MAGIC_NUMBER.to_bytes(10, "little") + b"."

LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field

ZIP_SIGNATURE = b"PK\x03\x04"

LENGTH = struct.Struct("<q")


class Storage(NamedTuple):
    """A sequence of `length` numbers; in a legacy file, optionally only the part `view` of it."""

    kind: str
    key: str
    length: int
    view: tuple[int, int] | None


class Tensor(NamedTuple):
    """A strided view of a storage; offset and strides are in numbers, not bytes."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


ReadStorage = Callable[[Storage], memoryview]


def read_pth(path: str | PathLike) -> dict[str, np.ndarray]:
    """Read the state dict that `torch.save` wrote, alone or in a checkpoint's `"model"`.

    The arrays are read-only views of the file, which is mapped into memory: numbers are read when
    they are used. bfloat16, which numpy lacks, becomes float32.

    Args:
        path: file of any PyTorch since 0.2, usually `.pth` or `.pt`.

    Returns:
        Array of each tensor, by its name, in the file's order.

    Raises:
        ValueError: if the file is damaged or is not a state dict; if it asks for a class or a
            function that no tensor needs; names it.
        OSError: if the file cannot be opened.
    """
    try:
        with open(path, "rb") as file:
            if file.seek(0, 2) == 0:
                raise ValueError("the file is empty")
            data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            if data[:4] == ZIP_SIGNATURE:
                value, read_storage = _read_zip(file, data)
            elif data[: len(MAGIC_PICKLE)] == MAGIC_PICKLE:
                value, read_storage = _read_legacy(data)
            else:
                raise ValueError("not a file of torch.save, neither a zip archive nor a legacy one")
        return _arrays(value, read_storage)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _read_zip(file: Any, data: memoryview) -> tuple[Any, ReadStorage]:
    """Return the object of a zip archive, and a function that reads its storages."""
    try:
        entries = {entry.filename: entry for entry in zipfile.ZipFile(file).infolist()}
    except (zipfile.BadZipFile, NotImplementedError, struct.error) as error:
        raise ValueError(f"the file is damaged or cut off ({error})") from error
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise ValueError("not a file of torch.save: the zip archive has no NAME/data.pkl")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in entries:
        raise ValueError("a TorchScript file; torch.save the model's state_dict() instead")

    def read(name: str) -> Any:
        if name not in entries:
            raise ValueError(f"the file has no entry {name}")
        return _entry(entries[name], data)

    if f"{folder}byteorder" in entries and read(f"{folder}byteorder") != b"little":
        raise ValueError("the numbers are big-endian; only little-endian ones are read")
    pickle = read(pickles[0])
    if len(pickle) > MAX_BYTES:
        raise ValueError(f"{pickles[0]} has {len(pickle)} bytes; at most {MAX_BYTES} are read")
    value, _, _ = _read_object(pickle)
    return value, lambda storage: read(f"{folder}data/{storage.key}")


def _entry(entry: zipfile.ZipInfo, data: memoryview) -> memoryview:
    """Return the bytes of an uncompressed entry."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
        raise ValueError(f"{entry.filename} is compressed or encrypted; torch.save does neither")
    header = data[entry.header_offset :][: LOCAL_HEADER.size]
    if len(header) < LOCAL_HEADER.size or header[:4] != ZIP_SIGNATURE:
        raise ValueError(f"the file is damaged: {entry.filename} is not at its offset")
    _, name, extra = LOCAL_HEADER.unpack(header)
    start = entry.header_offset + LOCAL_HEADER.size + name + extra
    content = data[start : start + entry.file_size]
    if len(content) < entry.file_size:
        raise ValueError(
            f"{entry.filename} should have {entry.file_size} bytes, {len(content)} are there"
        )
    return content


def _read_legacy(data: memoryview) -> tuple[Any, ReadStorage]:
    """Return the object of a file before PyTorch 1.6, and a function that reads its storages."""
    start = 0
    for _ in ("magic number", "version", "system"):
        start += read_pickle(data[start : start + MAX_BYTES])[1]
    value, storages, size = _read_object(data[start : start + MAX_BYTES])
    start += size
    keys, size = read_pickle(data[start : start + MAX_BYTES])
    start += size
    valid = isinstance(keys, list) and all(isinstance(key, (str, int)) for key in keys)
    if not valid or {str(key) for key in keys} != set(storages):
        raise ValueError("the file is damaged: its list of storages does not fit its tensors")
    contents = {}
    for key in map(str, keys):
        prefix = data[start : start + LENGTH.size]
        length = LENGTH.unpack(prefix)[0] if len(prefix) == LENGTH.size else None
        if length != storages[key].length:
            raise ValueError(f"the file is damaged or cut off at storage {key}")
        start += LENGTH.size
        end = start + length * np.dtype(DTYPES[storages[key].kind]).itemsize
        contents[key] = data[start:end]
        start = end
    return value, lambda storage: contents[storage.key]


def _read_object(pickle: memoryview) -> tuple[Any, dict[str, Storage], int]:
    """Return a pickle's object with `Tensor`s in it, its storages by key, and its size."""
    storages: dict[str, Storage] = {}

    def load_storage(reference: Any) -> Any:
        match reference:
            case ("storage", Global() as kind, str(key), str(), int(length)):
                view = None
            case ("storage", Global() as kind, str(key), str(), int(length), None):
                view = None
            case ("storage", Global() as kind, str(key), str(), int(length), (_, int(a), int(b))):
                view = a, b
            case _:
                raise ValueError("the pickle has a persistent id that is not a storage")
        storage = Storage(str(kind), key, length, view)
        first = storages.setdefault(key, storage)
        if first[:3] != storage[:3]:
            raise ValueError(f"storage {key} is declared twice, with another type or length")
        return storage

    value, size = read_pickle(pickle, BUILDERS, frozenset(DTYPES), load_storage)
    return value, storages, size


def _tensor(
    storage: Any, offset: int, shape: Sequence[int], strides: Sequence[int], *_: Any
) -> Any:
    """Replacement for `torch._utils._rebuild_tensor_v2`."""
    counts = (offset, *shape, *strides)
    if not isinstance(storage, Storage) or len(shape) != len(strides):
        raise ValueError("the pickle has a tensor without storage, shape and strides")
    if any(not isinstance(n, int) or not 0 <= n < 1 << 62 for n in counts):
        raise ValueError("a tensor has an offset, a shape or strides out of range")
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Any:
    """Replacement for `torch._utils._rebuild_parameter`."""
    return tensor


def ordered(pairs: Any = None) -> dict[Any, Any]:
    """Replacement for `collections.OrderedDict`; Python 2 wrote `pairs`, which are moved.

    A pickle may pass the same list many times in a few bytes, so that copies could exhaust memory.
    """
    entries: dict[Any, Any] = {}
    if pairs is not None:
        if not isinstance(pairs, list):
            raise ValueError(f"the pickle makes a dictionary of a {type(pairs).__name__}")
        fill(entries, pairs)
        pairs.clear()
    return entries


def _nothing(*_: Any) -> dict[Any, Any]:
    """Replacement for other objects in a checkpoint, whose contents are not needed."""
    return {}


BUILDERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "collections.OrderedDict": ordered,
    "collections.Counter": _nothing,  # of a learning rate's schedule
    "argparse.Namespace": _nothing,  # of a training script's arguments
}


def _arrays(value: Any, read_storage: ReadStorage) -> dict[str, np.ndarray]:
    """Return the arrays of a state dict, given directly or within a checkpoint."""
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, not a state dict")
    state = next((value[key] for key in STATE_KEYS if isinstance(value.get(key), dict)), value)

    @cache
    def numbers(storage: Any) -> np.ndarray:
        return _numbers(storage, read_storage(storage))

    def viewed(storage: Any) -> np.ndarray:
        return _viewed(storage, numbers(storage._replace(view=None)))

    arrays = {}
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise ValueError(f"{name!r} is a {type(tensor).__name__}, not a tensor")
        try:
            arrays[name] = _strided(tensor, viewed(tensor.storage))
        except ValueError as error:
            raise ValueError(f"tensor {name!r}: {error}") from error
    return arrays


def _numbers(storage: Storage, content: memoryview) -> np.ndarray:
    """Return all numbers of a storage, `(length,)`."""
    dtype = np.dtype(DTYPES[storage.kind])
    if not 0 <= storage.length * dtype.itemsize <= len(content):
        raise ValueError(
            f"storage {storage.key} should have {storage.length} numbers of {dtype.itemsize} "
            f"bytes; {len(content)} bytes are there"
        )
    numbers = np.frombuffer(content, dtype, storage.length)
    if storage.kind == "torch.BFloat16Storage":
        return (numbers.astype("<u4") << 16).view("<f4")
    return numbers != 0 if storage.kind == "torch.BoolStorage" else numbers


def _viewed(storage: Storage, numbers: np.ndarray) -> np.ndarray:
    """Return the numbers of a storage that are in its view."""
    if storage.view is None:
        return numbers
    start, length = storage.view
    if not (start >= 0 and length >= 0 and start + length <= len(numbers)):
        raise ValueError(f"the view {storage.view} is not within storage {storage.key}")
    return numbers[start : start + length]


def _strided(tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    """Return a tensor as a strided view of its storage's numbers."""
    offset, shape, strides = tensor.offset, tensor.shape, tensor.strides
    if 0 in shape:
        return np.broadcast_to(np.empty((), numbers.dtype), shape)  # read-only like the others
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
    if last >= len(numbers):
        raise ValueError(
            f"offset {offset}, shape {shape} and strides {strides} leave its storage of "
            f"{len(numbers)} numbers"
        )
    steps = [
        stride * numbers.itemsize if n > 1 else 0 for n, stride in zip(shape, strides, strict=True)
    ]
    view = np.ndarray(shape, numbers.dtype, numbers, offset * numbers.itemsize, steps)
    view.flags.writeable = False
    return view
