"""Keras callbacks for detectors."""

import keras

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation.coco import CocoScores
from rcnn_keras.training.scoring import evaluate


class CocoEvaluation(keras.callbacks.Callback):
    """Score the model on a dataset after each epoch, in COCO average precision.

    Puts `val_AP` (IoU 0.50 to 0.95), `val_AP50`, `val_AP75` and `val_AP/<class>` into the logs, so
    that `History`, the progress bar, `EarlyStopping(monitor="val_AP")`, `ModelCheckpoint`,
    `TensorBoard` and `CSVLogger` see them. `fit` runs it before those.

    Args:
        dataset: images with ground truth, of the model's classes.
        batch_size: images that run together.
        every: score after the first epoch and then every so many; in between the last scores
            stand, so that callbacks that watch them always find a value.

    Attributes:
        scores: the `CocoScores` of the last evaluation.

    Raises:
        ValueError: before training, if the dataset's classes are not the model's.
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

    def on_train_begin(self, logs=None):
        """Compare the classes before any work is done."""
        if tuple(self.dataset.classes) != tuple(self.model.classes):
            raise ValueError(
                f"CocoEvaluation: the dataset's classes {list(self.dataset.classes)} are not the "
                f"model's {list(self.model.classes)}"
            )

    def on_epoch_end(self, epoch, logs=None):
        """Score, and write the scores into `logs`."""
        if self.scores is None or (epoch + 1) % self.every == 0:
            self.scores = evaluate(self.model, self.dataset, batch_size=self.batch_size).scores
        if self.scores is not None and logs is not None:
            scores = self.scores.summary()
            kept = ("AP", "AP50", "AP75", *(f"AP/{name}" for name in self.dataset.classes))
            logs.update({f"val_{name}": scores[name] for name in kept})
