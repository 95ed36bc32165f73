"""Checkpoints on disk: written aside and renamed, checksummed, the last few kept.

DIRECTORY/step_00000150/       after so many steps of training
    state.json      the format's version, and all that is no array
    arrays.npz      the variables
    SHA256SUMS      of both files; `sha256sum -c SHA256SUMS` checks them by hand
"""

import hashlib
import json
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np

from rcnn_keras.data.written_aside import written_aside

FORMAT = 1
STATE, ARRAYS, SUMS = "state.json", "arrays.npz", "SHA256SUMS"
PREFIX = "step_"
MARGIN = 1 << 20  # bytes beside the arrays


class CheckpointError(ValueError):
    """A checkpoint that cannot be used, or that is of another run."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        step: of training, counted from its start.
        state: all that JSON can hold.
        arrays: by name.
    """

    step: int
    state: dict[str, Any]
    arrays: dict[str, np.ndarray]


def save(directory: str | Path, saved: Saved, keep: int = 2) -> Path:
    """Write a checkpoint, and remove all but the last `keep`.

    The folder of the checkpoint appears once all of it is on disk: whoever is killed on the way
    leaves those before it as they were. One of a later step, which can only be left from a run
    that went on from an earlier one, is removed.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: it cannot be written, for instance because the disk is full; says so, and which
            checkpoint is kept.
    """
    directory = Path(directory)
    folder = directory / f"{PREFIX}{saved.step:08}"
    try:
        with written_aside(folder) as aside:
            aside.mkdir()
            state = {"format": FORMAT, "step": saved.step} | saved.state
            (aside / STATE).write_text(json.dumps(state, indent=1) + "\n", "utf-8")
            np.savez(aside / ARRAYS, **saved.arrays)  # type: ignore[arg-type]
            sums = [f"{_sum(aside / name)}  {name}\n" for name in (STATE, ARRAYS)]
            (aside / SUMS).write_text("".join(sums), "utf-8")
    except OSError as error:
        steps = ", ".join(str(step_of(path)) for path in checkpoints(directory))
        raise OSError(
            f"the checkpoint of step {saved.step} could not be written to {directory}: "
            f"{error.strerror or error}. "
            + (f"Those before it are kept: step {steps}" if steps else "There is none before it")
        ) from error
    found = checkpoints(directory)
    kept = [path for path in found if step_of(path) <= saved.step][-keep:]
    for path in found:
        if path not in kept:
            shutil.rmtree(path)
    return folder


def latest(directory: str | Path) -> Saved | None:
    """Return the last sound checkpoint, None if there is none at all.

    One that is torn or was altered is named in a warning, and the one before it is taken.

    Raises:
        CheckpointError: none is sound, or one is of a later version's format.
    """
    found = checkpoints(Path(directory))
    for folder in reversed(found):
        if (damage := damage_of(folder)) is None:
            return _read(folder)
        warnings.warn(f"{folder} {damage}; the checkpoint before it is taken", stacklevel=2)
    if found:
        raise CheckpointError(
            f"{directory}: no checkpoint is sound. Remove the folder to train from the start"
        )
    return None


def checkpoints(directory: Path) -> list[Path]:
    """Return the folders of all checkpoints, the earliest first."""
    return sorted(path for path in directory.glob(f"{PREFIX}*") if path.name[5:].isdigit())


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint's folder."""
    return int(folder.name.removeprefix(PREFIX))


def damage_of(folder: Path) -> str | None:
    """Return what is wrong with the files of a checkpoint, None if they are as they were written.

    Raises:
        OSError: a file cannot be read.
    """
    if not (folder / SUMS).is_file():
        return f"has no {SUMS}"
    lines = [line.split("  ") for line in (folder / SUMS).read_text("utf-8").splitlines()]
    if [line[1:] for line in lines] != [[STATE], [ARRAYS]]:
        return f"is torn or was altered: {SUMS}"
    for stated, name in lines:
        if not (folder / name).is_file():
            return f"has no {name}"
        if _sum(folder / name) != stated:
            return f"is torn or was altered: {name}"
    return None


def prepare(directory: str | Path, size: int) -> None:
    """Make the folder, remove what a killed run was writing, and look whether there is room.

    Args:
        directory: of the checkpoints.
        size: of one checkpoint in bytes, which must fit beside those that are there.

    Raises:
        OSError: the folder cannot be made or written to, or the disk is too full.
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


def differences(then: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """Return a text for each key whose value is not what it was."""
    found = []
    for key in dict.fromkeys((*then, *now)):
        a, b = then.get(key), now.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            found += differences(a, b, f"{path}{key}.")
        elif a != b:
            digests = isinstance(a, str) and a.startswith("sha256:")
            found.append(f"{path}{key}" + (" changed" if digests else f" was {a!r}, is {b!r}"))
    return found


def _read(folder: Path) -> Saved:
    state = json.loads((folder / STATE).read_text("utf-8"))
    if state["format"] != FORMAT:
        raise CheckpointError(
            f"{folder} has format {state['format']}; this version reads format {FORMAT}"
        )
    with np.load(folder / ARRAYS, allow_pickle=False) as file:
        return Saved(state["step"], state, {name: file[name] for name in file.files})


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
