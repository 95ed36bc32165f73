"""Fingerprints: SHA-256 of files, of bytes, and of the values that some work depends on."""

import hashlib
import json
from collections.abc import Iterable
from os import PathLike
from typing import Any

import numpy as np


def sha256(chunks: Iterable[bytes]) -> str:
    """Return the SHA-256 of bytes that come in pieces, as hexadecimal digits."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def file_sha256(path: str | PathLike[str]) -> str:
    """Return the SHA-256 of a file, as `sha256sum` prints it.

    Raises:
        OSError: the file cannot be read.
    """
    return file_digest(path, "sha256")


def file_digest(path: str | PathLike[str], name: str) -> str:
    """Return a hash of a file, by its name in `hashlib`, as hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, name).hexdigest()


def fingerprint(*values: Any) -> str:
    """Return a SHA-256 of values, which differs if any of them does.

    Args:
        values: texts, numbers, None, and dicts and lists of them, of which the order of a dict's
            keys does not matter; arrays, and lists of arrays, by shape, type and content. Anything
            else counts by its text.
    """
    return sha256(chunk for value in values for chunk in _chunks(value))


def _chunks(value: Any) -> Iterable[bytes]:
    if isinstance(value, np.ndarray):
        yield str((value.shape, value.dtype)).encode()
        yield np.ascontiguousarray(value).tobytes()
    elif isinstance(value, list) and value and isinstance(value[0], np.ndarray):
        for array in value:
            yield from _chunks(array)
    else:
        yield json.dumps(value, sort_keys=True, default=str).encode() + b"\n"
