"""Train a model from a configuration into a run folder.

RUN/config.yaml       the configuration, all defaults filled in: trains the same run again
RUN/history.csv       losses and scores of each epoch
RUN/last.keras        the model after the last epoch
RUN/best.keras        the model of the best val_AP, for Mask R-CNN val_mask_AP, or of the last step
RUN/detections.json   what best.keras finds in the validation data, as COCO result rows
RUN/scores.json       its COCO scores
RUN/errors.json       its errors by kind, and its confusion matrix
RUN/report.html       scores, curves, errors and pictures, with plots and pictures/ beside it; ends
                      a run
RUN/tensorboard/      if asked for
RUN/backup/           if asked for, while the run is unfinished: what it resumes from
RUN/1_rpn/ ..         with `training.alternating` the four steps, see `train_alternating`
"""

import json
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import keras
from keras.callbacks import BackupAndRestore

from rcnn_keras.data.augmentation import compose
from rcnn_keras.data.batches import Batches
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.presets import from_preset
from rcnn_keras.training.alternating import STEPS, UNFINISHED, train_alternating
from rcnn_keras.training.callbacks import CocoEvaluation
from rcnn_keras.training.configuration import ARCHITECTURES, Configuration
from rcnn_keras.training.datasets import check_images, read_data
from rcnn_keras.training.history import HistoryFile
from rcnn_keras.training.optimizers import build_optimizer
from rcnn_keras.training.schedules import build_schedule
from rcnn_keras.training.scoring import evaluate

FILES = (
    "config.yaml",
    "history.csv",
    "last.keras",
    "best.keras",
    "detections.json",
    "scores.json",
    "errors.json",
    "report.html",
    *(
        f"{plot}{page}.png"
        for plot in (
            "losses",
            *("average_precision", "precision_recall"),
            *("mask_average_precision", "mask_precision_recall"),
            *("errors", "confusion"),
        )
        for page in ("", "_dark")
    ),
)
FOLDERS = (
    *("tensorboard", "backup"),
    *(f"{step.name}{end}" for step in STEPS for end in ("", UNFINISHED)),
)
PICTURE = re.compile(r'src="pictures/([^"/]+)"')  # in a report, which names those of its run


def train(
    configuration: Configuration, out: str | Path, *, overwrite: bool = False
) -> keras.callbacks.History:
    """Train, score and report one run.

    A run with `training.backup` that was stopped goes on after its last whole epoch when it is
    started again, until there is a report; one with `training.alternating` after its last step.

    Args:
        configuration: from `load_configuration`.
        out: the run folder, made if missing.
        overwrite: remove what an earlier run left in `out`, once all else is known to be sound.

    Returns:
        The History of `fit`; `history.history["val_AP"]` has the scores. With
        `training.alternating` that of the last step, or an empty one if none was left to run.

    Raises:
        ConfigurationError: the classes of `data.val` are not those of `data.train`, or one of them
            has no object, or an object has no segmentation and the model learns masks.
        DatasetError: the data cannot be used; lists everything that is wrong.
        FileExistsError: `out` holds a run that is finished, of another configuration, or stopped
            without a backup; or `overwrite` would remove the file to start from.
        OSError: a preset cannot be fetched; says where to get it and where to put it.
    """
    out = Path(out)
    preset = configuration.model.preset
    if overwrite and preset in [str(out.resolve() / name) for name in FILES]:
        raise FileExistsError(f"{preset} is what the run starts from: name another folder (--out)")
    resumes = not overwrite and _resumes(out, configuration)
    train_set, val_set = read_data(configuration.data, masks=configuration.learns_masks)
    if configuration.data.check_images:
        check_images(train_set, val_set)
    model = build_model(configuration, train_set)
    if overwrite:
        _clear(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(configuration.to_yaml(), "utf-8")
    epochs = HistoryFile(out / "history.csv", resumes=resumes)
    batches = training_batches(configuration, train_set)
    if configuration.training.alternating is None:
        callbacks = build_callbacks(configuration, val_set, out, epochs)
        done = _epochs_done(out, epochs) if resumes else 0
        if done and done not in epochs.rows:
            callbacks.append(MissedEpochEnd(done, callbacks))
        history = model.fit(
            batches,
            epochs=configuration.training.epochs,
            initial_epoch=done,
            callbacks=callbacks,
        )
        model.load_weights(out / "best.keras")
    else:
        history = _alternate(configuration, model, batches, out, epochs)
    evaluation = evaluate(model, val_set)
    evaluation.write(
        out,
        title=f"{configuration.model.architecture}, {model.get_config()['backbone']}: {out.name}",
        history=epochs.columns(),
        command=f"rcnn train {out / 'config.yaml'}",
    )
    shutil.rmtree(out / "backup", ignore_errors=True)
    return history


def build_model(configuration: Configuration, dataset: DetectionDataset) -> keras.Model:
    """Build and compile the configured model for the classes and the size of a dataset.

    With `model.preset` its weights are those of `from_preset`.
    """
    keras.utils.set_random_seed(configuration.training.seed)
    architecture = ARCHITECTURES[configuration.model.architecture]
    build: Callable[..., keras.Model] = architecture
    if configuration.model.preset is not None:
        build = partial(from_preset, configuration.model.preset, architecture=architecture)
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
    configuration: Configuration, steps_per_epoch: int, model: keras.Model, epochs: int
) -> keras.optimizers.Optimizer:
    """Build the configured optimizer with its schedule drawn out or in to `epochs`."""
    schedule = configuration.schedule.model_dump()
    if "milestones" in schedule:
        share = epochs / configuration.training.epochs
        schedule["milestones"] = [share * epoch for epoch in schedule["milestones"]]
    arguments = configuration.optimizer.model_dump()
    learning_rate = build_schedule(
        schedule.pop("name"),
        arguments.pop("learning_rate"),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        **schedule,
    )
    return build_optimizer(arguments.pop("name"), model, learning_rate, **arguments)


def _alternate(
    configuration: Configuration,
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
    histories = train_alternating(
        model,
        batches,
        partial(_optimizer, configuration, len(batches)),
        epochs=(training.epochs, training.alternating.detector_epochs) * 2,
        out=out,
        callbacks=callbacks,
    )
    for name in ("last.keras", "best.keras"):
        shutil.copy(out / STEPS[-1].name / "model.keras", out / name)
    return histories.get(STEPS[-1].name, keras.callbacks.History())


def training_batches(configuration: Configuration, dataset: DetectionDataset) -> Batches:
    """Return the shuffled and augmented batches of the training data."""
    data = configuration.data
    augmentations = [named.build() for named in data.augment]
    augment = compose(*augmentations) if len(augmentations) > 1 else next(iter(augmentations), None)
    return dataset.batches(
        data.batch_size,
        shuffle=True,
        augment=augment,
        max_objects=data.max_objects,
        seed=configuration.training.seed,
    )


def build_callbacks(
    configuration: Configuration, val_set: DetectionDataset, out: Path, history: HistoryFile
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a run, in the order in which an epoch's end needs them."""
    training = configuration.training
    scoring = CocoEvaluation(val_set, every=training.evaluate_every)
    monitor = "val_mask_AP" if configuration.learns_masks else "val_AP"
    first: list[keras.callbacks.Callback] = []
    if training.backup:  # the raw weights, so before the averages are swapped in
        first.append(BackupAndRestore(out / "backup", delete_checkpoint=False))
    if configuration.optimizer.ema_momentum is not None:
        first.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    for callback in first:
        callback.writes_scores = True  # Detector.fit moves what has this to the front, in order
    best = keras.callbacks.ModelCheckpoint(
        out / "best.keras",
        monitor=monitor,
        mode="max",
        save_best_only=True,
        initial_value_threshold=history.best(monitor),
    )
    later = [best, keras.callbacks.ModelCheckpoint(out / "last.keras"), history]
    if training.tensorboard:
        later.append(keras.callbacks.TensorBoard(out / "tensorboard"))
    if training.early_stopping_patience is not None:
        patience = training.early_stopping_patience
        later.append(keras.callbacks.EarlyStopping(monitor, mode="max", patience=patience))
    return [*first, scoring, *later]


class MissedEpochEnd(keras.callbacks.Callback):
    """Score and save, once the backup is restored, an epoch whose end was cut short.

    Args:
        epoch: its number, from 1.
        callbacks: of `fit`, before this one; all but the backup missed the end of the epoch.
    """

    def __init__(self, epoch: int, callbacks: Sequence[keras.callbacks.Callback]):
        super().__init__()
        self.epoch = epoch
        self.callbacks = [c for c in callbacks if not isinstance(c, BackupAndRestore)]

    def on_train_begin(self, logs=None):
        """Run the callbacks; the epoch's losses are lost."""
        epoch_logs = {}
        for callback in self.callbacks:
            callback.on_epoch_end(self.epoch - 1, epoch_logs)


def _clear(out: Path) -> None:
    """Remove what a run writes, and nothing else."""
    report, folder = out / "report.html", out / "pictures"
    if report.exists():
        for link in PICTURE.findall(report.read_text("utf-8")):
            (folder / unquote(link)).unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def _resumes(out: Path, configuration: Configuration) -> bool:
    """Return whether `out` holds an unfinished run of this configuration to go on from."""
    found = [name for name in (*FILES, *FOLDERS) if (out / name).exists()]
    ways = "name another folder (--out), or overwrite it (--overwrite)"
    if "report.html" in found:
        raise FileExistsError(f"{out} holds a finished run: {ways}")
    if "config.yaml" in found:
        if (out / "config.yaml").read_text("utf-8") != configuration.to_yaml():
            raise FileExistsError(
                f"{out} holds an unfinished run of another configuration (its config.yaml): {ways}"
            )
        history = HistoryFile(out / "history.csv", resumes=True)
        trained = configuration.training.epochs in history.rows
        by_steps = configuration.training.alternating is not None
        if trained or by_steps or (configuration.training.backup and "backup" in found):
            return True
    if found not in ([], ["config.yaml"]):
        raise FileExistsError(
            f"{out} holds {', '.join(found)} of a run that has no backup to go on from "
            f"(training.backup: true makes one): {ways}"
        )
    return False


def _epochs_done(out: Path, history: HistoryFile) -> int:
    """Return how many epochs to go on from: `fit` then also keeps to the order of the data."""
    metadata = out / "backup" / "training_metadata.json"
    if metadata.exists():
        return json.loads(metadata.read_text("utf-8"))["epoch"]
    return max(history.rows, default=0)


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
