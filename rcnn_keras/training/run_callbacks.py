"""The callbacks of a run of `fit`."""

from pathlib import Path

import keras

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.training.alternating import CHECKPOINTS
from rcnn_keras.training.callbacks import Checkpoint, CocoEvaluation
from rcnn_keras.training.configuration import FitConfiguration
from rcnn_keras.training.history import HistoryFile

# Of several workers the first alone has these.
WRITERS = (keras.callbacks.ModelCheckpoint, keras.callbacks.TensorBoard, HistoryFile)


def build_callbacks(
    configuration: FitConfiguration, val_set: DetectionDataset, out: Path, history: HistoryFile
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a run, in the order in which an epoch's end needs them."""
    training = configuration.training
    scoring = CocoEvaluation(val_set, every=training.evaluate_every)
    monitor = "val_mask_AP" if configuration.learns_masks else "val_AP"
    first: list[keras.callbacks.Callback] = []
    if configuration.optimizer.ema_momentum is not None:
        first.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
        first[0].writes_scores = True  # Detector.fit moves what has this to the front, in order
    best = keras.callbacks.ModelCheckpoint(
        out / "best.keras", monitor=monitor, mode="max", save_best_only=True
    )
    later = [best, keras.callbacks.ModelCheckpoint(out / "last.keras"), history]
    if training.tensorboard:
        later.append(keras.callbacks.TensorBoard(out / "tensorboard"))
    if training.early_stopping_patience is not None:
        patience = training.early_stopping_patience
        later.append(keras.callbacks.EarlyStopping(monitor, mode="max", patience=patience))
    if training.checkpoint is not None:
        later.append(Checkpoint(out / CHECKPOINTS, **training.checkpoint.model_dump()))
    return [*first, scoring, *later]
