"""Training as `MaskRCNN.train` has it: data from a `Dataset`, files of weights, weight decay."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.compat.mrcnn.config import Config
from rcnn_keras.compat.mrcnn.ground_truth import load_image_gt
from rcnn_keras.compat.mrcnn.utils import Dataset
from rcnn_keras.convert import matterport
from rcnn_keras.data.images import read_image

Sample = tuple[dict[str, Any], dict[str, Any]]

SIGNATURE = (
    {
        "images": tf.TensorSpec((None, None, 3), tf.uint8),
        "image_sizes": tf.TensorSpec((2,), tf.int32),
        "image_ids": tf.TensorSpec((), tf.int64),
    },
    {
        "boxes": tf.TensorSpec((None, 4), tf.float32),
        "labels": tf.TensorSpec((None,), tf.int32),
        "crowd": tf.TensorSpec((None,), tf.bool),
        "masks": tf.TensorSpec((None, None, None), tf.uint8),
    },
)
PADDING: tuple[dict[str, Any], dict[str, Any]] = (
    {
        "images": np.uint8(0),
        "image_sizes": np.int32(0),
        "image_ids": np.int64(0),
    },
    {
        "boxes": np.float32(0),
        "labels": np.int32(-1),
        "crowd": False,
        "masks": np.uint8(0),
    },
)


def training_data(
    dataset: Dataset,
    config: Config,
    augmentation: Any = None,
    no_augmentation_sources: Sequence[str] = (),
    shuffle: bool = True,
) -> tf.data.Dataset:
    """Return batches of a dataset without end, for `fit` of a `MatterportMaskRCNN`.

    Images without objects are passed over, as in the original.

    Args:
        dataset: prepared.
        config: of sizes, of the batch and of `MAX_GT_INSTANCES`.
        augmentation: see `augmented`.
        no_augmentation_sources: sources whose images are left as they are.
        shuffle: draw a new order each time that all images were read.

    Raises:
        ValueError: if the dataset was not prepared, is empty, or has other classes than the
            config says.
    """
    if not hasattr(dataset, "num_classes"):
        raise ValueError("the dataset is not prepared: call its prepare() first")
    if not len(dataset.image_ids):
        raise ValueError("the dataset has no images")
    if dataset.num_classes != config.NUM_CLASSES:
        raise ValueError(
            f"the dataset has {dataset.num_classes} classes with the background, "
            f"{', '.join(dataset.class_names)}; NUM_CLASSES is {config.NUM_CLASSES}"
        )

    def samples() -> Iterator[Sample]:
        while True:
            order = np.array(dataset.image_ids)
            if shuffle:
                np.random.shuffle(order)
            found = False
            for image_id in order:
                source = dataset.image_info[image_id]["source"]
                how = None if source in no_augmentation_sources else augmentation
                if (sample := _sample(dataset, config, int(image_id), how)) is not None:
                    found = True
                    yield sample
            if not found:
                raise ValueError("no image of the dataset has an object")

    data = tf.data.Dataset.from_generator(samples, output_signature=SIGNATURE)
    batches = data.padded_batch(config.BATCH_SIZE, padding_values=PADDING, drop_remainder=True)
    return batches.prefetch(2)


def _sample(dataset: Dataset, config: Config, image_id: int, augmentation: Any) -> Sample | None:
    """Return an image on its canvas and its objects; None without an object."""
    image, _, class_ids, bbox, mask = load_image_gt(
        dataset, config, image_id, augmentation=augmentation
    )
    if not (class_ids > 0).any():
        return None
    if len(class_ids) > config.MAX_GT_INSTANCES:
        kept = np.random.choice(len(class_ids), config.MAX_GT_INSTANCES, replace=False)
        class_ids, bbox, mask = class_ids[kept], bbox[kept], mask[..., kept]
    inputs = {
        "images": read_image(image, name=f"image {image_id} of the dataset"),
        "image_sizes": np.array(image.shape[:2], np.int32),
        "image_ids": np.int64(image_id),
    }
    return inputs, {
        "boxes": bbox[:, [1, 0, 3, 2]].astype(np.float32),
        "labels": np.abs(class_ids).astype(np.int32) - 1,
        "crowd": class_ids < 0,
        "masks": np.packbits(np.moveaxis(mask, -1, 0), axis=2),
    }


class WeightsFiles(keras.callbacks.Callback):
    """Write the weights after each epoch, as a `.h5` file in matterport's layout.

    Args:
        path: with `{epoch:04d}` for the epoch's number, from 1 on.
    """

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Write the file."""
        matterport.save(self.model, self.path.format(epoch=epoch + 1))


def set_weight_decay(model: keras.Model, decay: float) -> None:
    """Add L2 of every kernel and bias to the loss, each divided by its size, as matterport does."""
    for variable in model.trainable_variables:
        if variable.name not in ("gamma", "beta"):
            rate = decay / int(np.prod(variable.shape))
            variable.regularizer = keras.regularizers.L2(rate) if decay else None
