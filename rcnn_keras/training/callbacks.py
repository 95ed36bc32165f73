"""Keras callbacks for detectors."""

import keras

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation.coco import CocoScores


class CocoEvaluation(keras.callbacks.Callback):
    """Score the model on a dataset after each epoch, in COCO average precision.

    Puts `val_AP` (IoU 0.50 to 0.95), `val_AP50`, `val_AP75` and `val_AP/<class>` into the logs, so
    that `History`, the progress bar, `EarlyStopping(monitor="val_AP")`, `ModelCheckpoint`,
    `TensorBoard` and `CSVLogger` see them. `fit` runs it before those.

    Args:
        dataset: images with ground truth, of the model's classes.
        batch_size: images that run together.
        every: score after every so many epochs; in between the last scores stand, so that
            callbacks that watch them find a value from the first scoring on.
        max_detections: detections that count an image; the model's own number by default.

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
        max_detections: int | None = None,
    ):
        super().__init__()
        self.dataset = dataset
        self.batch_size = batch_size
        self.every = every
        self.max_detections = max_detections
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
        if (epoch + 1) % self.every == 0:
            self.scores = self.evaluate()
        if self.scores is not None and logs is not None:
            scores = self.scores.summary()
            kept = ("AP", "AP50", "AP75", *(f"AP/{name}" for name in self.dataset.classes))
            logs.update({f"val_{name}": scores[name] for name in kept})

    def evaluate(self) -> CocoScores:
        """Detect in every image of the dataset, and score."""
        found = self.model.detect(self.dataset, batch_size=self.batch_size)
        detections = {r.image_id: d for r, d in zip(self.dataset, found, strict=True)}
        count = self.max_detections or self.model.detection_layer.max_detections
        return CocoScores(self.dataset, detections, count)
