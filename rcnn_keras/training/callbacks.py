"""Keras callbacks for detectors: COCO scores after an epoch, checkpoints, a CSV history."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.pipeline import check_same_keypoints, require_keypoints
from rcnn_keras.evaluation import CocoScores, VocScores, check_segmentations
from rcnn_keras.evaluation.keypoints import check_keypoints_there
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

    Puts `val_AP` (IoU 0.50 to 0.95), `val_AP50`, `val_AP75` and `val_AP/<class>` into the logs, for
    models with masks the same names with `val_mask_`, and for those with keypoints with
    `val_keypoint_`, so that `History`, the progress bar, `EarlyStopping(monitor="val_AP")`,
    `ModelCheckpoint`, `TensorBoard` and `CSVLogger` see them. `fit` runs it before those.

    Args:
        dataset: images with ground truth, of the model's classes.
        batch_size: images per forward pass.
        every: score after the first epoch and then after every `every` epochs; in between the last
            scores are logged again, so that callbacks that monitor them always find a value.
        keypoint_sigmas: of OKS, one a keypoint, see `evaluation.keypoint_sigmas`.

    Attributes:
        scores: the `CocoScores` of the last evaluation, None before the first in this process.
        mask_scores: those of its masks, None for a model without masks.
        keypoint_scores: those of its keypoints, None for a model without keypoints.

    Raises:
        ValueError: before training, if the dataset's classes are not the model's, or the model
            predicts masks and an object has none, or keypoints and the dataset has none or others.

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
        keypoint_sigmas: Sequence[float] | None = None,
    ):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.every = every
        self.keypoint_sigmas = keypoint_sigmas
        self.scores: CocoScores | None = None
        self.mask_scores: CocoScores | None = None
        self.keypoint_scores: CocoScores | None = None
        self._logged: dict[str, float] = {}

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Check classes, masks and keypoints before any work is done."""
        if tuple(self.dataset.classes) != tuple(self.model.classes):
            raise ValueError(
                f"CocoEvaluation: the dataset's classes {list(self.dataset.classes)} are not the "
                f"model's {list(self.model.classes)}"
            )
        check_truth(self.model, self.dataset)
        warn_unscorable(self.model, self.dataset)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Compute the scores and write them into `logs`."""
        if not self._logged or (epoch + 1) % self.every == 0:
            found = coco_scores(
                self.model,
                self.dataset,
                batch_size=self.batch_size,
                keypoint_sigmas=self.keypoint_sigmas,
            )
            self.scores = found[BOXES]
            self.mask_scores, self.keypoint_scores = found.get(MASKS), found.get(KEYPOINTS)
            scores = summary_of(found)
            names = ("AP", "AP50", "AP75", *(f"AP/{name}" for name in self.dataset.classes))
            names = tuple(f"{prefix}{name}" for prefix in found for name in names)
            self._logged = {f"val_{name}": scores[name] for name in names if name in scores}
        if logs is not None:
            logs.update(self._logged)

    def get_state(self) -> Any:
        """Return the last scores that were logged, for a checkpoint."""
        return self._logged

    def set_state(self, state: Any) -> None:
        """Restore the scores."""
        self._logged = state


# What scores are of, as the prefix of their names, and `kind` of `CocoScores`.
BOXES, MASKS, KEYPOINTS = "", "mask_", "keypoint_"
KINDS: dict[str, Literal["bbox", "segm", "keypoints"]] = {
    BOXES: "bbox",
    MASKS: "segm",
    KEYPOINTS: "keypoints",
}


def scored(model: Detector) -> tuple[str, ...]:
    """Return what can be scored of a detector's detections: some of `KINDS`, boxes first."""
    has = {BOXES: True, MASKS: model.has_masks, KEYPOINTS: model.skeleton is not None}
    return tuple(prefix for prefix in KINDS if has[prefix])


def check_truth(model: Detector, dataset: DetectionDataset) -> None:
    """Raise ValueError unless a dataset has the masks or keypoints that a detector predicts."""
    if model.has_masks:
        check_segmentations(dataset)
    if model.skeleton is not None:
        check_same_keypoints(model.skeleton, require_keypoints(dataset))
        check_keypoints_there(dataset)


def summary_of(scores: Mapping[str, CocoScores | VocScores]) -> dict[str, float]:
    """Return scores as one dict, with the prefix in front of their names.

    Args:
        scores: by what they are of, see `coco_scores`.
    """
    return {
        f"{prefix}{name}": value
        for prefix, part in scores.items()
        for name, value in part.summary().items()
    }


def coco_scores(
    model: Detector,
    dataset: DetectionDataset,
    *,
    batch_size: int = 1,
    keypoint_sigmas: Sequence[float] | None = None,
) -> dict[str, CocoScores]:
    """Score a detector on a dataset of its classes, without keeping all its detections.

    Args:
        model: the detector.
        dataset: images with ground truth.
        batch_size: images per forward pass.
        keypoint_sigmas: of OKS, one a keypoint, see `evaluation.keypoint_sigmas`.

    Returns:
        The scores of the boxes under `""`, and where the detector has them those of masks under
        `"mask_"` and of keypoints under `"keypoint_"`.

    Raises:
        ValueError: before any work, if the model predicts masks and an object has none, or
            keypoints and the dataset has none or others.

    Warns:
        UserWarning: as `warn_unscorable`.
    """
    check_truth(model, dataset)
    warn_unscorable(model, dataset)
    scores = {
        prefix: CocoScores(
            dataset,
            max_detections=None if prefix == KEYPOINTS else model.detection_layer.max_detections,
            kind=KINDS[prefix],
            keypoint_sigmas=keypoint_sigmas if prefix == KEYPOINTS else None,
        )
        for prefix in scored(model)
    }
    detections_of_images = model.detect_each(dataset, batch_size)
    for record, detections in zip(dataset, detections_of_images, strict=True):
        for part in scores.values():
            part.add(record.image_id, detections)
    return scores
