"""The tf.data pipeline from records to padded training batches.

Images and masks come from image files or TFRecord files. B images a batch, H and W the batch's
padded height and width, h and w those an image is resized to, n objects of an image, N =
`max_objects`, R the most proposals of any image.
"""

import copy
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import tensorflow as tf

from rcnn_keras.data.augmentation import Augmentation, Sample, drop_empty_masks
from rcnn_keras.data.bitmasks import decode_masks
from rcnn_keras.data.image_rule import ImageRule
from rcnn_keras.data.images import (
    ImageError,
    decode_upright,
    read_image,
    resize_image,
    resized_size,
)
from rcnn_keras.data.keypoints import Skeleton
from rcnn_keras.data.masks import check_segmentations, record_masks
from rcnn_keras.data.tfrecord_images import TFRecordSegmentations, read_record
from rcnn_keras.data.value_range import FULL, ValueRange, check_value_range, same_range

if TYPE_CHECKING:
    from rcnn_keras.data.dataset import DetectionDataset, Record


SIZE_MULTIPLE = 32  # the coarsest stride of a feature pyramid's backbone


def padded_image(image: tf.Tensor) -> tf.Tensor:
    """Fill up an image `(H, W, 3)` at the bottom and right to multiples of `SIZE_MULTIPLE`."""
    bottom, right = tf.unstack(-tf.shape(image)[:2] % SIZE_MULTIPLE)
    return tf.pad(image, [[0, bottom], [0, right], [0, 0]])


def padded_masks(masks: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
    """Fill up packed masks of an image of `size` to multiples of `SIZE_MULTIPLE` pixels."""
    message = "the augmentation must change the masks of a sample with its image"
    expected = tf.stack([size[0], -(-size[1] // 8)])
    with tf.control_dependencies(
        [tf.debugging.assert_equal(tf.shape(masks)[1:], expected, message)]
    ):
        missing = tf.stack([-size[0] % SIZE_MULTIPLE, (-size[1] % SIZE_MULTIPLE) // 8])
    return tf.pad(masks, tf.stack([[0, 0], [0, missing[0]], [0, missing[1]]]))


def padded_rows(rows: tf.Tensor, count: int, value: float) -> tf.Tensor:
    """Fill up to `count` rows with `value`."""
    missing = [[0, count - tf.shape(rows)[0]]] + [[0, 0]] * (rows.shape.rank - 1)
    padded = tf.pad(rows, missing, constant_values=tf.cast(value, rows.dtype))
    return tf.ensure_shape(padded, (count, *rows.shape[1:]))


AT_ONCE = 8  # TFRecord files among which images are shuffled


class ShardOrder:
    """Which record comes at which place of an epoch, in shuffled shards.

    The shards of an epoch come in a random order; among each eight that follow one another, images
    come in a random order. So an epoch reads eight files at a time, and not all of them: what is
    on a slow disk or far away is read through once.

    Args:
        records: those of one TFRecord file stand together.

    Raises:
        ValueError: an image is in no TFRecord file.
    """

    def __init__(self, records: "Sequence[Record]"):
        files = []
        for record in records:
            if record.tfrecord is None:
                raise ValueError(
                    f"shuffle='shards' needs TFRecord files, and {record.path} is in none: "
                    f"`rcnn data pack` writes them"
                )
            files.append(record.tfrecord.file)
        starts = [i for i in range(len(files)) if i == 0 or files[i] != files[i - 1]]
        self.starts = tf.constant(starts, tf.int64)
        self.sizes = tf.constant(np.diff([*starts, len(files)]), tf.int64)

    def index(self, place: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        """Return the record at a place of an epoch.

        Args:
            place: in 0..records-1, an int64 scalar.
            seed: `(2,)` int64, another one for each epoch.
        """
        count = tf.size(self.sizes, tf.int64)
        shuffle = tf.random.experimental.index_shuffle
        shards = shuffle(tf.range(count), seed=seed, max_index=count - 1)
        ends = tf.cumsum(tf.gather(self.sizes, shards))
        begins = ends - tf.gather(self.sizes, shards)
        first = _holding(ends, place) // AT_ONCE * AT_ONCE
        last = tf.minimum(first + AT_ONCE, count) - 1
        begin, end = begins[first], ends[last]
        seed = tf.random.experimental.stateless_fold_in(seed, first)
        place = begin + shuffle(place - begin, seed=seed, max_index=end - begin - 1)
        shard = _holding(ends, place)
        return self.starts[shards[shard]] + place - begins[shard]


def _holding(ends: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
    """Return which of the shards that end at these places holds a place."""
    return tf.searchsorted(ends, place[None], side="right", out_type=tf.int64)[0]


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


def image_source(records: "Sequence[Record]", value_range: ValueRange = FULL) -> ImageSource:
    """Return the source of these records: without Python if all of them are in TFRecord files.

    Raises:
        ValueError: for TFRecord files that were packed by another `value_range`.
    """
    if all(record.tfrecord is not None for record in records):
        for record in records[:1]:
            _check_depth(record, value_range)
        return RecordFiles(records)
    return ImageFiles(records, value_range)


class ImageFiles:
    """Files in any of Pillow's formats, pixels in memory, and whatever else `read_image` reads."""

    def __init__(self, records: "Sequence[Record]", value_range: ValueRange = FULL):
        self.records, self.value_range = records, value_range

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
        return read_pixels(self.records[index], self.value_range)

    def _read_masks(self, index: int, size: np.ndarray) -> np.ndarray:
        return record_masks(self.records[index], *size.tolist())


class RecordFiles:
    """TFRecord files, each image read at its offset, and no Python on the way."""

    def __init__(self, records: "Sequence[Record]"):
        places = [record.tfrecord for record in records if record.tfrecord is not None]
        files = {file: number for number, file in enumerate(dict.fromkeys(p.file for p in places))}
        self.files = tf.constant(list(files))
        self.numbers = tf.constant([files[place.file] for place in places], tf.int32)
        self.offsets = tf.constant([place.offset for place in places], tf.int64)
        objects = [_stored_objects(record) for record in records]
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


def _stored_objects(record: "Record") -> np.ndarray:
    """Return the places of a record's objects among those packed."""
    if isinstance(record.segmentations, TFRecordSegmentations):
        return record.segmentations.objects
    return np.arange(len(record))


def read_pixels(record: "Record", value_range: ValueRange = FULL) -> np.ndarray:
    """Return a record's image `(H, W, 3)` uint8; ImageError if it is not of the stated size."""
    _check_depth(record, value_range)
    image = read_image(record.image, value_range)
    if image.shape[:2] != (record.height, record.width):
        raise ImageError(
            record.path,
            f"the image is {image.shape[1]} x {image.shape[0]} pixels, "
            f"its record says {record.width} x {record.height}",
        )
    return image


def _check_depth(record: "Record", value_range: ValueRange) -> None:
    """Raise ValueError for a range of values that are no longer in a TFRecord file."""
    if record.tfrecord is not None and value_range != FULL:
        check_packed([record], value_range)


def check_packed(records: "Iterable[Record]", value_range: ValueRange) -> None:
    """Raise ValueError for TFRecord files that were packed by another range than a model has."""
    for record in records:
        packed = FULL if record.tfrecord is None else record.tfrecord.value_range
        if record.tfrecord is not None and not same_range(packed, value_range):
            raise ValueError(
                f"{record.path}: TFRecord files hold 8 bits, packed as by value_range={packed!r}, "
                f"and the model has value_range={value_range!r}: pack the image files by that "
                f"(rcnn data pack --value-range), or take them instead"
            )


# What stands where there is no object.
PADDING = {"boxes": 0.0, "labels": -1, "crowd": False, "masks": 0, "keypoints": 0.0}

DTYPES = {"boxes": tf.float32, "labels": tf.int32, "crowd": tf.bool}


class Batches:
    """A re-iterable pipeline of `(inputs, targets)`, built when it is first read.

    inputs: `images` (B, H, W, 3) float32 in 0..255, zeros at the bottom and right, H and W the
    least multiples of 32 that hold the batch; `image_sizes` (B, 2) int32 height and width of the
    valid part; `image_ids` (B,) int64; with `proposals`, `proposals` (B, R, 4) float32 xyxy in
    pixels of the resized image and `num_proposals` (B,) int32. targets: `boxes` (B, N, 4) float32
    xyxy in pixels of the resized image; `labels` (B, N) int32, -1 where there is no object;
    `crowd` (B, N) bool; with `masks`, `masks` (B, N, H, W / 8) uint8, eight pixels a byte as
    `numpy.packbits` lays them out; with `keypoints`, `keypoints` (B, N, P, 3) float32 x and y in
    pixels of the resized image and visibility, 0 where none is labelled.

    Which image comes when, at which size, and how it is augmented, is a pure function of seed and
    the number of the sample counted from the start of training, so a run resumed at any step reads
    what it would have read, whatever the number of threads.

    Args:
        dataset: the images and their objects.
        batch_size: B; the last batch of a single pass may be smaller.
        shuffle: visit the images in a new random order each epoch; "shards" shuffles TFRecord files
            and the images among each eight of them, for files that are slow to read here and there.
        augment: `augmentation(sample, seed) -> sample`, see `rcnn_keras.data.augmentation`.
        min_size: length in pixels to which the shorter side is resized; of several, each sample
            draws one. None keeps the image's own size until `sized` says otherwise.
        max_size: most pixels of the longer side, as torchvision's detectors have it.
        max_objects: N; default the most objects in any image.
        seed: of the order and of the augmentations.
        antialias: average over the pixels when shrinking, as Pillow does; torchvision's detectors
            and this package's models do not.
        masks: read the segmentations too. An object whose mask has no pixel left at the resized
            image's size is dropped; a crowd region may do without a segmentation.
        keypoints: read the keypoints too; records without have none that is labelled.
        proposals: read the records' proposals too.
        value_range: how images of more than 8 bits become 0..255, see `read_image`; a model brings
            its own.

    Raises:
        ValueError: when a number is out of range, the dataset is empty, an image has more than
            `max_objects` objects, `masks` are wanted of an object without a sound segmentation,
            `keypoints` of a dataset without them, `proposals` of an image without them, or shuffled
            shards of images in no TFRecord file.
        TypeError: when `augment` cannot be called.
    """

    def __init__(
        self,
        dataset: "DetectionDataset",
        batch_size: int,
        shuffle: bool | Literal["shards"] = False,
        augment: Augmentation | None = None,
        *,
        min_size: int | Sequence[int] | None = None,
        max_size: int | None = None,
        max_objects: int | None = None,
        seed: int = 0,
        antialias: bool = False,
        masks: bool = False,
        keypoints: bool = False,
        proposals: bool = False,
        value_range: ValueRange = FULL,
    ) -> None:
        for name, value in {
            "batch_size": batch_size,
            "max_size": max_size,
            "max_objects": max_objects,
        }.items():
            if value is not None and not _is_count(value):
                raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
        sizes = _several(min_size)
        if not sizes or not all(size is None or _is_count(size) for size in sizes):
            raise ValueError(
                f"min_size must be a whole number of at least 1, or several, got {min_size!r}"
            )
        if max_size and any(size and max_size < size for size in sizes):
            raise ValueError(f"max_size {max_size} is less than min_size {min_size}")
        if len(dataset) == 0:
            raise ValueError("the dataset has no images, so there are no batches to make")
        if augment is not None and not callable(augment):
            raise TypeError(f"augment must be callable, got {augment!r}")
        if max_objects is not None:
            for record in dataset:
                if len(record.labels) > max_objects:
                    raise ValueError(
                        f"{record.path} has {len(record.labels)} objects, "
                        f"more than max_objects={max_objects}"
                    )
        check_value_range(value_range)
        if masks:
            check_segmentations(dataset)
        if proposals:
            require_proposals(dataset)
        if shuffle not in (False, True, "shards"):
            raise ValueError(f"shuffle must be True, False or 'shards', got {shuffle!r}")
        if shuffle == "shards":
            ShardOrder(dataset)
        self.dataset = dataset
        self.batch_size = int(batch_size)
        self.shuffle = shuffle
        self.augment = augment
        self.min_size = min_size
        self.max_size = max_size
        self.max_objects = max_objects or dataset.max_objects
        self.seed = seed
        self.antialias = antialias
        self.masks = masks
        self.skeleton = require_keypoints(dataset) if keypoints else None
        self.proposals = proposals
        self.value_range = value_range
        self.image_rule: ImageRule | None = None  # a model's own rule
        self._parts, self._mine = 1, range(1)
        self._passes = 0

    def __len__(self) -> int:
        """Steps an epoch."""
        return -(-len(self.dataset) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        """One pass over the dataset, each with another order and other augmentations."""
        epoch, self._passes = self._passes, self._passes + 1
        return iter(self.tf_dataset(epoch=epoch))

    def __repr__(self) -> str:
        return (
            f"Batches({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}, "
            f"augment={self.augment!r}, min_size={self.min_size}, max_size={self.max_size}, "
            f"max_objects={self.max_objects}, seed={self.seed}, antialias={self.antialias}, "
            f"masks={self.masks}, keypoints={self.skeleton is not None}, "
            f"proposals={self.proposals})"
        )

    def sized(self, min_size: int | Sequence[int] | None, max_size: int | None) -> "Batches":
        """Return a copy with the sizes filled in where they were None."""
        filled = copy.copy(self)
        filled.min_size = self.min_size or min_size
        filled.max_size = self.max_size or max_size
        return filled

    def with_masks(self, masks: bool = True) -> "Batches":
        """Return a copy with masks in its targets, or without.

        Raises:
            ValueError: when masks are wanted of an object without a sound segmentation.
        """
        changed = copy.copy(self)
        if masks and not self.masks:
            check_segmentations(self.dataset)
        changed.masks = masks
        return changed

    def with_keypoints(self, skeleton: Skeleton | None) -> "Batches":
        """Return a copy with keypoints in its targets, or without if `skeleton` is None.

        Args:
            skeleton: of the model; its `flip_pairs` are those that change places when a sample is
                mirrored.

        Raises:
            ValueError: when keypoints are wanted of a dataset that has none, or other ones.
        """
        changed = copy.copy(self)
        changed.skeleton = skeleton
        if skeleton is not None:
            check_same_keypoints(skeleton, require_keypoints(self.dataset))
        return changed

    def with_proposals(self, proposals: bool = True) -> "Batches":
        """Return a copy with proposals in its inputs, or without.

        Raises:
            ValueError: when proposals are wanted of an image without them.
        """
        changed = copy.copy(self)
        if proposals and not self.proposals:
            require_proposals(self.dataset)
        changed.proposals = proposals
        return changed

    def part(self, mine: range, of: int) -> "Batches":
        """Return a copy that gives, of each batch cut into equal parts, some: each as a batch.

        Together the parts are the batch, but each is padded to the height and width of its own
        images alone. In the last batch of a single pass there may be fewer parts, the last of which
        may be smaller.

        Args:
            mine: the numbers of the parts to give, one after the other.
            of: into how many parts a batch is cut.

        Raises:
            ValueError: when a batch cannot be cut into so many equal parts.
        """
        if self.batch_size % of:
            raise ValueError(
                f"a batch of {self.batch_size} images cannot be shared out evenly to {of} devices"
            )
        changed = copy.copy(self)
        changed._parts, changed._mine = of, mine
        return changed

    def resized_sizes(self, record: "Record") -> list[tuple[int, int]]:
        """Return the height and width of a record's image after resizing, at each `min_size`."""
        height, width = record.height, record.width
        if self.image_rule is not None:
            return self.image_rule.sizes(height, width)
        return [
            resized_size(height, width, size or min(height, width), self.max_size or sys.maxsize)
            for size in _several(self.min_size)
        ]

    def resized(
        self, sample: Sample, old: np.ndarray | tf.Tensor, new: np.ndarray | tf.Tensor
    ) -> Sample:
        """Return a sample whose image is resized, and its boxes and proposals with it.

        What `tf_dataset` does in a graph and detection does eagerly.

        Args:
            sample: `image` (H, W, 3) uint8, and `boxes` and `proposals` (.., 4) xyxy and
                `keypoints` (.., P, 3) if it has any.
            old: `(2,)` int32, H and W.
            new: `(2,)` int32 h and w, one of `resized_sizes`.

        Returns:
            The sample, with `image` (h, w, 3) float32 in 0..255.
        """
        if self.image_rule is not None:
            image = self.image_rule.resize(sample["image"], new[0], new[1])
        elif self.min_size is None and self.max_size is None:
            return sample | {"image": tf.cast(sample["image"], tf.float32)}
        else:
            image = resize_image(sample["image"], new[0], new[1], antialias=self.antialias)
        ratio = tf.cast(new / old, tf.float32)[::-1]
        factors = {"boxes": tf.tile(ratio, [2]), "proposals": tf.tile(ratio, [2])}
        factors["keypoints"] = tf.concat([ratio, [1.0]], axis=0)
        moved = {name: sample[name] * factor for name, factor in factors.items() if name in sample}
        return sample | moved | {"image": image}

    def tf_dataset(
        self, *, repeat: bool = False, start_step: int = 0, epoch: int = 0
    ) -> tf.data.Dataset:
        """Build the pipeline.

        Args:
            repeat: go on for ever in full batches, which straddle the epochs: every image comes
                once in each `len(dataset)` samples. Otherwise one pass.
            start_step: batches to leave out at the start, without reading them.
            epoch: of a single pass, whose order and augmentations it has, each time it is read:
                for training, `repeat` or the `Batches` themselves give others in each epoch.

        Raises:
            ValueError: when start_step is negative, or past the end of a single pass.
            tf.errors.OpError: while iterating, when a file cannot be read; the message names it.
        """
        images, batch = len(self.dataset), self.batch_size
        if start_step < 0 or (not repeat and start_step > len(self)):
            raise ValueError(f"start_step {start_step} is outside 0..{len(self)}")
        part = batch // self._parts
        mine = part * len(self._mine)  # samples of each batch

        def number_of(place: tf.Tensor) -> tf.Tensor:
            return place // mine * batch + part * self._mine.start + place % mine

        start, steps = start_step * mine, len(self)
        with tf.device("CPU:0"):
            if repeat:
                places = tf.data.Dataset.counter(start)
            else:
                left = images - (steps - 1) * batch - part * self._mine.start  # in the last batch
                end = (steps - 1) * mine + min(max(left, 0), mine)
                places = tf.data.Dataset.range(min(start, end), end)
            first = 0 if repeat else epoch * images
            numbers = places.map(lambda place: first + number_of(place))
            samples = numbers.map(
                self._sample_reader(), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True
            )
            batches = samples.padded_batch(part, drop_remainder=repeat)
            return batches.prefetch(tf.data.AUTOTUNE)

    def _sample_reader(self) -> Callable[[tf.Tensor], tuple[Sample, Sample]]:
        """Return the function from a global sample number to one padded (inputs, targets)."""
        records = list(self.dataset)
        image_ids = tf.constant([record.image_id for record in records], tf.int64)
        sizes = tf.constant([(record.height, record.width) for record in records], tf.int32)
        resized_sizes = tf.constant([self.resized_sizes(record) for record in records], tf.int32)
        source = image_source(records, self.value_range)
        objects = _Objects(records, self.skeleton)
        rows = max_proposals(records)

        def read_proposals(index: int) -> np.ndarray:
            proposals = records[index].proposals
            assert proposals is not None  # `require_proposals` saw to it
            return proposals

        order = ShardOrder(records) if self.shuffle == "shards" else None

        def padded_sample(number: tf.Tensor) -> tuple[Sample, Sample]:
            index = self._index(number, order)
            opened = source.opened(index)
            sample = objects.of(index)
            size = resized_sizes[index, self._drawn(number, resized_sizes.shape[1])]
            sample["image"] = source.image(opened)
            if self.proposals:
                proposals = tf.numpy_function(read_proposals, [index], tf.float32)
                sample["proposals"] = tf.ensure_shape(proposals, (None, 4))
            sample = self.resized(sample, sizes[index], size)
            if self.masks:
                sample["masks"] = source.masks(opened, size)
                sample = drop_empty_masks(sample)
            if self.skeleton is not None:
                sample["mirrored_keypoints"] = tf.constant(self.skeleton.mirrored)
            if self.augment is not None:
                sample = self.augment(sample, self._sample_seed(image_ids[index], number))
            inputs, targets = self._padded(sample, image_ids[index])
            if self.proposals:
                inputs["num_proposals"] = tf.shape(sample["proposals"])[0]
                inputs["proposals"] = padded_rows(sample["proposals"], rows, 0.0)
            return inputs, targets

        return padded_sample

    def _index(self, number: tf.Tensor, order: ShardOrder | None) -> tf.Tensor:
        """The record read as sample `number`, counted from the start of training."""
        images = len(self.dataset)
        epoch, place = number // images, number % images
        if not self.shuffle:
            return place
        seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
        if order is not None:
            return order.index(place, seed)
        last = tf.constant(images - 1, tf.int64)
        return tf.random.experimental.index_shuffle(place, seed=seed, max_index=last)

    def _sample_seed(self, image_id: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        seed = tf.constant([self.seed, 0], tf.int64)
        for part in (image_id, number):
            seed = tf.random.experimental.stateless_fold_in(seed, part)
        return seed

    def _drawn(self, number: tf.Tensor, count: int) -> tf.Tensor:
        """The one of `count` sizes that sample `number` has."""
        seed = tf.constant([self.seed, 1], tf.int64)  # augmentations have 0
        seed = tf.random.experimental.stateless_fold_in(seed, number)
        return tf.random.stateless_uniform((), seed, 0, count, tf.int64)

    def _padded(self, sample: Sample, image_id: tf.Tensor) -> tuple[Sample, Sample]:
        image = sample["image"]
        size = tf.shape(image)[:2]
        image = tf.ensure_shape(padded_image(image), (None, None, 3))
        if self.masks:
            sample = sample | {"masks": padded_masks(sample["masks"], size)}
        targets = {
            name: padded_rows(sample[name], self.max_objects, padding)
            for name, padding in PADDING.items()
            if name in sample
        }
        return {"images": image, "image_sizes": size, "image_ids": image_id}, targets


def require_proposals(dataset: "DetectionDataset") -> None:
    """Raise a ValueError that names an image without proposals."""
    for record in dataset:
        if record.proposals is None:
            raise ValueError(
                f"{record.path} has no proposals: dataset.with_proposals(...) brings them in"
            )


def require_keypoints(dataset: "DetectionDataset") -> Skeleton:
    """Return the keypoints of a dataset; raise ValueError if no object has any."""
    if dataset.skeleton is None:
        raise ValueError(
            f"{dataset.name or 'the dataset'} has no keypoints: its annotations must have them, as "
            f"COCO's person_keypoints files do"
        )
    return dataset.skeleton


def check_same_keypoints(wanted: Skeleton, found: Skeleton) -> None:
    """Raise ValueError unless data have a model's keypoints, or as many without names."""
    if wanted.names == found.names:
        return
    unnamed = found.is_numbered or wanted.is_numbered
    if not (unnamed and len(wanted) == len(found)):
        raise ValueError(
            f"the data and the model have different keypoints: {list(found.names)} in the data, "
            f"{list(wanted.names)} in the model; build the model with "
            f"keypoint_names=dataset.skeleton.names"
        )


def max_proposals(records: "Iterable[Record]") -> int:
    """Return R, the most proposals of any record."""
    return max((len(r.proposals) for r in records if r.proposals is not None), default=0)


def _several(size: int | Sequence[int] | None) -> Sequence[int | None]:
    """A size, or none, as a list of one."""
    return list(size) if isinstance(size, list | tuple) else [size]  # type: ignore[list-item]


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 1)


class _Objects:
    """The objects of all records end to end, so that two numbers say which are an image's."""

    def __init__(self, records: "Sequence[Record]", skeleton: Skeleton | None = None) -> None:
        counts = [len(record.labels) for record in records]
        self.starts = tf.constant(np.cumsum([0, *counts]), tf.int64)
        self.columns = {
            name: tf.constant(np.concatenate([getattr(record, name) for record in records]), dtype)
            for name, dtype in DTYPES.items()
        }
        if skeleton is not None:
            keypoints = [
                np.zeros((len(r), len(skeleton), 3)) if r.keypoints is None else r.keypoints
                for r in records
            ]
            self.columns["keypoints"] = tf.constant(np.concatenate(keypoints), tf.float32)

    def of(self, index: tf.Tensor) -> Sample:
        first, stop = self.starts[index], self.starts[index + 1]
        return {name: column[first:stop] for name, column in self.columns.items()}
