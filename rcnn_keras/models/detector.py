"""What the detectors of the family share: one Keras model to train, score, save and detect with.

B images a batch, N ground-truth boxes, D detections, K classes; see `Detector` for the inputs.
"""

import functools
import importlib
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, Self

import keras
import tensorflow as tf
from keras import ops

from rcnn_keras.data.keypoints import Skeleton
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.keras_internals import (
    CALLED_BY_FIT,
    ReplicatedTraining,
    apply_summed_gradients,
    in_hdf5_format,
)
from rcnn_keras.losses import Losses, mean_over_batch
from rcnn_keras.models.batch import (
    complete_inputs,
    complete_targets,
    ensure_nonempty,
    pad_to_common_shape,
)
from rcnn_keras.models.batch_check import check_call, check_records, checked
from rcnn_keras.models.distribution import pipeline
from rcnn_keras.models.errors import (
    HOW_TO_SAVE,
    NON_FINITE,
    check_ending,
    check_process,
    plain_errors,
    refuse_arguments,
)
from rcnn_keras.models.inference import Inference
from rcnn_keras.models.scorable import warn_unlearnable
from rcnn_keras.ops import after, check_finite, num_replicas, scoped_gradients, sum_over_replicas
from rcnn_keras.ops.types import Tensor
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.output_paths import check_output_folder


class Detector(ReplicatedTraining, Inference):
    """A Keras model from images to detections, functional at inference.

    Inputs are `{"images" (B, H, W, 3) RGB 0..255, "image_sizes" (B, 2) int32, "image_ids" (B,)}`;
    the last two may be left out, and a plain array of images is enough. Outputs are
    `{"boxes" (B, D, 4), "scores" (B, D), "labels" (B, D), "num_detections" (B,)}`, in pixels of the
    images as they came in, for Mask R-CNN also `"masks" (B, D, M, M)` in 0..1, inside the boxes,
    and for Keypoint R-CNN `"keypoints" (B, D, P, 3)` in pixels, with a score.

    A subclass builds its layers, hands them to `_connect`, and writes three methods:
    `extract_features` (what runs once on the images), `detections_of` (from there to detections)
    and `losses_of` (from there to named losses).

    A detector can stand inside a functional model, `keras.Model(images, detector(images))`.
    `copy.deepcopy` copies it with its weights; `keras.models.clone_model` rebuilds its graph alone,
    a plain functional model of `images` and `image_sizes` that detects and does not train.

    Attributes:
        loss_names: of the named losses.
        takes_proposals: whether inputs have `"proposals" (B, R, 4)` in pixels of the images, and
            `"num_proposals" (B,)`, how many are real; the latter may be left out.
        min_sizes: lengths of an image's shorter side of which training draws one; `min_size` is
            that of detection.
        skeleton: the keypoints that the detector finds, None if it finds none.
        trained_losses: names of the losses that training adds up and logs, by default all; compile
            the model after a change.
    """

    loss_names: tuple[str, ...] = ()
    takes_proposals = False
    min_sizes: tuple[int, ...] = ()
    detection_layer: keras.layers.Layer
    skeleton: Skeleton | None = None

    def _connect(self, config: dict[str, Any], name: str | None) -> None:
        """Build the functional graph, and the metrics that follow the losses."""
        inputs = {
            "images": keras.Input((None, None, 3), name="images"),
            "image_sizes": keras.Input((2,), dtype="int32", name="image_sizes"),
        }
        if self.takes_proposals:
            inputs["proposals"] = keras.Input((None, 4), name="proposals")
            inputs["num_proposals"] = keras.Input((), dtype="int32", name="num_proposals")
        outputs = self.detections_of(self.extract_features(inputs, training=False))
        super().__init__(inputs, outputs, name=name)
        self._process = os.getpid()
        _warn_slow_precision(self.dtype_policy.name)
        self.input_spec = None  # `call` takes more forms than the graph's own inputs
        self.classes = tuple(config["classes"])
        self.has_masks = "masks" in outputs
        self._config = keras.tree.lists_to_tuples(config)  # as a saved model gives them back
        self.value_range = self._config["value_range"]
        self.trained_losses = self.loss_names
        self.loss_trackers = {n: keras.metrics.Mean(name=n) for n in self.loss_names}
        # How many samples of `Batches` earlier calls of `fit` have read, None before the first;
        # and the step of the data at which the first epoch of the last `fit` began.
        self._samples_read: int | None = None
        self.data_offset = 0

    def extract_features(self, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
        """Return what both detection and losses need of the images: features and proposals."""
        raise NotImplementedError(f"{type(self).__name__} has no method extract_features")

    def detections_of(self, extracted: dict[str, Any]) -> dict[str, Any]:
        """Return detections from what `extract_features` returned."""
        raise NotImplementedError(f"{type(self).__name__} has no method detections_of")

    def refine_proposals(self, extracted: dict[str, Any]) -> dict[str, Any]:
        """Return `extracted` as the last stage reads it; only a cascade has stages before it."""
        return extracted

    def select_detections(
        self, extracted: dict[str, Any], logits: Tensor, deltas: Tensor
    ) -> dict[str, Any]:
        """Return detections from the class logits and deltas of the proposals, for all classes."""
        rois, count = extracted["proposals"], extracted["num_proposals"]
        return self.detection_layer(logits, deltas, rois, count, extracted["image_sizes"])

    def losses_of(
        self, extracted: dict[str, Any], targets: dict[str, Any], training: bool
    ) -> Losses:
        """Return each loss as `(sum, count)`, likewise."""
        raise NotImplementedError(f"{type(self).__name__} has no method losses_of")

    @scoped_gradients()
    def call(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Return detections; while training, what `extract_features` returns, for the losses.

        Raises:
            BatchError: for inputs of another form; called eagerly without `training`, also for
                images in another range than 0..255.
        """
        check_process(self._process)
        check_call(self, inputs, values=not training)
        inputs = complete_inputs(inputs)
        if training:
            return self.extract_features(inputs, training=True)
        if num_replicas() == 1:
            return super().call({k: inputs[k] for k in self.input_names}, training=False)
        inputs = ensure_nonempty(inputs)  # the last batch may have fewer images than replicas
        found = super().call({k: inputs[k] for k in self.input_names}, training=False)
        return {name: values[: inputs["num_images"]] for name, values in found.items()}

    def compute_output_spec(self, inputs: Any, training: bool | None = None) -> dict[str, Any]:
        """Return the detections' shapes and types, for a functional model around the detector.

        So that `keras.Model(images, detector(images))` needs no more than the images.

        Raises:
            BatchError: for inputs of another form.
        """
        check_call(self, inputs, values=False)
        images = inputs["images"] if isinstance(inputs, dict) else inputs
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor((images.shape[0], *x.shape[1:]), x.dtype), self.output
        )

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs that the functional graph reads."""
        return [tensor.name for tensor in self.inputs]

    @scoped_gradients()
    def train_step(self, data: Any) -> dict[str, Any]:
        """Take a gradient step, after checks that images, boxes, loss and gradients are finite.

        ReLU turns NaN into zero, so a finite loss alone does not prove that all is well.
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
            extracted = self(x, training=True)
            loss = self.compute_loss(x, y, extracted, sample_weight, training=True)
            scaled = self.optimizer.scale_loss(loss)
        self._track(self._loss_metric(), loss, x)
        weights = self.trainable_weights
        pairs = zip(tape.gradient(scaled, weights), weights, strict=True)
        gradients, weights = zip(*[pair for pair in pairs if pair[0] is not None], strict=True)
        gradients = sum_over_replicas(gradients)
        check = check_finite(loss, f"{NON_FINITE}the loss is", where)
        if not isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):  # it skips those
            norm = tf.linalg.global_norm(gradients)
            check += check_finite(norm, f"{NON_FINITE}the gradients are", where)
        apply_summed_gradients(self.optimizer, after(check, gradients), weights)
        return self.compute_metrics(x, y, extracted)

    @scoped_gradients()
    def test_step(self, data: Any) -> dict[str, Any]:
        """Extract features as at inference, and compute the losses on them."""
        x, y, _ = keras.utils.unpack_x_y_sample_weight(data)
        x, y = pad_to_common_shape(complete_inputs(x), y)
        extracted = self.extract_features(x, training=False)
        loss = self.compute_loss(x, y, extracted, training=False)
        self._track(self._loss_metric(), loss, x)
        return self.compute_metrics(x, y, extracted)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        """Keras' metrics of the model, without losses that are not trained."""
        idle = [t for name, t in self.loss_trackers.items() if name not in self.trained_losses]
        return [metric for metric in super().metrics if metric not in idle]

    def _loss_metric(self) -> keras.metrics.Metric:
        """Return the metric `loss` of a compiled model."""
        return next(metric for metric in self.metrics if metric.name == "loss")

    def _track(
        self, tracker: keras.metrics.Metric, loss: Tensor, inputs: dict[str, Tensor]
    ) -> None:
        """Update the mean of a loss over an epoch's images by this replica's part."""
        images = inputs.get("mean_images", ops.shape(inputs["images"])[0])
        tracker.update_state(loss * num_replicas(), sample_weight=images)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """Return the sum of the named losses of a batch, and update the metric of each.

        Args:
            x: inputs.
            y: `{"boxes" (B, N, 4), "labels" (B, N), "crowd" (B, N)}`; `crowd` may be left out.
                For masks also `"masks"`: `(B, N, H, W)` of 0 and 1, or `(B, N, H, ceil(W / 8))`
                uint8 as `numpy.packbits` packs them. For keypoints also `"keypoints"`
                `(B, N, P, 3)`: x, y and visibility.
            y_pred: what `extract_features` returned.
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
        if self.skeleton is not None and y.get("keypoints") is None:
            raise ValueError(
                f"{type(self).__name__} trains on keypoints: the targets have {sorted(y)}, no "
                f"'keypoints'"
            )
        targets = complete_targets(y, *ops.shape(x["images"])[1:3])
        # Keras adds the replicas' losses; one that has only a blank image adds nothing.
        real = 1.0 if "num_images" not in x else ops.cast(x["num_images"] > 0, "float32")
        losses = {
            name: mean_over_batch(real * total, real * ops.cast(count, "float32"))
            for name, (total, count) in self.losses_of(y_pred, targets, training).items()
            if name in self.trained_losses
        }
        for name, loss in losses.items():
            self._track(self.loss_trackers[name], loss, x)
        return sum(losses.values()) + sum(self.losses) / num_replicas()

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **options: Any,
    ) -> None:
        """Compile as `keras.Model.compile` does, with an optimizer and without losses and metrics.

        Raises:
            ValueError: for losses, metrics and their weights; says what to do instead.
        """
        refuse_arguments(
            {
                "loss": loss,
                "loss_weights": loss_weights,
                "metrics": metrics,
                "weighted_metrics": weighted_metrics,
            }
        )
        super().compile(optimizer, **options)

    def compile_from_config(self, config: dict[str, Any]) -> None:
        """Compile as a saved model was, and make the optimizer's variables."""
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.built:
            self.optimizer.build(self.trainable_variables)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Train as `keras.Model.fit` does, also on `Batches`.

        `Batches` are resized by this model's `min_size`, of several each image draws one, and
        `max_size`, and read without end, so an epoch is `len(x)` steps. A callback that puts scores
        into the logs is moved before those that read them, and `monitor="val_AP"` and other scores
        are maximised. With `rk.callbacks.Checkpoint` a training that was stopped goes on.

        A second `fit` continues in the data where the first one ended, with other augmentations and
        another order, also after a new `compile`: two calls of one epoch are one call of two.

        Raises:
            NonFiniteLossError: as soon as an image, the loss or a gradient is not finite, before
                any weight is updated.
            ImageError: for an image that cannot be read; names it.
            BatchError: for data that a detector cannot train on; says where and why.
            ValueError: if the classes of the data are not those of the model, or the keypoints.

        Warns:
            UserWarning: once for a dataset, if an image of `Batches` has more objects than
                `box_detections_per_img`, or if they have none but crowd regions; and of what is
                suspicious in the first batch of other data.
        """
        check_process(self._process)
        refuse_arguments({name: kwargs.get(name) for name in ("sample_weight", "class_weight")})
        x = self._checked(x, y, "training data")
        first_epoch: int = kwargs.pop("initial_epoch", 0)
        steps: Any = kwargs.get("steps_per_epoch")
        batches = None
        if isinstance(x, Batches):
            warn_unlearnable(self, x.dataset)
            shuffle = False  # they are shuffled already
            batches = x.sized(self.min_sizes, None) if self.image_rule is None else x
            x = batches = self._with_truth(batches)
            batches.image_rule = self.training_rule or self.image_rule
            steps = kwargs["steps_per_epoch"] = steps or len(batches)
            self.data_offset = max(self._next_step(batches.batch_size) - first_epoch * steps, 0)
        elif isinstance(x, tf.data.Dataset) and steps is None and x.cardinality() > 0:
            steps = int(x.cardinality())
        steps_before, whole_epochs = self._steps_taken(), 0
        try:
            with (
                plain_errors(None if batches is None else batches.dataset),
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
                    if batches.augment is not None:
                        x = checked(self, x, source="augmented data", finite=False)
                history = super().fit(
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
                trained = getattr(history, "epoch", ())  # by their numbers
                whole_epochs = trained[-1] + 1 if trained else 0
                return history
        finally:
            if batches is not None:
                done = first_epoch * steps + self._steps_taken() - steps_before
                optimizer = getattr(self, "optimizer", None)  # none before `compile`
                if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
                    done = max(done, whole_epochs * steps)  # with the steps that it skipped
                self._samples_read = (self.data_offset + done) * batches.batch_size

    def _steps_taken(self) -> int:
        """Return how many batches the optimizer has seen, but for those that a loss scale skipped.

        Its `iterations` are whole updates alone, where gradients of several batches accumulate.
        """
        if not self.compiled or self.optimizer is None:  # which Keras reports
            return 0
        optimizer: Any = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        return next(int(v.numpy()) for v in optimizer.variables if v.name == "iteration")

    def _next_step(self, batch_size: int) -> int:
        """Return the first step of this batch size whose samples no earlier `fit` has read."""
        if self._samples_read is None:  # a model from a file has the steps of its optimizer
            return self._steps_taken()
        return -(-self._samples_read // batch_size)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Return the named losses as `keras.Model.evaluate` does, also on `Batches`."""
        check_process(self._process)
        refuse_arguments({"sample_weight": kwargs.get("sample_weight")})
        with plain_errors(x.dataset if isinstance(x, Batches) else None):
            if not kwargs.get(CALLED_BY_FIT):  # which has checked its validation data
                x = self._checked(x, y, "data")
            return super().evaluate(self._one_pass(x), y, *args, **kwargs)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Take a step as `keras.Model.train_on_batch` does, on a batch that is checked.

        Raises:
            BatchError: for a batch that a detector cannot train on.
            ValueError: for weights of images or classes.
        """
        check_process(self._process)
        refuse_arguments({"sample_weight": sample_weight, "class_weight": class_weight})
        checked(self, x, y, source="training data")
        return super().train_on_batch(x, y, return_dict=return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Return the losses as `keras.Model.test_on_batch` does, of a batch that is checked.

        Raises:
            BatchError: for a batch that a detector cannot be evaluated on.
            ValueError: for weights of images.
        """
        check_process(self._process)
        refuse_arguments({"sample_weight": sample_weight})
        checked(self, x, y, source="data")
        return super().test_on_batch(x, y, return_dict=return_dict)

    def _checked(self, x: Any, y: Any, source: str) -> Any:
        return x if isinstance(x, Batches) else checked(self, x, y, source=source)

    def _checked_validation(self, data: Any) -> Any:
        if not isinstance(data, tuple | list):
            return self._one_pass(self._checked(data, None, "validation data"))
        x, *y = data
        if len(y) > 1:
            refuse_arguments({"sample_weight": y[1]})
        return (self._checked(x, y[0] if y else None, "validation data"), *y)

    def _one_pass(self, x: Any) -> Any:
        """Return the tf.data pipeline of `Batches`, and anything else as it is."""
        if isinstance(x, Batches):
            return pipeline(self._with_truth(x), self.distribute_strategy)
        return x

    def _with_truth(self, batches: Batches) -> Batches:
        """Return sized batches with the targets that the losses need, of the model's classes."""
        check_records(batches.dataset)
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
        sized = self._sized(batches).with_masks(self.has_masks)
        return sized.with_keypoints(self.skeleton)

    def save(self, filepath: str | PathLike[str], overwrite: bool = True, **options: Any) -> None:
        """Save as `keras.Model.save` does; killed on the way, it leaves the file that was there.

        So does `keras.callbacks.ModelCheckpoint`, which calls this.

        Raises:
            ValueError: unless the file's name ends in `.keras`.
        """
        check_ending(filepath)
        if not overwrite or "://" in str(filepath):  # Keras asks before it overwrites, or uploads
            super().save(filepath, overwrite=overwrite, **options)
            return
        with atomic_write(filepath) as temporary:
            super().save(temporary, **options)

    @classmethod
    def from_preset(
        cls,
        preset: str | PathLike[str],
        *,
        classes: Sequence[str] | None = None,
        num_classes: int | None = None,
        cache: str | PathLike[str] | None = None,
        **arguments: Any,
    ) -> Self:
        """Return a detector of this class with trained weights; see `presets.from_preset`.

        Args:
            preset: a name that `models.list_presets` has, or the path of a `.keras` file.
            classes: class names, without the background; default those of the weights.
            num_classes: K, for the classes "class_0", "class_1" and so on.
            cache: folder for what is fetched.
            **arguments: of the constructor, instead of those that the weights were trained with.

        Raises:
            ValueError: for an unknown name, and for arguments or weights of another class that do
                not fit.
            OSError: if a file is missing or cannot be fetched.
        """
        # Presets stand above the models and are fetched when asked for.
        presets = importlib.import_module("rcnn_keras.presets")
        abstract = "_connect" in vars(cls)  # `Detector` itself, which stands for them all
        return presets.from_preset(
            preset,
            classes=classes,
            num_classes=num_classes,
            architecture=None if abstract else cls,
            cache=cache,
            **arguments,
        )

    def export(
        self, filepath: str | PathLike[str], format: str | None = None, **options: Any
    ) -> Path:
        """Write the detector for another program and return the path; see `rcnn_keras.export`.

        Formats are `"tf_saved_model"` (for a folder's name), `"litert"` (for `.tflite`), `"onnx"`
        (`.onnx`) and `"openvino"` (`.xml`).
        """
        # Exporting stands above the models and is fetched when asked for.
        room = importlib.import_module("rcnn_keras.export")
        return room.export(self, filepath, format, **options)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor's arguments.

        Raises:
            ValueError: if Keras asks for them for an HDF5 file, as `keras.saving.save_model` does
                for a name that ends in `.h5`.
        """
        if in_hdf5_format():
            raise ValueError(HOW_TO_SAVE)
        return {**self._config, "name": self.name}

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "Detector":
        """Rebuild the model; pre-trained weights are not fetched again, the file holds its own."""
        weights = config.get("backbone_weights")
        model = cls(**{**config, "backbone_weights": None})
        model._config["backbone_weights"] = weights
        return model


SCORE = r"val_(mask_|keypoint_)?A[PR]\w*(/.*)?"  # in the logs


def scores_first(callbacks: Any) -> Any:
    """Order callbacks so that scores are in the logs before another callback looks for them.

    Keras knows whether to maximise what a callback monitors only for its own metrics; average
    precision, the larger the better, is set here.

    Raises:
        ValueError: for a `ModelCheckpoint` whose files could not be loaded again.
        OSError: for one whose files could not be written.
    """
    for callback in callbacks if isinstance(callbacks, Sequence) else [callbacks]:
        if isinstance(callback, keras.callbacks.ModelCheckpoint) and not callback.save_weights_only:
            check_ending(callback.filepath)
            folder = Path(callback.filepath).parent
            if "{" not in str(folder):  # otherwise it is known only when an epoch ends
                check_output_folder(folder)
    if not isinstance(callbacks, Sequence):
        return callbacks
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        scores = isinstance(monitor, str) and re.fullmatch(SCORE, monitor)
        if scores and getattr(callback, "mode", None) == "auto":
            callback.mode = "max"
    return sorted(callbacks, key=lambda c: not getattr(c, "writes_scores", False))


@contextmanager
def resumed(
    model: keras.Model, data: Any, callbacks: Any, *, initial_epoch: int, **how: Any
) -> Iterator[tuple[Any, int, int]]:
    """Yield callbacks for Keras' `fit`, the epoch to begin with, and how much of it is behind.

    A callback with a method `resumed`, `Checkpoint`, says so; it stands above the models. Without
    one the training begins at the beginning of `initial_epoch`.

    Raises:
        ValueError: if there are several.
    """
    each = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    checkpoints = [callback for callback in each if hasattr(callback, "resumed")]
    if len(checkpoints) > 1:
        raise ValueError(f"fit takes one Checkpoint, not {len(checkpoints)}")
    if not checkpoints:
        yield callbacks, initial_epoch, 0
        return
    with checkpoints[0].resumed(model, data, each, initial_epoch=initial_epoch, **how) as begins:
        yield begins


def _warn_slow_precision(policy: str) -> None:
    """Warn, once a process, of bfloat16 on an x86 CPU without matrix tiles (AMX)."""
    if policy == "mixed_bfloat16" and not tf.config.list_physical_devices("GPU"):
        _warn_slow_bfloat16()


@functools.cache
def _warn_slow_bfloat16() -> None:
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text() if cpu.is_file() else ""
    if "flags" in flags and "amx_bf16" not in flags:
        warnings.warn(
            "mixed_bfloat16 is slower than float32 on a CPU without AMX, such as this one",
            stacklevel=4,
        )
