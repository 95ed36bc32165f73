"""The numbers of each epoch in a CSV file."""

import csv
import math
from pathlib import Path

import keras

from rcnn_keras.data.written_aside import written_aside


class HistoryFile(keras.callbacks.Callback):
    """Write `epoch` (from 1) and all logs of each epoch into a CSV file, after every epoch.

    Keras' CSVLogger fixes its columns in the first epoch, where a score that is taken every few
    epochs is not there yet. Here the file is written anew, with a column for all that was logged.

    Args:
        path: the file.
        resumes: keep the epochs that the file has from before.
    """

    def __init__(self, path: str | Path, *, resumes: bool = False):
        super().__init__()
        self.path = Path(path)
        self.rows: dict[int, dict[str, float]] = {}
        if resumes and self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
                    values = {name: float(text) for name, text in row.items() if text}
                    self.rows[int(row["epoch"])] = values | {"epoch": int(row["epoch"])}

    def columns(self) -> dict[str, list[float]]:
        """Return a list for each column but the epoch, NaN where an epoch has no value."""
        return {
            name: [row.get(name, math.nan) for row in self.rows.values()]
            for name in self._names()
            if name != "epoch"
        }

    def on_epoch_end(self, epoch, logs=None):
        """Add the epoch's row."""
        self.rows[epoch + 1] = {"epoch": epoch + 1, **(logs or {})}
        with (
            written_aside(self.path) as aside,
            aside.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self._names())
            writer.writeheader()
            writer.writerows(self.rows.values())

    def get_state(self):
        """Return the rows, for a checkpoint."""
        return list(self.rows.values())

    def set_state(self, state):
        """Take them back."""
        self.rows = {row["epoch"]: row for row in state}

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))
