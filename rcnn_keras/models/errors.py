"""What goes wrong inside a graph, told as what it is."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import ImageError
from rcnn_keras.data.problems import DatasetError
from rcnn_keras.data.tfrecord import check_tfrecord
from rcnn_keras.models.batch_check import BatchError

NON_FINITE = "not finite: "  # starts the message of a failed check


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
