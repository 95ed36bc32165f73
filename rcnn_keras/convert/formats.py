"""Which program wrote a file of weights, by its first bytes."""

from os import PathLike
from typing import Literal

from rcnn_keras.convert.torch_files import ZIP_SIGNATURE

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"

PICKLE_PROTOCOL = b"\x80"  # the first opcode of every pickle since protocol 2

Format = Literal["pickle", "torch", "hdf5"]


def format_of(path: str | PathLike) -> Format:
    """Return the format of a file: a pickle, a zip archive of `torch.save`, or HDF5.

    Raises:
        ValueError: if it is none of them.
        OSError: if the file cannot be opened.
    """
    with open(path, "rb") as file:
        start = file.read(len(HDF5_SIGNATURE))
    if start == HDF5_SIGNATURE:
        return "hdf5"
    if start.startswith(ZIP_SIGNATURE):
        return "torch"
    if start.startswith(PICKLE_PROTOCOL):
        return "pickle"
    found = "it is empty" if not start else f"it begins with {start!r}"
    raise ValueError(f"{path}: neither a pickle, nor of torch.save, nor HDF5; {found}")
