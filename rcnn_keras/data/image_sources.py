"""Where the samples of `Batches` get images and masks from: image files, or record files.

n objects of an image, H and W its height and width, h and w those it is resized to.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import tensorflow as tf

from rcnn_keras.data.decoding import decode_upright
from rcnn_keras.data.images import ImageError, read_image
from rcnn_keras.data.masks import record_masks
from rcnn_keras.data.packed_images import PackedSegmentations, read_record
from rcnn_keras.data.run_lengths import decode_masks

if TYPE_CHECKING:
    from rcnn_keras.data.records import Record


TEXT, NUMBER = tf.io.FixedLenFeature((), tf.string), tf.io.FixedLenFeature((), tf.int64)
NUMBERS = tf.io.FixedLenSequenceFeature((), tf.int64, allow_missing=True)


class ImageSource(Protocol):
    """Gives images and masks inside the graph."""

    def opened(self, index: tf.Tensor) -> Any:
        """Return what `image` and `masks` read of the record at a place, an int64 scalar."""
        ...

    def image(self, opened: Any) -> tf.Tensor:
        """Return the upright image, `(H, W, 3)` uint8."""
        ...

    def masks(self, opened: Any, size: tf.Tensor) -> tf.Tensor:
        """Return the objects' masks at `size`, `(n, h, ceil(w / 8))` uint8 as packed bits."""
        ...


def image_source(records: "Sequence[Record]") -> ImageSource:
    """Return the source of these records: without Python if all of them are in record files."""
    if all(record.packed is not None for record in records):
        return RecordFiles(records)
    return ImageFiles(records)


class ImageFiles:
    """Files in any of Pillow's formats, pixels in memory, and whatever else `read_image` reads."""

    def __init__(self, records: "Sequence[Record]"):
        self.records = records

    def opened(self, index: tf.Tensor) -> tf.Tensor:
        """Return the index."""
        return index

    def image(self, opened: tf.Tensor) -> tf.Tensor:
        """Decode by Pillow, which holds no lock of Python's: parallel calls do run in parallel."""
        image = tf.numpy_function(self._read, [opened], tf.uint8)
        return tf.ensure_shape(image, (None, None, 3))

    def masks(self, opened: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        """Decode by pycocotools, and resize by Pillow."""
        masks = tf.numpy_function(self._read_masks, [opened, size], tf.uint8)
        return tf.ensure_shape(masks, (None, None, None))

    def _read(self, index: int) -> np.ndarray:
        return read_pixels(self.records[index])

    def _read_masks(self, index: int, size: np.ndarray) -> np.ndarray:
        return record_masks(self.records[index], *size.tolist())


class RecordFiles:
    """Record files, each image read at its offset, and no Python on the way."""

    def __init__(self, records: "Sequence[Record]"):
        places = [record.packed for record in records if record.packed is not None]
        files = {file: number for number, file in enumerate(dict.fromkeys(p.file for p in places))}
        self.files = tf.constant(list(files))
        self.numbers = tf.constant([files[place.file] for place in places], tf.int32)
        self.offsets = tf.constant([place.offset for place in places], tf.int64)
        objects = [_packed_objects(record) for record in records]
        self.objects = tf.constant(np.concatenate(objects), tf.int32)
        self.starts = tf.constant(np.cumsum([0, *map(len, objects)]), tf.int64)

    def opened(self, index: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the record of an image, and which of the objects in it are the sample's."""
        record = read_record(self.files[self.numbers[index]], self.offsets[index])
        return record, self.objects[self.starts[index] : self.starts[index + 1]]

    def image(self, opened: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
        """Decode in TensorFlow, to the pixels of `read_image`."""
        stored = tf.io.parse_single_example(opened[0], {"image": TEXT, "orientation": NUMBER})
        return decode_upright(stored["image"], stored["orientation"])

    def masks(self, opened: tuple[tf.Tensor, tf.Tensor], size: tf.Tensor) -> tf.Tensor:
        """Decode run lengths, and resize to the bits of `record_masks`."""
        record, objects = opened
        names = dict.fromkeys(("runs", "run_counts", "extents"), NUMBERS)
        stored = tf.io.parse_single_example(record, {"height": NUMBER, "width": NUMBER, **names})
        runs = tf.RaggedTensor.from_row_lengths(stored["runs"], stored["run_counts"])
        extents = tf.reshape(stored["extents"], [-1, 4])
        old = tf.stack([stored["height"], stored["width"]])
        return decode_masks(tf.gather(runs, objects), tf.gather(extents, objects), old, size)


def _packed_objects(record: "Record") -> np.ndarray:
    """Return the places of a record's objects among those packed."""
    if isinstance(record.segmentations, PackedSegmentations):
        return record.segmentations.objects
    return np.arange(len(record))


def read_pixels(record: "Record") -> np.ndarray:
    """Return a record's image `(H, W, 3)` uint8; ImageError if it is not of the stated size."""
    image = read_image(record.image)
    if image.shape[:2] != (record.height, record.width):
        raise ImageError(
            record.path,
            f"the image is {image.shape[1]} x {image.shape[0]} pixels, "
            f"its record says {record.width} x {record.height}",
        )
    return image
