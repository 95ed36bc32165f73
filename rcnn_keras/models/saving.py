"""Model files that are there whole or not at all."""

from os import PathLike
from typing import Any

from rcnn_keras.utils.atomic import atomic_write


class WholeFiles:
    """Comes before `keras.Model` among the bases of a model."""

    def save(self, filepath: str | PathLike[str], overwrite: bool = True, **options: Any) -> None:
        """Save as `keras.Model.save` does; killed on the way, it leaves the file that was there.

        So does `keras.callbacks.ModelCheckpoint`, which calls this.
        """
        save: Any = super().save  # type: ignore[misc]
        if not overwrite or "://" in str(filepath):  # Keras asks before it overwrites, or uploads
            save(filepath, overwrite=overwrite, **options)
            return
        with atomic_write(filepath) as aside:
            save(aside, **options)
