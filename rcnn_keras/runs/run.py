"""Train a model from a configuration into a run folder, see `folder`."""

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras

from rcnn_keras.data.augmentation import Compose
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.keypoints import Skeleton
from rcnn_keras.data.pipeline import Batches, require_keypoints
from rcnn_keras.evaluation.report.page import Section
from rcnn_keras.models import RCNN
from rcnn_keras.models.scorable import has_objects, warn_unscorable
from rcnn_keras.presets import from_preset
from rcnn_keras.runs.configuration import (
    Configuration,
    FitConfiguration,
    RCNNConfiguration,
)
from rcnn_keras.runs.datasets import check_images, read_data
from rcnn_keras.runs.distribution import barrier, build_strategy, lost_workers, writes
from rcnn_keras.runs.folder import FILES, STAGES, clear, remove_unfinished, resumes
from rcnn_keras.runs.schema import ARCHITECTURES
from rcnn_keras.runs.scoring import evaluate
from rcnn_keras.training.alternating import CHECKPOINTS, STEPS, train_alternating
from rcnn_keras.training.callbacks import CocoEvaluation, HistoryFile
from rcnn_keras.training.checkpoint import Checkpoint
from rcnn_keras.training.optimizers import build_optimizer
from rcnn_keras.training.rcnn import train_rcnn
from rcnn_keras.training.rcnn.error_analysis import analysis_section
from rcnn_keras.training.schedules import LearningRateSchedule, build_schedule
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.output_paths import check_output_folder

WRITERS = (keras.callbacks.ModelCheckpoint, keras.callbacks.TensorBoard, HistoryFile)


def build_callbacks(
    configuration: FitConfiguration, val_set: DetectionDataset, out: Path, history: HistoryFile
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a run, in the order in which they run at an epoch's end."""
    training = configuration.training
    scoring = CocoEvaluation(val_set, every=training.evaluate_every)
    monitor = "val_mask_AP" if configuration.trains_masks else "val_AP"
    monitor = "val_keypoint_AP" if configuration.trains_keypoints else monitor
    first: list[keras.callbacks.Callback] = []
    if configuration.optimizer.ema_momentum is not None:
        first.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
        first[0].writes_scores = True  # Detector.fit runs callbacks with this attribute first
    best = keras.callbacks.ModelCheckpoint(
        out / "best.keras", monitor=monitor, mode="max", save_best_only=True
    )
    after = [best, keras.callbacks.ModelCheckpoint(out / "last.keras"), history]
    if training.tensorboard:
        after.append(keras.callbacks.TensorBoard(out / "tensorboard"))
    if training.early_stopping_patience is not None and has_objects(val_set):  # or never better
        patience = training.early_stopping_patience
        after.append(keras.callbacks.EarlyStopping(monitor, mode="max", patience=patience))
    if training.checkpoint is not None:
        after.append(Checkpoint(out / CHECKPOINTS, **training.checkpoint.model_dump()))
    return [*first, scoring, *after]


def train(
    configuration: Configuration,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> keras.callbacks.History:
    """Train, score and report one run.

    Until it has a report, an interrupted run resumes from its last checkpoint when it is started
    again, and ends as an uninterrupted one: with `training.alternating` in the unfinished step, for
    R-CNN in the unfinished stage of `train_rcnn`.

    Args:
        configuration: from `load_configuration`.
        out: the run folder, created if missing.
        overwrite: remove the files of an earlier run from `out`, after data and configuration were
            checked.
        resume: `out` must hold an unfinished run of this configuration; no new run is started.

    Under `training.distribute` every worker calls this in the same way; the first one writes.

    Returns:
        The History of `fit`; `history.history["val_AP"]` has the scores. With
        `training.alternating` that of the last step. An empty one if no training was left, and for
        R-CNN.

    Raises:
        ConfigurationError: the classes of `data.val` are not those of `data.train`, or the latter
            have no object, or an object has no segmentation and the model is trained on masks, or
            none a keypoint and it is trained on keypoints.
        DatasetError: the data cannot be used; lists all problems.
        CheckpointError: the data have changed, or no checkpoint is valid.
        FileExistsError: `out` holds a run that is finished, of another configuration, or was
            interrupted without a checkpoint; or `overwrite` would remove the file to start from.
        FileNotFoundError: there is no run to `resume`.
        OSError: a preset cannot be downloaded; says where to get it and where to put it. Or the
            folder cannot be written to, or the disk is full.
        LostWorkerError: another worker is lost.
        ValueError: `overwrite` and `resume` at once; or TF_CONFIG conflicts with
            `training.distribute`.
    """
    check_output_folder(out)
    if overwrite and resume:
        raise ValueError("a run is either resumed or overwritten, not both")
    out = Path(out)
    preset = configuration.preset
    if overwrite and preset in [str(out.resolve() / name) for name in FILES]:
        raise FileExistsError(f"{preset} is what the run starts from: name another folder (--out)")
    resumed = not overwrite and resumes(out, configuration, required=resume)
    strategy = build_strategy(configuration.distribute)  # before TensorFlow does anything
    train_set, val_set = read_data(
        configuration.data,
        masks=configuration.trains_masks,
        keypoints=configuration.trains_keypoints,
    )
    if configuration.data.check_images:
        check_images(train_set, val_set)
    with lost_workers(strategy):
        with strategy.scope():
            model = build_model(configuration, train_set)
        if writes(strategy):
            warn_unscorable(model, train_set, "data.train")
            warn_unscorable(model, val_set, "data.val")
        if writes(strategy):
            if overwrite:
                clear(out)
            remove_unfinished(out)
            with atomic_write(out / "config.yaml") as temporary:
                temporary.write_text(configuration.to_yaml(), "utf-8")
        epochs = HistoryFile(out / "history.csv", resumes=resumed)
        history, sections = keras.callbacks.History(), []
        if isinstance(configuration, RCNNConfiguration):
            sections = [_train_stages(configuration, model, train_set, val_set, out)]
        elif isinstance(configuration, FitConfiguration):
            batches = training_batches(configuration, train_set)
            if configuration.training.alternating is None:
                history = _fit(configuration, model, batches, val_set, out, epochs)
            else:
                history = _alternate(configuration, model, batches, out, epochs)
        evaluation = evaluate(model, val_set)
        if writes(strategy):
            evaluation.write(
                out,
                title=f"{configuration.model.architecture}, {model.get_config()['backbone']}: "
                f"{out.name}",
                history=epochs.columns(),
                command=f"rcnn train {out / 'config.yaml'}",
                sections=sections,
            )
            shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
        barrier(strategy)
    return history


def build_model(configuration: Configuration, dataset: DetectionDataset) -> keras.Model:
    """Build the configured model for a dataset's classes, and compile it for its size.

    With `model.preset` its weights are those of `from_preset`. R-CNN is not compiled.
    """
    keras.utils.set_random_seed(configuration.training.seed)
    architecture = ARCHITECTURES[configuration.model.architecture]
    build: Callable[..., keras.Model] = architecture
    if configuration.preset is not None:
        build = partial(from_preset, configuration.preset, architecture=architecture)
    arguments = configuration.model_arguments
    if configuration.trains_keypoints:
        arguments |= keypoint_arguments(require_keypoints(dataset), arguments)
    if not isinstance(configuration, FitConfiguration):
        return build(classes=dataset.classes, **arguments)
    with _dtype_policy(configuration.training.precision):
        model = build(
            classes=dataset.classes,
            seed=configuration.training.seed,
            **arguments,
        )
    steps_per_epoch = len(training_batches(configuration, dataset))
    model.compile(_optimizer(configuration, steps_per_epoch, model, configuration.training.epochs))
    return model


def keypoint_arguments(skeleton: Skeleton, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keypoints of the data as arguments of a model; stated flip pairs stay."""
    pairs = arguments.get("keypoint_flip_pairs")
    return {
        "keypoint_names": skeleton.names,
        "keypoint_edges": skeleton.edges,
        "keypoint_flip_pairs": skeleton.flip_pairs if pairs is None else pairs,
    }


def _optimizer(
    configuration: FitConfiguration, steps_per_epoch: int, model: keras.Model, epochs: int
) -> keras.optimizers.Optimizer:
    """Build the configured optimizer with its schedule scaled to `epochs`."""
    arguments = configuration.optimizer.model_dump()
    learning_rate = _learning_rate(
        configuration, arguments.pop("learning_rate"), epochs, steps_per_epoch
    )
    return build_optimizer(arguments.pop("name"), model, learning_rate, **arguments)


def _learning_rate(
    configuration: Configuration, base: float, epochs: int, steps_per_epoch: int
) -> LearningRateSchedule:
    """Build the configured schedule with its milestones scaled to `epochs`."""
    schedule = configuration.schedule.model_dump()
    if "milestones" in schedule:
        _, length = configuration.length
        schedule["milestones"] = [epochs / length * m for m in schedule["milestones"]]
    return build_schedule(
        schedule.pop("name"), base, epochs=epochs, steps_per_epoch=steps_per_epoch, **schedule
    )


def _fit(
    configuration: FitConfiguration,
    model: keras.Model,
    batches: Batches,
    val_set: DetectionDataset,
    out: Path,
    epochs: HistoryFile,
) -> keras.callbacks.History:
    """Train, and load the weights of the best epoch, which is the last if none can be scored."""
    strategy = model.distribute_strategy
    history = model.fit(
        batches,
        epochs=configuration.training.epochs,
        initial_epoch=max(epochs.rows, default=0),  # if it was trained but not scored yet
        callbacks=[
            callback
            for callback in build_callbacks(configuration, val_set, out, epochs)
            if writes(strategy) or not isinstance(callback, WRITERS)
        ],
        verbose="auto" if writes(strategy) else 0,
    )
    if writes(strategy) and not has_objects(val_set):
        shutil.copy(out / "last.keras", out / "best.keras")
    barrier(strategy)
    model.load_weights(out / "best.keras")
    return history


def _train_stages(
    configuration: RCNNConfiguration,
    model: RCNN,
    train_set: DetectionDataset,
    val_set: DetectionDataset,
    out: Path,
) -> Section:
    """Train R-CNN, and return its error analysis."""
    arguments = configuration.training.model_dump(exclude={"features"})
    features = configuration.training.features
    arguments["engine"] = None if features is None else features.build()
    rate = _learning_rate(configuration, arguments.pop("learning_rate"), arguments["steps"], 1)
    trained = train_rcnn(
        model, train_set, out / STAGES, val=val_set, learning_rate=rate, **arguments
    )
    shutil.rmtree(out / STAGES / "features")  # gigabytes that are no longer needed
    shutil.copy(out / STAGES / "rcnn.keras", out / "best.keras")
    assert trained.scores is not None
    return analysis_section(trained.scores, model.classes)


def _alternate(
    configuration: FitConfiguration,
    model: keras.Model,
    batches: Batches,
    out: Path,
    history: HistoryFile,
) -> keras.callbacks.History:
    """Train in the four steps of `train_alternating`; the last one gives the best model."""
    training = configuration.training
    assert training.alternating is not None
    callbacks: list[keras.callbacks.Callback] = [history]
    if training.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(out / "tensorboard"))
    checkpoint = training.checkpoint
    histories = train_alternating(
        model,
        batches,
        partial(_optimizer, configuration, len(batches)),
        epochs=(training.epochs, training.alternating.detector_epochs) * 2,
        out=out,
        callbacks=callbacks,
        checkpoint=partial(Checkpoint, **checkpoint.model_dump()) if checkpoint else None,
    )
    for name in ("last.keras", "best.keras"):
        shutil.copy(out / STEPS[-1].name / "model.keras", out / name)
    return histories.get(STEPS[-1].name, keras.callbacks.History())


def training_batches(configuration: FitConfiguration, dataset: DetectionDataset) -> Batches:
    """Return the shuffled and augmented batches of the training data."""
    data = configuration.data
    augmentations = [schema.build() for schema in data.augment]
    augment = Compose(*augmentations) if len(augmentations) > 1 else next(iter(augmentations), None)
    return dataset.batches(
        data.batch_size,
        shuffle="shards" if data.shuffle == "shards" else True,
        augment=augment,
        max_objects=data.max_objects,
        seed=configuration.training.seed,
    )


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)
