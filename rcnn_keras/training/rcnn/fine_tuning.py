"""Stage 1: fine-tune the network as a classifier of windows (R-CNN, 2.3).

S side of a crop, K classes.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import read_image
from rcnn_keras.models import RCNN
from rcnn_keras.models.errors import plain_errors
from rcnn_keras.ops import drawing_for, warp_regions
from rcnn_keras.training.checkpoint import Checkpoint
from rcnn_keras.training.rcnn.features import image_windows

POSITIVE_IOU = 0.5
MOMENTUM = 0.9
STEPS_PER_LOG_LINE = 500
DECODED_IMAGES = 256  # kept in memory: 140 MB for those of Pascal VOC


class WindowSampler:
    """Samples batches of windows from all images, with fixed numbers of objects and background.

    A window is a positive of the class of its nearest ground truth if their IoU is at least 0.5,
    and background otherwise. The windows of a step are a function of the seed and its number.

    Args:
        dataset: images with proposals.
        positives: windows of objects per batch.
        negatives: windows of background per batch.
        seed: of the sampling.

    Raises:
        ValueError: if the dataset has no windows of objects or of background.
    """

    def __init__(
        self, dataset: DetectionDataset, positives: int = 32, negatives: int = 96, seed: int = 0
    ):
        windows = [image_windows(record, len(dataset.classes)) for record in dataset]
        self.images = np.repeat(np.arange(len(windows)), [len(w) for w in windows])
        self.boxes = np.concatenate([w.boxes for w in windows])
        self.classes = np.concatenate([w.classes(POSITIVE_IOU) for w in windows])
        self.seed = seed
        groups = (
            ("objects", np.flatnonzero(self.classes > 0), positives),
            ("background", np.flatnonzero(self.classes == 0), negatives),
        )
        for name, indices, count in groups:
            if count and not len(indices):
                raise ValueError(f"no proposal of the dataset is a window of {name}")
        self.groups = [(indices, count) for _, indices, count in groups]

    @property
    def batch_size(self) -> int:
        """Windows per batch."""
        return sum(count for _, count in self.groups)

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the windows of a step, positives first.

        Returns:
            `(n,)` int64 indices of images in the dataset, `(n, 4)` float32 boxes, and `(n,)` int32
            classes, 0 for background.
        """
        rng = np.random.default_rng((self.seed, step))
        drawn = np.concatenate([rows[rng.integers(len(rows), size=n)] for rows, n in self.groups])
        return self.images[drawn], self.boxes[drawn], self.classes[drawn]


def crop_batches(
    model: RCNN, dataset: DetectionDataset, sampler: WindowSampler, start: int = 0
) -> tf.data.Dataset:
    """Return batches of `(crops (n, S, S, 3), classes (n,))` without end, from step `start`."""
    records = list(dataset)
    crop_size, context = model.region_features.crop_size, model.region_features.context

    @lru_cache(DECODED_IMAGES)
    def read(index: int) -> np.ndarray:
        record = records[index]
        return read_image(record.image, model.value_range)

    def crop(index: tf.Tensor, box: tf.Tensor, label: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.numpy_function(lambda i: read(int(i)), [index], tf.uint8)
        image = tf.ensure_shape(image, (None, None, 3))[None]
        size = tf.shape(image)[1:3][None]
        image = model.normalize(image, size)
        return warp_regions(image, size, box[None], tf.zeros(1, tf.int32), crop_size, context)[
            0
        ], label

    def draw(step: tf.Tensor) -> tuple[tf.Tensor, ...]:
        types = (tf.int64, tf.float32, tf.int32)
        drawn = tf.numpy_function(sampler.draw, [step], types)
        shapes = ((None,), (None, 4), (None,))
        return tuple(tf.ensure_shape(x, s) for x, s in zip(drawn, shapes, strict=True))

    with tf.device("CPU:0"):
        windows = tf.data.Dataset.counter(start).map(draw).unbatch()
        crops = windows.map(crop, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        return crops.batch(sampler.batch_size, drop_remainder=True).prefetch(2)


def fine_tune(
    model: RCNN,
    dataset: DetectionDataset,
    *,
    steps: int,
    learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
    sampler: WindowSampler,
    checkpoint: Checkpoint,
    key: str,
    log: Callable[[str], None],
) -> None:
    """Train the network and its softmax of K + 1 classes by SGD with momentum 0.9.

    Interrupted and called again it resumes at the step of the last checkpoint, with the windows and
    dropout of an uninterrupted training.

    Args:
        model: whose `network` and `class_logits` are trained.
        dataset: images with proposals.
        steps: batches in all.
        learning_rate: 0.001 in the paper, a tenth of the pre-training's.
        sampler: of the windows.
        checkpoint: saves the training.
        key: fingerprint of all that the training depends on; a checkpoint of another is refused.
        log: called with lines of text.
    """
    crops = keras.Input(model.network.input_shape[1:], name="crops")
    logits = model.class_logits(model.network(crops)["fc7"])
    classifier = _Classifier(crops, logits, name="fine_tuning")
    classifier.compile(
        keras.optimizers.SGD(learning_rate, momentum=MOMENTUM),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    callbacks = [checkpoint, _LogLines(steps, log)]
    with (
        plain_errors(dataset),
        checkpoint.resumed(
            classifier, {"key": key}, callbacks, epochs=1, steps=steps, verbose=0
        ) as (callbacks, epoch, done),
    ):
        classifier.fit(
            crop_batches(model, dataset, sampler, done),
            steps_per_epoch=steps,
            initial_epoch=epoch,
            shuffle=False,
            verbose=0,
            callbacks=callbacks,
        )


class _LogLines(keras.callbacks.Callback):
    """Log the mean loss and accuracy of every 500 steps."""

    def __init__(self, steps: int, log: Callable[[str], None]):
        super().__init__()
        self.steps = steps
        self.log = log

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        done = batch + 1
        if done % STEPS_PER_LOG_LINE == 0 or done == self.steps:
            assert logs is not None  # Keras gives them after every batch
            loss, accuracy = logs["loss"], logs["accuracy"]
            self.log(f"step {done} of {self.steps}: loss {loss:.4f}, accuracy {accuracy:.4f}")
            self.model.reset_metrics()


class _Classifier(keras.Model):
    """A model whose dropout is a function of the step.

    Its accuracy is built from the start, so that a checkpoint can restore it; Keras builds the
    metrics of `compile` in the first step.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")

    def train_step(self, data: Any) -> dict[str, Any]:
        with drawing_for(None, self.optimizer.iterations):
            return super().train_step(data)

    def compute_metrics(
        self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None
    ) -> dict[str, Any]:
        self.accuracy.update_state(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)
