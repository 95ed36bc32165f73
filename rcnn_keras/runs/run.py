"""Train a model from a configuration into a run folder, see `folder`."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import keras

from rcnn_keras.data.augmentation import Compose
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.data.written_aside import written_aside
from rcnn_keras.evaluation.report.sections import Section
from rcnn_keras.models import RCNN
from rcnn_keras.presets import from_preset
from rcnn_keras.runs.configuration import (
    Configuration,
    FitConfiguration,
    RCNNConfiguration,
)
from rcnn_keras.runs.datasets import check_images, read_data
from rcnn_keras.runs.distribution import build_strategy, lost_workers, meet, writes
from rcnn_keras.runs.folder import FILES, STAGES, clear, remove_torn, resumes
from rcnn_keras.runs.schema import ARCHITECTURES
from rcnn_keras.runs.scoring import evaluate
from rcnn_keras.training.alternating import CHECKPOINTS, STEPS, train_alternating
from rcnn_keras.training.callbacks import CocoEvaluation, HistoryFile
from rcnn_keras.training.checkpoint import Checkpoint
from rcnn_keras.training.optimizers import build_optimizer
from rcnn_keras.training.rcnn import train_rcnn
from rcnn_keras.training.rcnn.error_analysis import analysis_section
from rcnn_keras.training.schedules import LearningRateSchedule, build_schedule

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


def train(
    configuration: Configuration,
    out: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> keras.callbacks.History:
    """Train, score and report one run.

    A run that was stopped goes on at its last checkpoint when it is started again, until there is a
    report, and ends as it would have ended: one with `training.alternating` in the step that it
    was in, and one of R-CNN where `train_rcnn` was.

    Args:
        configuration: from `load_configuration`.
        out: the run folder, made if missing.
        overwrite: remove what an earlier run left in `out`, once all else is known to be sound.
        resume: `out` must hold an unfinished run of this configuration; nothing is started anew.

    Under `training.distribute` every worker calls this alike, and the first of them writes.

    Returns:
        The History of `fit`; `history.history["val_AP"]` has the scores. With
        `training.alternating` that of the last step. An empty one if none was left to run, and
        for R-CNN.

    Raises:
        ConfigurationError: the classes of `data.val` are not those of `data.train`, or one of them
            has no object, or an object has no segmentation and the model learns masks.
        DatasetError: the data cannot be used; lists everything that is wrong.
        CheckpointError: the data have changed, or no checkpoint is valid.
        FileExistsError: `out` holds a run that is finished, of another configuration, or stopped
            without a checkpoint; or `overwrite` would remove the file to start from.
        FileNotFoundError: there is no run to `resume`.
        OSError: a preset cannot be fetched; says where to get it and where to put it. Or the folder
            cannot be written to, or is full.
        LostWorkerError: another worker is gone.
        ValueError: `overwrite` and `resume` at once; or TF_CONFIG does not go with
            `training.distribute`.
    """
    if overwrite and resume:
        raise ValueError("a run is either resumed or overwritten, not both")
    out = Path(out)
    preset = configuration.preset
    if overwrite and preset in [str(out.resolve() / name) for name in FILES]:
        raise FileExistsError(f"{preset} is what the run starts from: name another folder (--out)")
    goes_on = not overwrite and resumes(out, configuration, required=resume)
    strategy = build_strategy(configuration.distribute)  # before TensorFlow does anything
    train_set, val_set = read_data(configuration.data, masks=configuration.learns_masks)
    if configuration.data.check_images:
        check_images(train_set, val_set)
    with lost_workers(strategy):
        with strategy.scope():
            model = build_model(configuration, train_set)
        if writes(strategy):
            if overwrite:
                clear(out)
            remove_torn(out)
            with written_aside(out / "config.yaml") as aside:
                aside.write_text(configuration.to_yaml(), "utf-8")
        epochs = HistoryFile(out / "history.csv", resumes=goes_on)
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
        meet(strategy)
    return history


def build_model(configuration: Configuration, dataset: DetectionDataset) -> keras.Model:
    """Build the configured model for the classes of a dataset, and compile it for its size.

    With `model.preset` its weights are those of `from_preset`. R-CNN is not compiled.
    """
    keras.utils.set_random_seed(configuration.training.seed)
    architecture = ARCHITECTURES[configuration.model.architecture]
    if not isinstance(configuration, FitConfiguration):
        return architecture(classes=dataset.classes, **configuration.model_arguments)
    build: Callable[..., keras.Model] = architecture
    if configuration.preset is not None:
        build = partial(from_preset, configuration.preset, architecture=architecture)
    with _dtype_policy(configuration.training.precision):
        model = build(
            classes=dataset.classes,
            seed=configuration.training.seed,
            **configuration.model_arguments,
        )
    steps_per_epoch = len(training_batches(configuration, dataset))
    model.compile(_optimizer(configuration, steps_per_epoch, model, configuration.training.epochs))
    return model


def _optimizer(
    configuration: FitConfiguration, steps_per_epoch: int, model: keras.Model, epochs: int
) -> keras.optimizers.Optimizer:
    """Build the configured optimizer with its schedule drawn out or in to `epochs`."""
    arguments = configuration.optimizer.model_dump()
    learning_rate = _learning_rate(
        configuration, arguments.pop("learning_rate"), epochs, steps_per_epoch
    )
    return build_optimizer(arguments.pop("name"), model, learning_rate, **arguments)


def _learning_rate(
    configuration: Configuration, base: float, epochs: int, steps_per_epoch: int
) -> LearningRateSchedule:
    """Build the configured schedule with its milestones drawn out or in to `epochs`."""
    schedule = configuration.schedule.model_dump()
    if "milestones" in schedule:
        _, length = configuration.length
        schedule["milestones"] = [epochs / length * place for place in schedule["milestones"]]
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
    """Train, and leave the weights of the best epoch in the model."""
    strategy = model.distribute_strategy
    history = model.fit(
        batches,
        epochs=configuration.training.epochs,
        initial_epoch=max(epochs.rows, default=0),  # if it was trained, and not yet scored
        callbacks=[
            callback
            for callback in build_callbacks(configuration, val_set, out, epochs)
            if writes(strategy) or not isinstance(callback, WRITERS)
        ],
        verbose="auto" if writes(strategy) else 0,
    )
    meet(strategy)
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
    shutil.rmtree(out / STAGES / "features")  # gigabytes, and all is learnt from them
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
    """Train in the four steps of `train_alternating`, of which the last leaves the best model."""
    training = configuration.training
    assert training.alternating is not None
    callbacks: list[keras.callbacks.Callback] = [history]
    if training.tensorboard:
        callbacks.append(keras.callbacks.TensorBoard(out / "tensorboard"))
    saved = training.checkpoint
    histories = train_alternating(
        model,
        batches,
        partial(_optimizer, configuration, len(batches)),
        epochs=(training.epochs, training.alternating.detector_epochs) * 2,
        out=out,
        callbacks=callbacks,
        checkpoint=partial(Checkpoint, **saved.model_dump()) if saved else None,
    )
    for name in ("last.keras", "best.keras"):
        shutil.copy(out / STEPS[-1].name / "model.keras", out / name)
    return histories.get(STEPS[-1].name, keras.callbacks.History())


def training_batches(configuration: FitConfiguration, dataset: DetectionDataset) -> Batches:
    """Return the shuffled and augmented batches of the training data."""
    data = configuration.data
    augmentations = [named.build() for named in data.augment]
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
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
