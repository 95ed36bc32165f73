"""Model files that are there whole or not at all, and models from files and presets."""

import importlib
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

from rcnn_keras.utils.atomic import atomic_write

ENDING, WEIGHTS_ENDING = ".keras", ".weights.h5"


def check_ending(path: str | PathLike[str]) -> None:
    """Raise ValueError unless a model can be saved to a file of this name, and loaded again."""
    if Path(path).suffix != ENDING:
        raise ValueError(
            f"{path}: a detector is saved to a {ENDING} file, or its weights alone by save_weights "
            f"to a {WEIGHTS_ENDING} file; no other can be loaded again"
        )


class WholeFiles:
    """Comes before `keras.Model` among the bases of a model."""

    def save(self, filepath: str | PathLike[str], overwrite: bool = True, **options: Any) -> None:
        """Save as `keras.Model.save` does; killed on the way, it leaves the file that was there.

        So does `keras.callbacks.ModelCheckpoint`, which calls this.

        Raises:
            ValueError: unless the file's name ends in `.keras`.
        """
        check_ending(filepath)
        save: Any = super().save  # type: ignore[misc]
        if not overwrite or "://" in str(filepath):  # Keras asks before it overwrites, or uploads
            save(filepath, overwrite=overwrite, **options)
            return
        with atomic_write(filepath) as aside:
            save(aside, **options)

    @classmethod
    def from_preset(
        cls,
        preset: str | PathLike[str],
        *,
        classes: Sequence[str] | None = None,
        num_classes: int | None = None,
        cache: str | PathLike[str] | None = None,
        **arguments: Any,
    ) -> Self:
        """Return a detector of this class with trained weights; see `presets.from_preset`.

        Args:
            preset: a name that `models.list_presets` has, or the path of a `.keras` file.
            classes: class names, without the background; default those of the weights.
            num_classes: K, for the classes "1" .. "K".
            cache: folder for what is fetched.
            **arguments: of the constructor, instead of those that the weights were trained with.

        Raises:
            ValueError: for an unknown name, and for arguments or weights of another class that do
                not fit.
            OSError: if a file is missing or cannot be fetched.
        """
        # Presets stand above the models and are fetched when asked for.
        presets = importlib.import_module("rcnn_keras.presets")
        abstract = "_connect" in vars(cls)  # `Detector` itself, which stands for them all
        return presets.from_preset(
            preset,
            classes=classes,
            num_classes=num_classes,
            architecture=None if abstract else cls,
            cache=cache,
            **arguments,
        )
