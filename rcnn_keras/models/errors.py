"""The errors of detectors, and checks that name what is wrong before any work starts."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import ImageError
from rcnn_keras.data.problems import DatasetError
from rcnn_keras.data.tfrecord import check_tfrecord

NON_FINITE = "not finite: "  # starts the message of a failed check
ENDING, WEIGHTS_ENDING = ".keras", ".weights.h5"
HOW_TO_SAVE = (
    f"a detector is saved to a {ENDING} file, or its weights alone by save_weights to a "
    f"{WEIGHTS_ENDING} file; no other can be loaded again"
)


class BatchError(ValueError):
    """A batch of a user's own pipeline that a detector cannot train on; says where and why."""


class NonFiniteLossError(FloatingPointError):
    """A loss, its gradients, an image or a box became NaN or infinite; no weight was updated.

    Attributes:
        what: what is not finite.
        step: number of the training step, counted from 0.
        image_ids: ids of the images in its batch.
        paths: files of those images, where they are known.
    """

    def __init__(self, what: str, step: int, image_ids: list[int], paths: list[str]):
        self.what, self.step, self.image_ids, self.paths = what, step, image_ids, paths
        images = ", ".join(paths) or ", ".join(f"image id {i}" for i in image_ids)
        super().__init__(
            f"{what} not finite at step {step}, on the images {images}. No weight was updated in "
            f"this step. Lower the learning rate, warm it up, clip the gradients, or look at these "
            f"images and their boxes"
        )


@contextmanager
def plain_errors(dataset: DetectionDataset | None = None) -> Iterator[None]:
    """Turn what TensorFlow raises from within a graph into the error that caused it.

    Raises:
        ImageError: for an image that could not be decoded.
        BatchError: for a batch of a user's own pipeline that breaks a rule.
        DatasetError: for a record whose checksum is wrong; names the record files of `dataset`
            that are not as they were written.
        NonFiniteLossError: for a check of `train_step`; `dataset` gives the files' names.
    """
    try:
        yield
    except tf.errors.OpError as error:
        text = str(error)
        if unreadable := re.search(r"ImageError: (.+?): (.+)", text):
            raise ImageError(unreadable[1], unreadable[2]) from error
        if wrong := re.search(r"BatchError: (.+)", text):
            raise BatchError(wrong[1]) from None
        if isinstance(error, tf.errors.DataLossError):
            packed = [record.tfrecord for record in dataset or () if record.tfrecord is not None]
            folders = dict.fromkeys(Path(place.file).parent for place in packed)
            if problems := [problem for folder in folders for problem in check_tfrecord(folder)]:
                raise DatasetError(problems) from error
        pattern = rf"\[{NON_FINITE}(.+?)\] \[\S+\] \[(\d+)\] \[([-\d ]*)\]"
        if bad := re.search(pattern, text):
            ids = [int(i) for i in bad[3].split()]
            files = {record.image_id: record.path for record in dataset or ()}
            paths = [files[i] for i in ids if i in files]
            raise NonFiniteLossError(bad[1], int(bad[2]), ids, paths) from error
        raise


def refuse_arguments(given: dict[str, Any]) -> None:
    """Raise a ValueError that names each of Keras' arguments that a detector cannot use."""
    empty = (list, tuple, dict)
    names = [n for n, v in given.items() if v is not None and not (isinstance(v, empty) and not v)]
    if not names:
        return
    why = {
        "loss": "a detector has losses of its own; model.trained_losses chooses among them",
        "loss_weights": "losses are added as they are; model.trained_losses chooses some",
        "metrics": "scores come from rk.callbacks, as rk.callbacks.CocoEvaluation(val)",
        "weighted_metrics": "scores come from rk.callbacks, as rk.callbacks.CocoEvaluation(val)",
        "sample_weight": "images are not weighted; repeat those that should count more",
        "class_weight": "classes are not weighted; repeat the images of rare ones",
    }
    raise ValueError("; ".join(f"{name} is not supported: {why[name]}" for name in names))


_builder: int | None = None  # the process that built the first model


def check_building() -> None:
    """Raise a RuntimeError before a model is built in a fork of a process that has built one.

    So is one that is loaded there, or sent there, as to a worker of `multiprocessing.Pool`.
    """
    global _builder
    _builder = os.getpid() if _builder is None else _builder
    check_process(_builder, "a model")


def check_process(pid: int, what: str = "this model") -> None:
    """Raise a RuntimeError in a forked child of the process that built a model."""
    if os.getpid() != pid:
        raise RuntimeError(
            f"{what} was built in another process, of which this one is a fork, and TensorFlow "
            f"does not run in forks: load the model in each process, and start them by "
            f"multiprocessing.get_context('spawn')"
        )


def check_ending(path: str | PathLike[str]) -> None:
    """Raise ValueError unless a model can be saved to a file of this name, and loaded again."""
    if Path(path).suffix != ENDING:
        raise ValueError(f"{path}: {HOW_TO_SAVE}")
