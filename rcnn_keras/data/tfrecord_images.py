"""An image in a TFRecord file, read one at a time in Python.

A file is a TFRecord of `tf.train.Example`s, one an image, read at a byte offset:

    image         bytes of a file that `decode_upright` decodes, with `orientation` of EXIF
    image_id, height, width, name
    boxes (4n,), labels (n,), crowd (n,)
    keypoints (3 P n,)    where the dataset has keypoints
    runs, run_counts (n,), extents (4n,)    masks as run lengths, see `bitmasks`; 0 runs for none
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, overload

import numpy as np
import tensorflow as tf
from pycocotools import mask as rle

from rcnn_keras.data.value_range import FULL, ValueRange


class TFRecordImage(NamedTuple):
    """An image in a TFRecord file, which `read_image` takes in a path's place.

    Attributes:
        file: the TFRecord file.
        offset: of the image's record in it, in bytes.
        name: of the image file that was packed.
        value_range: by which its values became 8 bits, see `read_image`.
    """

    file: str
    offset: int
    name: str
    value_range: ValueRange = FULL

    @property
    def path(self) -> str:
        """The image's name, as if the TFRecord file were a folder."""
        return f"{self.file}/{self.name}"

    def read(self) -> bytes:
        """Return the bytes of the image file; OSError or ValueError if they cannot be read."""
        return _example(self.file, self.offset)["image"].bytes_list.value[0]


class TFRecordSegmentations(Sequence[dict[str, Any] | None]):
    """The segmentations of a record's objects as COCO run lengths, read when they are asked for.

    Args:
        image: where they are.
        size: height and width of the image.
        objects: `(n,)` int32, the place of each object among those that were packed.
        present: `(n,)` bool, which of them have a mask.
    """

    def __init__(
        self, image: TFRecordImage, size: tuple[int, int], objects: np.ndarray, present: np.ndarray
    ):
        self.image, self.size, self.objects, self.present = image, size, objects, present

    def __len__(self) -> int:
        return len(self.objects)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any] | None: ...
    @overload
    def __getitem__(self, index: slice) -> "TFRecordSegmentations": ...
    def __getitem__(self, index: int | slice) -> "dict[str, Any] | TFRecordSegmentations | None":
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        if not self.present[index]:
            return None
        height, width = self.size
        runs = _runs(self.image.file, self.image.offset)[self.objects[index]]
        code = rle.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)
        return {"size": [height, width], "counts": code["counts"].decode("ascii")}

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        return (self[i] for i in range(len(self)))

    def take(self, index: np.ndarray) -> "TFRecordSegmentations":
        """Return the segmentations of some of the objects."""
        return TFRecordSegmentations(
            self.image, self.size, self.objects[index], self.present[index]
        )


def read_record(file: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Return the bytes of a record, a string scalar, eagerly or in a graph; checks its checksum."""
    records = tf.raw_ops.TFRecordDatasetV2(
        filenames=file[None],
        compression_type="",
        buffer_size=tf.constant(0, tf.int64),  # the length of what is read is known
        byte_offsets=offset[None],
    )
    kind = {"output_types": [tf.string], "output_shapes": [()]}
    first = tf.raw_ops.TakeDataset(input_dataset=records, count=tf.constant(1, tf.int64), **kind)
    return tf.raw_ops.DatasetToSingleElement(dataset=first, **kind)[0]


def _example(file: str, offset: int) -> Any:
    """Return the features of an image's record by name."""
    try:
        content = read_record(tf.constant(file), tf.constant(offset, tf.int64)).numpy()
    except tf.errors.OpError as error:
        raise OSError(f"the record at byte {offset}: {error.message}") from error
    return tf.train.Example.FromString(content).features.feature


@lru_cache(maxsize=8)
def _runs(file: str, offset: int) -> list[np.ndarray]:
    """Return the run lengths of all objects of an image."""
    features = _example(file, offset)
    counts = np.array(features["run_counts"].int64_list.value, np.int64)
    runs = np.array(features["runs"].int64_list.value, np.int64)
    return np.split(runs, np.cumsum(counts)[:-1])
