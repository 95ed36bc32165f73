"""What every export format does first: fold batch norm, and write whole folders or none."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rcnn_keras.keras_internals import sublayers
from rcnn_keras.layers.normalization import BATCH_NORMS
from rcnn_keras.models import Detector, fold_batchnorm
from rcnn_keras.models.errors import check_process
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.output_paths import check_output_folder


def check_detector(model: Any) -> None:
    """Raise TypeError unless this is a detector of this package, RuntimeError in a fork."""
    if not isinstance(model, Detector):
        raise TypeError(f"only detectors of this package are exported; got {type(model).__name__}")
    check_process(model._process)


def folded(model: Detector, winograd: bool = False) -> Detector:
    """Return `fold_batchnorm` of a detector, or itself if there is nothing to fold."""
    if winograd or any(
        isinstance(layer, BATCH_NORMS) for layer in sublayers(model, recursive=True)
    ):
        return fold_batchnorm(model, winograd=winograd)
    return model


@contextmanager
def exported_folder(folder: Path, overwrite: bool, mark: str) -> Iterator[Path]:
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
    with atomic_write(folder) as new:
        new.mkdir()
        yield new
        check_free(folder, overwrite, mark)  # it may have come into being in the meantime


def check_free(folder: Path, overwrite: bool, mark: str) -> None:
    """Raise FileExistsError if there is something at `folder` that may not be replaced.

    Raises:
        FileExistsError: likewise.
        OSError: if nothing can be written there.
    """
    if not folder.exists():
        check_output_folder(folder)
        return
    if not overwrite:
        raise FileExistsError(f"{folder} exists: name another folder, or allow to overwrite it")
    if not (folder / mark).exists():
        raise FileExistsError(f"{folder} is not overwritten: without {mark} it is not an export")
    check_output_folder(folder)
