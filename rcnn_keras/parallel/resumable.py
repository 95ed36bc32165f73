"""Long work that goes on after a stop: results on disk, each with what it was made from.

`ResumableFolder` holds many parts of one result, which workers write; `once` keeps one result.
"""

import json
import shutil
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rcnn_keras.utils.atomic import atomic_write

HEADER = "header.json"


class ResumableFolder:
    """Where the parts of a result are kept until all are there. Each is an atomic write.

    Args:
        folder: made if it is missing.
        header: how the parts come about, as JSON can hold it.
        what: the parts, for messages: "proposals".

    Raises:
        ValueError: the folder holds parts of another header, or something else.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], what: str):
        self.folder, self.header = folder, json.loads(json.dumps(dict(header)))
        file = folder / HEADER
        if file.exists():
            found = json.loads(file.read_text("utf-8"))
            check_same_header(folder, found, self.header, what)
        elif any(not path.name.startswith(".") for path in folder.glob("*")):
            raise ValueError(f"{folder} is in the way: it holds no parts of {what}")
        else:
            with atomic_write(file) as temporary:
                temporary.write_text(json.dumps(self.header, sort_keys=True), "utf-8")

    def path(self, name: str) -> Path:
        """Return where the part of this name is, or will be."""
        return self.folder / name

    def __contains__(self, name: str) -> bool:
        """Return whether the part of this name is there."""
        return self.path(name).exists()


def remove_finished(folder: Path) -> None:
    """Remove a `ResumableFolder` whose result is written, if it is still there."""
    if (folder / HEADER).exists():
        shutil.rmtree(folder)


def check_same_header(
    path: Path, found: Mapping[str, Any], expected: Mapping[str, Any], what: str
) -> None:
    """Raise ValueError, naming `path`, for what was made in another way."""
    keys = sorted({*found, *expected})
    differ = [
        f"{key} is {found.get(key)!r}, not {expected.get(key)!r}"
        for key in keys
        if found.get(key) != expected.get(key)
    ]
    if differ:
        raise ValueError(
            f"{path} holds other {what} than those asked for: {'; '.join(differ)}. Remove it, or "
            f"name another"
        )


class Result(NamedTuple):
    """What one piece of work gives: values that JSON can hold, and arrays."""

    values: Any
    arrays: Sequence[np.ndarray] = ()


def once(path: Path, key: str, compute: Callable[[], Result], *, replace: bool = False) -> Result:
    """Return the result of some work from its file, or compute it and write the file.

    A file that was altered is reported, and computed again.

    Args:
        path: an `.npz` file; or a `.json` file, for a result without arrays.
        key: the fingerprint of all that the result depends on.
        compute: does the work.
        replace: compute the result again where the file has another key.

    Raises:
        ValueError: the file has another key, and is not to be replaced.
    """
    key_found, result = _stored(path) or (key, None)
    if key_found != key:
        if not replace:
            raise ValueError(
                f"{path} was made from other data, arguments or weights: take another folder, or "
                f"remove this one"
            )
        result = None
    if result is None:
        _store(path, key, compute())
        stored = _stored(path)
        assert stored is not None
        _, result = stored
    return result


def _store(path: Path, key: str, result: Result) -> None:
    with atomic_write(path) as temporary:
        if path.suffix == ".json":
            assert not result.arrays
            content = {"key": key, "values": result.values}
            temporary.write_text(json.dumps(content, indent=2) + "\n", "utf-8")
        else:
            texts = {"key": np.array(key), "values": np.array(json.dumps(result.values))}
            numbered: dict[str, Any] = {f"array_{i}": x for i, x in enumerate(result.arrays)}
            np.savez(temporary, **texts, **numbered)  # type: ignore[arg-type]


def _stored(path: Path) -> tuple[str, Result] | None:
    """Return the key and the result in a file; None if it is not there, or cannot be read."""
    if not path.exists():
        return None
    try:
        if path.suffix == ".json":
            content = json.loads(path.read_text("utf-8"))
            return content["key"], Result(content["values"])
        with np.load(path) as file:  # checks the sums that the file has of its members
            found = {name: file[name] for name in file.files}
            arrays = [found[f"array_{i}"] for i in range(len(found) - 2)]
            return str(found["key"]), Result(json.loads(str(found["values"])), arrays)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, EOFError) as error:
        warnings.warn(f"{path} was altered ({error}): it is computed again", stacklevel=3)
        return None
