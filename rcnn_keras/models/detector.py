"""What the detectors of the family share: one Keras model to train, score, save and detect with.

B images a batch, N ground-truth boxes, D detections, K classes; see `Detector` for the inputs.
"""

import importlib
import os
from collections.abc import Iterator
from os import PathLike
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.images import resized_size
from rcnn_keras.data.inputs import Images, Proposals, unlabelled, with_given_proposals
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.data.value_range import ValueRange
from rcnn_keras.losses import mean_over_batch
from rcnn_keras.models.batch import (
    complete_inputs,
    complete_targets,
    ensure_nonempty,
    pad_to_common_shape,
)
from rcnn_keras.models.batch_check import checked
from rcnn_keras.models.distribution import pipeline, predict_in_turn
from rcnn_keras.models.errors import NON_FINITE, plain_errors
from rcnn_keras.models.fitting import resumed, scores_first
from rcnn_keras.models.inference import predictions
from rcnn_keras.models.keras_internals import (
    ReplicatedTraining,
    apply_summed_gradients,
    loss_tracker,
)
from rcnn_keras.models.keras_model import KerasModel, check_process, refuse
from rcnn_keras.models.saving import WholeFiles
from rcnn_keras.ops import after, check_finite, num_replicas, scoped_gradients, sum_over_replicas


class Detector(ReplicatedTraining, WholeFiles, KerasModel, keras.Model):
    """A Keras model from images to detections, functional at inference.

    Inputs are `{"images" (B, H, W, 3) RGB 0..255, "image_sizes" (B, 2) int32, "image_ids" (B,)}`;
    the last two may be left out, and a plain array of images is enough. Outputs are
    `{"boxes" (B, D, 4), "scores" (B, D), "labels" (B, D), "num_detections" (B,)}`, in pixels of the
    images as they came in, and for Mask R-CNN `"masks" (B, D, M, M)` in 0..1, inside the boxes.

    A subclass builds its layers, hands them to `_connect`, and writes three methods:
    `first_stage` (what runs once on the images), `second_stage` (from there to detections) and
    `losses_of` (from there to named losses).

    A detector can stand inside a functional model, `keras.Model(images, detector(images))`.
    `copy.deepcopy` copies it with its weights; `keras.models.clone_model` rebuilds its graph alone,
    a plain functional model of `images` and `image_sizes` that detects and does not train.

    Attributes:
        loss_names: of the named losses.
        takes_proposals: whether inputs have `"proposals" (B, R, 4)` in pixels of the images, and
            `"num_proposals" (B,)`, how many are real; the latter may be left out.
        min_sizes: lengths of an image's shorter side of which training draws one; `min_size` is
            that of detection.
        trained_losses: names of the losses that training adds up and logs, by default all; compile
            the model after a change.
    """

    loss_names: tuple[str, ...] = ()
    takes_proposals = False
    min_sizes: tuple[int, ...] = ()

    def _connect(self, config: dict[str, Any], name: str | None) -> None:
        """Build the functional graph, and the metrics that follow the losses."""
        inputs = {
            "images": keras.Input((None, None, 3), name="images"),
            "image_sizes": keras.Input((2,), dtype="int32", name="image_sizes"),
        }
        if self.takes_proposals:
            inputs["proposals"] = keras.Input((None, 4), name="proposals")
            inputs["num_proposals"] = keras.Input((), dtype="int32", name="num_proposals")
        outputs = self.second_stage(self.first_stage(inputs, training=False))
        super().__init__(inputs, outputs, name=name)
        self._process = os.getpid()
        # What `fit` has read of `Batches`: the sample at which the last call's epoch 0 began, and
        # how many are behind. `Checkpoint` keeps it.
        self.input_spec = None  # `call` takes more forms than the graph's own inputs
        self.classes = tuple(config["classes"])
        self.has_masks = "masks" in outputs
        self._config = keras.tree.lists_to_tuples(config)  # as a saved model gives them back
        self.value_range: ValueRange = self._config["value_range"]
        self.trained_losses = self.loss_names
        self.loss_trackers = {n: keras.metrics.Mean(name=n) for n in self.loss_names}
        # How many samples of `Batches` earlier calls of `fit` have read, None before the first;
        # and the step of the data at which the first epoch of the last `fit` began.
        self._samples_read: int | None = None
        self.data_offset = 0

    def first_stage(self, inputs: dict, training: bool) -> dict:
        """Return what both detection and losses need of the images: features and proposals."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its first stage is")

    def second_stage(self, first: dict) -> dict:
        """Return detections from the first stage's results."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its second stage is")

    def losses_of(self, first: dict, targets: dict, training: bool) -> dict[str, tuple]:
        """Return each loss as `(sum, count)` from the first stage's results."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its losses are")

    @scoped_gradients()
    def call(self, inputs, training=None):
        """Return detections; while training, the first stage's results, on which losses run."""
        inputs = complete_inputs(inputs)
        if self.takes_proposals and inputs.get("proposals") is None:
            raise ValueError(f"{type(self).__name__} needs 'proposals' beside the images")
        if training:
            return self.first_stage(inputs, training=True)
        if num_replicas() == 1:
            return super().call({k: inputs[k] for k in self.input_names}, training=False)
        inputs = ensure_nonempty(inputs)  # the last batch may have fewer images than replicas
        found = super().call({k: inputs[k] for k in self.input_names}, training=False)
        return {name: values[: inputs["num_images"]] for name, values in found.items()}

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Return the detections' shapes and types, for a functional model around the detector.

        So that `keras.Model(images, detector(images))` needs no more than the images.
        """
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor((images.shape[0], *x.shape[1:]), x.dtype), self.output
        )

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs that the functional graph reads."""
        return [tensor.name for tensor in self.inputs]

    @scoped_gradients()
    def train_step(self, data):
        """Take Keras' own step, with a look at images, loss and gradients on the way.

        ReLU turns NaN into zero, so a finite loss alone does not tell that all is well.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        x = complete_inputs(x)
        where = [self.optimizer.iterations, x["image_ids"]]
        mean = ops.mean(ops.cast(x["images"], "float32"))
        check = check_finite(mean, f"{NON_FINITE}the images are", where)
        if y is not None:
            total = ops.sum(ops.cast(y["boxes"], "float32"))
            check += check_finite(total, f"{NON_FINITE}the boxes are", where)
        x["images"] = after(check, x["images"])
        x, y = pad_to_common_shape(x, y)
        with tf.GradientTape() as tape:
            first = self(x, training=True)
            loss = self.compute_loss(x, y, first, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        self._track(loss_tracker(self), loss, x)
        weights = self.trainable_weights
        pairs = zip(tape.gradient(scaled, weights), weights, strict=True)
        gradients, weights = zip(*[pair for pair in pairs if pair[0] is not None], strict=True)
        gradients = sum_over_replicas(list(gradients))
        check = check_finite(loss, f"{NON_FINITE}the loss is", where)
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):  # it skips those
            norm = tf.linalg.global_norm(gradients)
            check += check_finite(norm, f"{NON_FINITE}the gradients are", where)
        apply_summed_gradients(self.optimizer, after(check, gradients), weights)
        return self.compute_metrics(x, y, first)

    @scoped_gradients()
    def test_step(self, data):
        """Run the first stage alone, as at inference, and the losses on it."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        x, y = pad_to_common_shape(complete_inputs(x), y)
        first = self.first_stage(x, training=False)
        self._track(loss_tracker(self), self.compute_loss(x, y, first, training=False), x)
        return self.compute_metrics(x, y, first)

    @property
    def metrics(self):
        """Keras' metrics of the model, without losses that are not trained."""
        idle = [t for name, t in self.loss_trackers.items() if name not in self.trained_losses]
        return [metric for metric in super().metrics if metric not in idle]

    def _track(self, tracker, loss, inputs):
        """Note this replica's part of a loss, in the mean over the images of an epoch."""
        images = inputs.get("mean_images", ops.shape(inputs["images"])[0])
        tracker.update_state(loss * num_replicas(), sample_weight=images)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Return the sum of the named losses of a batch, and note each in its metric.

        Args:
            x: inputs.
            y: `{"boxes" (B, N, 4), "labels" (B, N), "crowd" (B, N)}`; `crowd` may be left out.
                For masks also `"masks"`: `(B, N, H, W)` of 0 and 1, or `(B, N, H, ceil(W / 8))`
                uint8 as `numpy.packbits` packs them.
            y_pred: what `first_stage` returned.
            sample_weight: not supported; must be None.
            training: whether a gradient step follows.

        Raises:
            ValueError: without targets, or with sample weights.
        """
        if y is None or sample_weight is not None:
            raise ValueError("a detector trains on (inputs, targets) without sample weights")
        if self.has_masks and y.get("masks") is None:
            raise ValueError(
                f"{type(self).__name__} trains on masks: the targets have {sorted(y)}, no 'masks'"
            )
        targets = complete_targets(y, *ops.shape(x["images"])[1:3])
        # Keras adds the replicas' losses; one that has but a blank image adds nothing.
        real = 1.0 if "num_images" not in x else ops.cast(x["num_images"] > 0, "float32")
        losses = {
            name: mean_over_batch(real * total, real * ops.cast(count, "float32"))
            for name, (total, count) in self.losses_of(y_pred, targets, training).items()
            if name in self.trained_losses
        }
        for name, loss in losses.items():
            self._track(self.loss_trackers[name], loss, x)
        return sum(losses.values()) + sum(self.losses) / num_replicas()

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        **kwargs,
    ):
        """Train as `keras.Model.fit` does, also on `Batches`.

        `Batches` are resized by this model's `min_size`, of several each image draws one, and
        `max_size`, and read without end, so an epoch is `len(x)` steps. A callback that puts scores
        into the logs is moved before those that read them, and `monitor="val_AP"` and its kin are
        maximised. With `rk.callbacks.Checkpoint` a training that was stopped goes on.

        A second `fit` continues in the data where the first one ended, with other augmentations and
        another order, also after a new `compile`: two calls of one epoch are one call of two.

        Raises:
            NonFiniteLossError: as soon as an image, the loss or a gradient is not finite, before
                any weight is updated.
            ImageError: for an image that cannot be read; names it.
            ValueError: if the classes of the data are not those of the model.
        """
        check_process(self._process)
        refuse({name: kwargs.get(name) for name in ("sample_weight", "class_weight")})
        x = self._checked(x, y, "training data")
        first_epoch, steps = kwargs.pop("initial_epoch", 0), kwargs.get("steps_per_epoch")
        batches = None
        if isinstance(x, Batches):
            batches, shuffle = x.sized(self.min_sizes, None), False  # they are shuffled already
            x = batches = self._with_truth(batches)
            steps = kwargs["steps_per_epoch"] = steps or len(batches)
            self.data_offset = max(self._next_step(batches.batch_size) - first_epoch * steps, 0)
        elif isinstance(x, tf.data.Dataset) and steps is None and x.cardinality() > 0:
            steps = int(x.cardinality())
        steps_before = self._steps_taken()
        try:
            with (
                plain_errors(batches and batches.dataset),
                resumed(
                    self,
                    x,
                    scores_first(callbacks),
                    epochs=epochs,
                    initial_epoch=first_epoch,
                    steps=steps,
                    verbose=verbose,
                ) as (callbacks, initial_epoch, behind),
            ):
                if batches is not None:
                    start_step = self.data_offset + initial_epoch * steps + behind
                    strategy = self.distribute_strategy
                    x = pipeline(batches, strategy, repeat=True, start_step=start_step)
                return super().fit(
                    x,
                    y,
                    batch_size=batch_size,
                    epochs=epochs,
                    verbose=verbose,
                    callbacks=callbacks,
                    validation_split=validation_split,
                    validation_data=self._checked_validation(validation_data),
                    shuffle=shuffle,
                    initial_epoch=initial_epoch,
                    **kwargs,
                )
        finally:
            if batches is not None:
                done = self._steps_taken() - steps_before  # those of a checkpoint included
                first = self.data_offset + first_epoch * steps
                self._samples_read = (first + done) * batches.batch_size

    def _steps_taken(self) -> int:
        """Return how many batches the optimizer has seen."""
        if getattr(self, "optimizer", None) is None:  # not compiled, which Keras reports
            return 0
        accumulated = self.optimizer.gradient_accumulation_steps or 1
        return int(self.optimizer.iterations.numpy()) * accumulated

    def _next_step(self, batch_size: int) -> int:
        """Return the first step of this batch size whose samples no earlier `fit` has read."""
        if self._samples_read is None:  # a model from a file has the steps of its optimizer
            return self._steps_taken()
        return -(-self._samples_read // batch_size)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Return the named losses as `keras.Model.evaluate` does, also on `Batches`."""
        check_process(self._process)
        refuse({"sample_weight": kwargs.get("sample_weight")})
        with plain_errors(x.dataset if isinstance(x, Batches) else None):
            if not kwargs.get("_use_cached_eval_dataset"):  # of `fit`, which checks them itself
                x = self._checked(x, y, "data")
            return super().evaluate(self._one_pass(x), y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Return padded detections as `keras.Model.predict` does, also on `Batches`."""
        check_process(self._process)
        with plain_errors(x.dataset if isinstance(x, Batches) else None):
            if not isinstance(x, Batches):
                x = checked(self, x, source="data", targets=False)
                return super().predict(x, *args, **kwargs)
            predict = super().predict
            return predict_in_turn(self, lambda x: predict(x, *args, **kwargs), self._sized(x))

    def _checked(self, x, y, source):
        return x if isinstance(x, Batches) else checked(self, x, y, source=source)

    def _checked_validation(self, data):
        if not isinstance(data, tuple | list):
            return self._one_pass(self._checked(data, None, "validation data"))
        x, *y = data
        return (self._checked(x, y[0] if y else None, "validation data"), *y)

    def _one_pass(self, x):
        """Return the tf.data pipeline of `Batches`, and anything else as it is."""
        if isinstance(x, Batches):
            return pipeline(self._with_truth(x), self.distribute_strategy)
        return x

    def detect(
        self,
        images: Images,
        batch_size: int = 1,
        proposals: Proposals | None = None,
    ) -> list[Detections]:
        """Detect objects in image files, folders and arrays of any size.

        Args:
            images: one image or many: paths, folders (their images, sorted by name), Pillow
                images, uint8 or float arrays or tensors in 0..255 (`(H, W)`, `(H, W, 3)`,
                `(H, W, 4)`, of several `(B, H, W, C)`), lists of those; or a dataset.
            batch_size: images that run together. Images of different sizes are padded to the
                largest, which can move their boxes a little, as the padding is in reach of the
                convolutions.
            proposals: for R-CNN and Fast R-CNN, where to look: a function from an image,
                `(H, W, 3)` uint8, to `(r, 4)` boxes in its pixels; or the boxes themselves, a list
                with an entry an image or a dict by the dataset's image ids. None if the dataset's
                records have them.

        Returns:
            One `Detections` an image, in pixels of the image that was given.

        Raises:
            ImageError: for an image that cannot be read, and for what is none, such as None and
                bytes; names it.
            ValueError: for proposals that are missing or do not fit the images, or that this
                detector does not take.
        """
        return list(self.detect_each(images, batch_size, proposals))

    def detect_each(
        self,
        images: Images,
        batch_size: int = 1,
        proposals: Proposals | None = None,
    ) -> Iterator[Detections]:
        """Detect as `detect` does, but yield each image's `Detections` and keep none of them."""
        check_process(self._process)
        dataset = self.dataset_of(images, proposals)
        if len(dataset) == 0:
            return iter(())
        batches = self._sized(Batches(dataset, batch_size, max_objects=dataset.max_objects))
        found = zip(dataset, predictions(self, batches), strict=True)
        return (self._in_given_pixels(one, record) for record, one in found)

    def dataset_of(
        self,
        images: Images,
        proposals: Proposals | None = None,
    ) -> DetectionDataset:
        """Return images and proposals, in all forms that `detect` takes, as a dataset."""
        if not isinstance(images, DetectionDataset):
            images = unlabelled(images, self.classes, self.value_range)
        if proposals is None or len(images) == 0:
            return images
        if not self.takes_proposals:
            raise ValueError(f"{type(self).__name__} finds its own proposals and takes no others")
        return with_given_proposals(images, proposals, self.value_range)

    def _in_given_pixels(self, found: dict[str, np.ndarray], record) -> Detections:
        """Undo the resizing of one image's detections, and drop their padding."""
        size = (record.height, record.width)
        resized = size
        if self.min_size is not None:
            resized = resized_size(*size, self.min_size, self.max_size)
        scale = np.array([size[1] / resized[1], size[0] / resized[0]] * 2, np.float32)
        return self.as_detections(found | {"boxes": found["boxes"] * scale}, size)

    def as_detections(self, found: dict[str, np.ndarray], size: tuple[int, int]) -> Detections:
        """Return an image's padded detections, in its pixels, as `Detections`."""
        count = int(found["num_detections"])
        return Detections(
            boxes=found["boxes"][:count],
            scores=found["scores"][:count],
            labels=found["labels"][:count],
            classes=self.classes,
            image_size=size,
            masks=found["masks"][:count] if self.has_masks else None,
        )

    def _sized(self, batches: Batches) -> Batches:
        """Fill in the model's image size, and bring in the proposals that it takes."""
        sized = batches.sized(self.min_size, self.max_size).with_proposals(self.takes_proposals)
        sized.antialias = batches.antialias or self.antialias
        sized.value_range = self.value_range
        return sized

    def _with_truth(self, batches: Batches) -> Batches:
        """Return sized batches with the targets that the losses need, of the model's classes."""
        theirs = tuple(batches.dataset.classes)
        if theirs != self.classes:
            only = [c for c in theirs if c not in self.classes]
            missing = [c for c in self.classes if c not in theirs]
            raise ValueError(
                f"the data and the model have different classes: only in the data {only}, only in "
                f"the model {missing}"
                + (", the order differs" if not only and not missing else "")
                + "; load the data with classes=model.classes"
            )
        return self._sized(batches).with_masks(self.has_masks)

    def export(self, filepath: str | PathLike, format: str | None = None, **options: Any):
        """Write the detector for another program and return the path; see `rcnn_keras.export`.

        Formats are `"tf_saved_model"` (for a folder's name), `"litert"` (for `.tflite`), `"onnx"`
        (`.onnx`) and `"openvino"` (`.xml`).
        """
        # Exporting stands above the models and is fetched when asked for.
        room = importlib.import_module("rcnn_keras.export")
        return room.export(self, filepath, format, **options)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments."""
        return {**self._config, "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "Detector":
        """Rebuild the model; pre-trained weights are not fetched again, the file holds its own."""
        weights = config.get("backbone_weights")
        model = cls(**{**config, "backbone_weights": None})
        model._config["backbone_weights"] = weights
        return model
