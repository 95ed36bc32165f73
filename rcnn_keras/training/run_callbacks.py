"""The callbacks of a run of `fit`."""

from collections.abc import Sequence
from pathlib import Path

import keras
from keras.callbacks import BackupAndRestore

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.training.callbacks import CocoEvaluation
from rcnn_keras.training.configuration import FitConfiguration
from rcnn_keras.training.history import HistoryFile


def build_callbacks(
    configuration: FitConfiguration, val_set: DetectionDataset, out: Path, history: HistoryFile
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a run, in the order in which an epoch's end needs them."""
    training = configuration.training
    scoring = CocoEvaluation(val_set, every=training.evaluate_every)
    monitor = "val_mask_AP" if configuration.learns_masks else "val_AP"
    first: list[keras.callbacks.Callback] = []
    if training.backup:  # the raw weights, so before the averages are swapped in
        first.append(BackupAndRestore(out / "backup", delete_checkpoint=False))
    if configuration.optimizer.ema_momentum is not None:
        first.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    for callback in first:
        callback.writes_scores = True  # Detector.fit moves what has this to the front, in order
    best = keras.callbacks.ModelCheckpoint(
        out / "best.keras",
        monitor=monitor,
        mode="max",
        save_best_only=True,
        initial_value_threshold=history.best(monitor),
    )
    later = [best, keras.callbacks.ModelCheckpoint(out / "last.keras"), history]
    if training.tensorboard:
        later.append(keras.callbacks.TensorBoard(out / "tensorboard"))
    if training.early_stopping_patience is not None:
        patience = training.early_stopping_patience
        later.append(keras.callbacks.EarlyStopping(monitor, mode="max", patience=patience))
    return [*first, scoring, *later]


class MissedEpochEnd(keras.callbacks.Callback):
    """Score and save, once the backup is restored, an epoch whose end was cut short.

    Args:
        epoch: its number, from 1.
        callbacks: of `fit`, before this one; all but the backup missed the end of the epoch.
    """

    def __init__(self, epoch: int, callbacks: Sequence[keras.callbacks.Callback]):
        super().__init__()
        self.epoch = epoch
        self.callbacks = [c for c in callbacks if not isinstance(c, BackupAndRestore)]

    def on_train_begin(self, logs=None):
        """Run the callbacks; the epoch's losses are lost."""
        epoch_logs = {}
        for callback in self.callbacks:
            callback.on_epoch_end(self.epoch - 1, epoch_logs)
