"""Files of `torch.save` written by hand, opcode by opcode."""

import gzip
import json
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

FILES = Path(__file__).parent / "files"
KINDS = {"float32": "FloatStorage", "int64": "LongStorage"}


class PickleWriter:
    """The opcodes that `torch.save` uses."""

    def __init__(self):
        self.storages = {}

    def name(self, module, name):
        return f"c{module}\n{name}\n".encode()

    def text(self, value):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()

    def integer(self, value):
        return b"\x8b" + struct.pack("<i", 16) + value.to_bytes(16, "little", signed=True)

    def tuple(self, *values):
        return b"(" + b"".join(values) + b"t"

    def numbers(self, values):
        return self.tuple(*map(self.integer, values))

    def storage(self, key, values, length=None, kind=None):
        self.storages[key] = values
        kind = kind or KINDS[values.dtype.name]
        return (
            self.tuple(
                self.text("storage"),
                self.name("torch", kind),
                self.text(key),
                self.text("cpu"),
                self.integer(len(values) if length is None else length),
            )
            + b"Q"
        )

    def tensor(self, storage, offset, shape, strides):
        hooks = self.name("collections", "OrderedDict") + b")R"
        arguments = self.tuple(
            storage,
            self.integer(offset),
            self.numbers(shape),
            self.numbers(strides),
            b"\x89",
            hooks,
        )
        return self.name("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"

    def whole(self, array, key):
        strides = [stride // array.itemsize for stride in array.strides]
        return self.tensor(self.storage(key, array.ravel()), 0, array.shape, strides)

    def dictionary(self, items):
        head = self.name("collections", "OrderedDict") + b")R("
        return head + b"".join(self.text(key) + value for key, value in items.items()) + b"u"


@pytest.fixture
def writer():
    return PickleWriter()


@pytest.fixture
def zipped(tmp_path):
    """A function from a pickle's opcodes and the storages to the path of a zip file of them."""

    def write(opcodes, storages=(), *, compression=zipfile.ZIP_STORED, entries=()):
        path = tmp_path / "made.pth"
        with zipfile.ZipFile(path, "w", compression) as archive:
            archive.writestr("made/data.pkl", b"\x80\x02" + opcodes + b".")
            for key, values in dict(storages).items():
                archive.writestr(f"made/data/{key}", values.tobytes())
            for name, content in dict(entries).items():
                archive.writestr(f"made/{name}", content)
        return path

    return write


@pytest.fixture(scope="session")
def torchvision_shapes():
    """Name and shape of every tensor of torchvision's models, by the models' names."""
    return json.loads(gzip.decompress((FILES / "torchvision_shapes.json.gz").read_bytes()))


@pytest.fixture
def state_of(torchvision_shapes):
    """A function from a model's name to a state dict of its shapes, a constant for each tensor."""

    def make(name):
        shapes = torchvision_shapes[name]
        return {
            tensor: np.broadcast_to(
                np.int64(0)
                if tensor.endswith("num_batches_tracked")
                else np.float32((number + 1) / len(shapes)),
                shape,
            )
            for number, (tensor, shape) in enumerate(shapes.items())
        }

    return make
