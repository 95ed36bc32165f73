"""Folders that are there whole or not at all."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(folder: Path, overwrite: bool, mark: str) -> Iterator[Path]:
    """Give a new folder to write to, which takes its name and place when the block ends well.

    Args:
        folder: to be written.
        overwrite: replace an earlier one.
        mark: a file by which an earlier one is known; nothing else is replaced.

    Raises:
        FileExistsError: if something is there that may not be replaced.
        OSError: if the folder cannot be written; names it.
    """
    check_free(folder, overwrite, mark)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder.parent) as aside:
        new, old = Path(aside, "new"), Path(aside, "old")
        new.mkdir()
        yield new
        check_free(folder, overwrite, mark)  # it may have come into being in the meantime
        if folder.exists():
            folder.rename(old)
        try:
            new.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise


def check_free(folder: Path, overwrite: bool, mark: str) -> None:
    """Raise FileExistsError if there is something at `folder` that may not be replaced."""
    if not folder.exists():
        return
    if not overwrite:
        raise FileExistsError(f"{folder} exists: name another folder, or allow to overwrite it")
    if not (folder / mark).exists():
        raise FileExistsError(f"{folder} is not overwritten: it has no {mark}, so it is no export")
