"""Files and folders that are there whole or not at all."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def atomic_write(path: str | PathLike[str]) -> Iterator[Path]:
    """Give a path to write to, which takes the place of `path` once the block is through.

    It has the same name, in a hidden folder beside `path`, so that the endings that Keras and NumPy
    look at stay, and the last step is a renaming. A program that is killed on the way leaves what
    was there before, and the hidden folder; after an exception the hidden folder is removed too.

    Args:
        path: of a file or a folder, which is replaced if it is there; its parents are made.

    Yields:
        Where to write the file, or to make the folder.

    Raises:
        FileNotFoundError: the block wrote nothing.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        temporary = Path(folder, path.name)
        yield temporary
        _to_disk(temporary)
        old = Path(folder, f"{path.name}.old")
        if path.is_dir():  # nothing can be renamed to a folder that is not empty
            path.rename(old)
        try:
            temporary.replace(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        _sync(path.parent)


def _to_disk(path: Path) -> None:
    """Wait until a file, or a folder with all that is in it, has left the system's buffers."""
    for each in (path, *path.rglob("*")):
        _sync(each)


def _sync(path: Path) -> None:
    """Wait for a file's bytes, or for the names that a folder holds."""
    folder = path.is_dir()
    if folder and os.name == "nt":
        return  # Windows opens no folders
    opened = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(opened)
    except OSError as error:
        if not folder or error.errno != errno.EINVAL:  # some network disks do not wait for names
            raise
    finally:
        os.close(opened)
