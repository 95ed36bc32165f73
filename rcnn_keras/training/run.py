"""Train a model from a configuration into a run folder.

RUN/config.yaml       the configuration, all defaults filled in: trains the same run again
RUN/history.csv       losses and scores of each epoch
RUN/last.keras        the model after the last epoch
RUN/best.keras        the model of the best val_AP
RUN/detections.json   what best.keras finds in the validation data, as COCO result rows
RUN/scores.json       its COCO scores
RUN/report.html       scores, curves and pictures, with plots and pictures/ beside it; ends a run
RUN/tensorboard/      if asked for
RUN/backup/           if asked for, while the run is unfinished: what it resumes from
"""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import keras

from rcnn_keras.data.augmentation import compose
from rcnn_keras.data.batches import Batches
from rcnn_keras.data.dataset import DetectionDataset
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
    "report.html",
)
FOLDERS = ("tensorboard", "backup", "pictures")


def train(
    configuration: Configuration, out: str | Path, *, overwrite: bool = False
) -> keras.callbacks.History:
    """Train, score and report one run.

    A run with `training.backup` that was stopped goes on after its last whole epoch when it is
    started again.

    Args:
        configuration: from `load_configuration`.
        out: the run folder, made if missing.
        overwrite: remove what an earlier run left in `out`.

    Returns:
        The History of `fit`; `history.history["val_AP"]` has the scores.

    Raises:
        ConfigurationError: the classes of `data.val` are not those of `data.train`, or one of them
            has no object.
        DatasetError: the data cannot be used; lists everything that is wrong.
        FileExistsError: `out` holds a finished run, or an unfinished one of another configuration.
    """
    out = Path(out)
    if overwrite:
        _clear(out)
    resumes = _resumes(out, configuration)
    train_set, val_set = read_data(configuration.data)
    if configuration.data.check_images:
        check_images(configuration.data)
    model = build_model(configuration, train_set)
    out.mkdir(parents=True, exist_ok=True)
    (out / "config.yaml").write_text(configuration.to_yaml(), "utf-8")
    epochs = HistoryFile(out / "history.csv", resumes=resumes)
    history = model.fit(
        training_batches(configuration, train_set),
        epochs=configuration.training.epochs,
        initial_epoch=_epochs_done(out) if resumes else 0,
        callbacks=build_callbacks(configuration, val_set, out, epochs),
    )
    model.load_weights(out / "best.keras")
    evaluation = evaluate(model, val_set)
    evaluation.write(
        out,
        title=f"{configuration.model.architecture}, {configuration.model.backbone}: {out.name}",
        history=epochs.columns(),
        command=f"rcnn train {out / 'config.yaml'}",
    )
    return history


def build_model(configuration: Configuration, dataset: DetectionDataset) -> keras.Model:
    """Build and compile the configured model for the classes and the size of a dataset."""
    keras.utils.set_random_seed(configuration.training.seed)
    with _dtype_policy(configuration.training.precision):
        model = ARCHITECTURES[configuration.model.architecture](
            classes=dataset.classes, **configuration.model_arguments
        )
    schedule = configuration.schedule.model_dump()
    arguments = configuration.optimizer.model_dump()
    learning_rate = build_schedule(
        schedule.pop("name"),
        arguments.pop("learning_rate"),
        epochs=configuration.training.epochs,
        steps_per_epoch=len(training_batches(configuration, dataset)),
        **schedule,
    )
    optimizer = build_optimizer(arguments.pop("name"), model, learning_rate, **arguments)
    model.compile(optimizer, jit_compile=configuration.training.jit_compile)
    return model


def training_batches(configuration: Configuration, dataset: DetectionDataset) -> Batches:
    """Return the shuffled and augmented batches of the training data."""
    data = configuration.data
    augmentations = [named.build() for named in data.augment]
    return dataset.batches(
        data.batch_size,
        shuffle=True,
        augment=compose(*augmentations) if augmentations else None,
        max_objects=data.max_objects,
        seed=configuration.training.seed,
    )


def build_callbacks(
    configuration: Configuration, val_set: DetectionDataset, out: Path, history: HistoryFile
) -> list[keras.callbacks.Callback]:
    """Return the callbacks of a run, in the order in which an epoch's end needs them."""
    training = configuration.training
    scoring = CocoEvaluation(val_set, every=training.evaluate_every)
    first: list[keras.callbacks.Callback] = []
    if training.backup:  # the raw weights, so before the averages are swapped in
        first.append(keras.callbacks.BackupAndRestore(out / "backup"))
    if configuration.optimizer.ema_momentum is not None:
        first.append(keras.callbacks.SwapEMAWeights(swap_on_epoch=True))
    for callback in first:
        callback.writes_scores = True  # Detector.fit moves what has this to the front, in order
    best = keras.callbacks.ModelCheckpoint(
        out / "best.keras",
        monitor="val_AP",
        mode="max",
        save_best_only=True,
        initial_value_threshold=history.best("val_AP"),
    )
    later = [best, keras.callbacks.ModelCheckpoint(out / "last.keras"), history]
    if training.tensorboard:
        later.append(keras.callbacks.TensorBoard(out / "tensorboard"))
    if training.early_stopping_patience is not None:
        patience = training.early_stopping_patience
        later.append(keras.callbacks.EarlyStopping("val_AP", mode="max", patience=patience))
    return [*first, scoring, *later]


def _clear(out: Path) -> None:
    """Remove what a run writes, and nothing else."""
    for name in FILES:
        (out / name).unlink(missing_ok=True)
    for name in FOLDERS:
        shutil.rmtree(out / name, ignore_errors=True)


def _resumes(out: Path, configuration: Configuration) -> bool:
    """Return whether `out` holds an unfinished run of this configuration to go on from."""
    if (out / "report.html").exists():
        raise FileExistsError(f"{out} holds a finished run: name another folder, or overwrite it")
    if not (configuration.training.backup and (out / "backup").is_dir()):
        return False
    if (out / "config.yaml").read_text("utf-8") != configuration.to_yaml():
        raise FileExistsError(
            f"{out} holds an unfinished run of another configuration (its config.yaml): name "
            f"another folder, or overwrite it"
        )
    return True


def _epochs_done(out: Path) -> int:
    """Return how many epochs the backup holds: `fit` then also goes on in the order of the data."""
    metadata = out / "backup" / "training_metadata.json"
    return json.loads(metadata.read_text("utf-8"))["epoch"] if metadata.exists() else 0


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
