"""Whether there can be written, found out before the work whose results go there."""

import tempfile
from os import PathLike
from pathlib import Path

# Endings of files, which somebody who names a folder so expects to get.
OF_FILES = frozenset(
    (
        *(".json", ".html", ".htm", ".md", ".pdf", ".txt", ".csv", ".xml", ".yaml", ".yml"),
        *(".png", ".jpg", ".jpeg", ".gif", ".bmp", ".tif", ".tiff", ".webp", ".svg"),
        *(".keras", ".h5", ".hdf5", ".npz", ".npy", ".tfrecord", ".tfrecords", ".zip", ".gz"),
    )
)


def check_output_file(path: str | PathLike[str]) -> None:
    """Raise OSError, in one line, unless a file can be written at a path.

    Folders that are missing on the way are made later, by what writes.

    Raises:
        IsADirectoryError: if there is a folder.
        NotADirectoryError: if a file stands where a folder is needed.
        OSError: if nothing can be written there; says why.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder: name a file to write")
    _check(path, path.parent)


def check_output_folder(path: str | PathLike[str]) -> None:
    """Raise OSError, in one line, unless files can be written in a folder, which may be missing.

    Raises:
        NotADirectoryError: if a file stands where a folder is needed, or the name is a file's.
        OSError: if nothing can be written there; says why.
    """
    path = Path(path)
    if path.suffix.lower() in OF_FILES and not path.exists():
        raise NotADirectoryError(
            f"{path} has the ending of a file, and a folder is written: name it without"
        )
    _check(path, path)


def _check(path: Path, folder: Path) -> None:
    """Write a byte, without a name, in the nearest folder that is there."""
    try:
        while not folder.exists() and not folder.is_symlink() and folder != folder.parent:
            folder = folder.parent
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "is a broken link"
            raise NotADirectoryError(f"{path} cannot be written: {folder} {what}, not a folder")
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        if error.errno is None:
            raise
        raise type(error)(f"{path} cannot be written: {error.strerror}: {folder}") from error
