"""Keras callbacks for detectors: COCO scores after an epoch, checkpoints, a CSV history."""

import csv
import math
from pathlib import Path
from typing import Any

import keras

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation import CocoScores, VocScores, check_segmentations
from rcnn_keras.models import Detector
from rcnn_keras.models.scorable import warn_unscorable
from rcnn_keras.training.checkpoint import Checkpoint
from rcnn_keras.utils.atomic import atomic_write


class HistoryFile(keras.callbacks.Callback):
    """Write `epoch` (from 1) and all logs of each epoch into a CSV file, after every epoch.

    Keras' CSVLogger fixes its columns in the first epoch, when a score that is computed every few
    epochs may be missing. Here the file is rewritten, with a column for everything that was logged.

    Args:
        path: the file.
        resumes: keep the epochs that the file already has.
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
        """Return a list for each column except the epoch, NaN where an epoch has no value."""
        return {
            name: [row.get(name, math.nan) for row in self.rows.values()]
            for name in self._names()
            if name != "epoch"
        }

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Add the epoch's row."""
        self.rows[epoch + 1] = {"epoch": epoch + 1, **(logs or {})}
        with (
            atomic_write(self.path) as temporary,
            temporary.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, self._names())
            writer.writeheader()
            writer.writerows(self.rows.values())

    def get_state(self) -> Any:
        """Return the rows, for a checkpoint."""
        return list(self.rows.values())

    def set_state(self, state: Any) -> None:
        """Restore the rows."""
        self.rows = {row["epoch"]: row for row in state}

    def _names(self) -> list[str]:
        return list(dict.fromkeys(name for row in self.rows.values() for name in row))


__all__ = ["Checkpoint", "CocoEvaluation"]


class CocoEvaluation(keras.callbacks.Callback):
    """Score the model on a dataset after each epoch, in COCO average precision.

    Puts `val_AP` (IoU 0.50 to 0.95), `val_AP50`, `val_AP75` and `val_AP/<class>` into the logs, and
    for models with masks the same names with `val_mask_`, so that `History`, the progress bar,
    `EarlyStopping(monitor="val_AP")`, `ModelCheckpoint`, `TensorBoard` and `CSVLogger` see them.
    `fit` runs it before those.

    Args:
        dataset: images with ground truth, of the model's classes.
        batch_size: images per forward pass.
        every: score after the first epoch and then after every `every` epochs; in between the last
            scores are logged again, so that callbacks that monitor them always find a value.

    Attributes:
        scores: the `CocoScores` of the last evaluation, None before the first in this process.
        mask_scores: those of its masks, None for a model without masks.

    Raises:
        ValueError: before training, if the dataset's classes are not the model's, or the model
            predicts masks and an object has none.

    Warns:
        UserWarning: before training, if the dataset has no object to find, or images with more
            objects than the model keeps detections.
    """

    writes_scores = True

    def __init__(
        self,
        dataset: DetectionDataset,
        batch_size: int = 1,
        every: int = 1,
    ):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.every = every
        self.scores: CocoScores | None = None
        self.mask_scores: CocoScores | None = None
        self._logged: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check the classes and the masks before any work is done."""
        if tuple(self.dataset.classes) != tuple(self.model.classes):
            raise ValueError(
                f"CocoEvaluation: the dataset's classes {list(self.dataset.classes)} are not the "
                f"model's {list(self.model.classes)}"
            )
        if self.model.has_masks:
            check_segmentations(self.dataset)
        warn_unscorable(self.model, self.dataset)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compute the scores and write them into `logs`."""
        if not self._logged or (epoch + 1) % self.every == 0:
            self.scores, self.mask_scores = coco_scores(
                self.model, self.dataset, batch_size=self.batch_size
            )
            scores = summary_of(self.scores, self.mask_scores)
            names = ("AP", "AP50", "AP75", *(f"AP/{name}" for name in self.dataset.classes))
            names += tuple(f"mask_{name}" for name in names)
            self._logged = {f"val_{name}": scores[name] for name in names if name in scores}
        if logs is not None:
            logs.update(self._logged)

    def get_state(self) -> Any:
        """Return the last scores that were logged, for a checkpoint."""
        return self._logged

    def set_state(self, state: Any) -> None:
        """Restore the scores."""
        self._logged = state


def summary_of(
    scores: CocoScores | VocScores, mask_scores: CocoScores | VocScores | None
) -> dict[str, float]:
    """Return scores of boxes and, named `mask_..`, of masks as one dict."""
    masks = mask_scores.summary() if mask_scores else {}
    return scores.summary() | {f"mask_{name}": value for name, value in masks.items()}


def coco_scores(
    model: Detector, dataset: DetectionDataset, *, batch_size: int = 1
) -> tuple[CocoScores, CocoScores | None]:
    """Score a detector on a dataset of its classes, without keeping all its detections.

    Args:
        model: the detector.
        dataset: images with ground truth.
        batch_size: images per forward pass.

    Returns:
        The scores of the boxes, and those of the masks, None for a detector without masks.

    Raises:
        ValueError: before any work, if the model predicts masks and an object has none.

    Warns:
        UserWarning: as `warn_unscorable`.
    """
    warn_unscorable(model, dataset)
    max_detections = model.detection_layer.max_detections
    scores = CocoScores(dataset, max_detections=max_detections)
    mask_scores = None
    if model.has_masks:
        mask_scores = CocoScores(dataset, max_detections=max_detections, kind="segm")
    detections_of_images = model.detect_each(dataset, batch_size)
    for record, detections in zip(dataset, detections_of_images, strict=True):
        scores.add(record.image_id, detections)
        if mask_scores:
            mask_scores.add(record.image_id, detections)
    return scores, mask_scores


# What was said of which dataset: a training comes back to its validation data every epoch.
