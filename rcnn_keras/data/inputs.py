"""A detector's inputs straight from images or records: no graph is built or traced.

Images without ground truth become a dataset, so that detection reads them as training does.
B images a batch, H and W the batch's padded height and width, R the most proposals of any image.
"""

import os
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from os import PathLike
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.image_files import images_in
from rcnn_keras.data.images import (
    NEEDED,
    ImageError,
    image_header,
    read_image,
)
from rcnn_keras.data.pipeline import SIZE_MULTIPLE, Batches, max_proposals, read_pixels
from rcnn_keras.data.value_range import FULL, ValueRange

OneImage = str | PathLike | np.ndarray | Image.Image

Images = OneImage | Record | Iterable[OneImage] | Sequence[Record] | DetectionDataset


def unlabelled(
    images: Any, classes: Sequence[str], value_range: ValueRange = FULL
) -> DetectionDataset:
    """Return a dataset of `images`, numbered from 0, without objects.

    Args:
        images: one image or many of those that `each_image` takes; or a record, or a list or tuple
            of records, which keep their ids and proposals.
        classes: the class names of the detector.
        value_range: how values of more than 8 bits become 0..255, see `read_image`.

    Raises:
        ImageError: for an image that cannot be read, or anything that is none, before any file is
            decoded.
    """
    if isinstance(images, Record):
        images = [images]
    if isinstance(images, list | tuple) and images and isinstance(images[0], Record):
        return DetectionDataset(
            [record.select(np.zeros(len(record), bool)) for record in images], classes
        )
    records = []
    for number, image in enumerate(each_image(images)):
        pixels = None
        if not isinstance(image, str | PathLike):
            pixels = read_image(image, value_range, name=f"image {number}")
        path = os.fsdecode(image) if pixels is None else f"image {number}"
        height, width = image_header(path) if pixels is None else pixels.shape[:2]
        empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0)
        records.append(Record(number, path, height, width, *empty, pixels=pixels))
    return DetectionDataset(records, classes)


def each_image(images: Any) -> Iterator[Any]:
    """Yield the paths, arrays and Pillow images that one image or many are.

    A folder stands for its images, sorted by name, an array `(B, H, W, C)` or a list for those in
    it, as does an array or a column of a table that has paths, and a tensor for its array.

    Raises:
        ImageError: for what is not an image: None, bytes, numbers, mappings; names its place.

    Warns:
        UserWarning: for each folder, with what was passed over in it.
    """
    if isinstance(images, str | PathLike):
        yield from _of_path(images)
    elif isinstance(images, Image.Image) or (_is_array(images) and np.ndim(images) != 1):
        yield from _of_array(images)
    elif isinstance(images, Iterable) and not isinstance(images, bytes | bytearray | Mapping):
        for number, image in enumerate(images):
            if isinstance(image, str | PathLike):
                yield from _of_path(image)
            elif isinstance(image, Image.Image) or _is_array(image):
                yield from _of_array(image)
            else:
                raise ImageError(f"image {number} of type {type(image).__name__}", NEEDED)
    else:
        raise ImageError(f"image of type {type(images).__name__}", NEEDED)


def _is_array(value: Any) -> bool:
    """Return whether this is an array or a tensor of NumPy's, TensorFlow's, Keras', PyTorch's."""
    return hasattr(value, "__array__") and not isinstance(value, np.generic)


def _of_path(path: str | PathLike) -> Iterator[str | PathLike]:
    if not os.path.isdir(path):
        yield path
        return
    images, passed_over = images_in(path)
    if not images:
        has = f"it has {passed_over}" if passed_over else "it is empty"
        raise ImageError(os.fsdecode(path), f"no image in this folder; {has}")
    if passed_over:
        warnings.warn(f"{os.fsdecode(path)}: passed over {passed_over}", stacklevel=2)
    yield from images


def _of_array(image: Any) -> Iterator[Any]:
    is_batch = len(getattr(image, "shape", ())) == 4
    yield from image if is_batch else (image,)


Proposals = Mapping[int, np.ndarray] | Sequence[np.ndarray] | Callable[[np.ndarray], np.ndarray]


def with_given_proposals(
    dataset: DetectionDataset, proposals: Proposals, value_range: ValueRange = FULL
) -> DetectionDataset:
    """Return the dataset with the proposals of each image, in whichever form they come.

    Args:
        dataset: the images.
        proposals: `(r, 4)` boxes `xyxy` in pixels of the upright image: a list with those of each
            image in order, a mapping from image ids, or a function from the image, `(H, W, 3)`
            uint8 RGB.
        value_range: of the images that a function gets, see `read_image`.

    Raises:
        ValueError: for an image without an entry, a list of another length, or boxes outside their
            image.
        ImageError: for an image that cannot be read, if a function is given.
    """
    ids = [record.image_id for record in dataset]
    if callable(proposals):
        found = [proposals(read_image(record.image, value_range)) for record in dataset]
    elif isinstance(proposals, Mapping):
        return dataset.with_proposals(proposals)
    else:
        found = list(proposals)
        if len(found) != len(ids):
            raise ValueError(f"proposals of {len(found)} images for {len(ids)} images")
    return dataset.with_proposals(
        {
            i: np.asarray(boxes, np.float32).reshape(-1, 4)
            for i, boxes in zip(ids, found, strict=True)
        }
    )


def input_batches(batches: Batches) -> Iterator[dict[str, np.ndarray]]:
    """Yield the inputs of one pass over `Batches`, without targets and augmentation.

    The same numbers as `Batches.tf_dataset` gives, which traces its graph again for each dataset:
    that pays for an epoch and not for an image. Threads read further images in advance.

    Args:
        batches: the images, in their order; of several sizes the last one is taken.

    Yields:
        `images` (B, H, W, 3) float32 in 0..255, zeros at the bottom and right; `image_sizes` (B, 2)
        int32 height and width of the valid part; `image_ids` (B,) int64; with proposals,
        `proposals` (B, R, 4) float32 xyxy in pixels of the resized image and `num_proposals` (B,)
        int32.

    Raises:
        ImageError: for an image that cannot be read, or has not the size of its record.
    """
    dataset, batch_size = batches.dataset, batches.batch_size
    rows = max_proposals(dataset)
    with ThreadPoolExecutor() as pool:
        samples = ((record, pool.submit(_sample, record, batches)) for record in dataset)
        waiting = deque(islice(samples, batch_size + (os.cpu_count() or 1)))
        while waiting:
            batch = [waiting.popleft() for _ in range(min(batch_size, len(waiting)))]
            waiting.extend(islice(samples, len(batch)))
            read = [sample.result() for _, sample in batch]
            inputs = _stacked([sample["image"] for sample in read])
            if batches.proposals:
                inputs |= _stacked_proposals([sample["proposals"] for sample in read], rows)
            ids = np.array([record.image_id for record, _ in batch], np.int64)
            yield inputs | {"image_ids": ids}


def _sample(record: Record, batches: Batches) -> dict[str, np.ndarray]:
    """Return a record's `image` at the size that the detector sees, and its `proposals` there."""
    sample = {"image": read_pixels(record, batches.value_range)}
    if batches.proposals:
        assert record.proposals is not None  # `Batches` saw to it
        sample["proposals"] = record.proposals
    old = np.array([record.height, record.width], np.int32)
    new = np.array(batches.resized_sizes(record)[-1], np.int32)
    with tf.device("CPU:0"):
        resized = batches.resized(sample, old, new)
        return {name: np.asarray(value) for name, value in resized.items()}


def _stacked(images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return images of different sizes as one batch."""
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    height, width = -(-sizes.max(axis=0) // SIZE_MULTIPLE) * SIZE_MULTIPLE
    stacked = np.zeros((len(images), height, width, 3), np.float32)
    for place, image in zip(stacked, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    return {"images": stacked, "image_sizes": sizes}


def _stacked_proposals(proposals: Sequence[np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Return the proposals of a batch, those of each image filled up to as many `rows`."""
    stacked = np.zeros((len(proposals), rows, 4), np.float32)
    for padded, boxes in zip(stacked, proposals, strict=True):
        padded[: len(boxes)] = boxes
    return {"proposals": stacked, "num_proposals": np.array([*map(len, proposals)], np.int32)}
