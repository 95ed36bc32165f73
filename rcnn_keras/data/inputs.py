"""A detector's inputs straight from images or records: no graph is built or traced.

Images without ground truth become a dataset, so that detection reads them as training does.
B images a batch, H and W the batch's padded height and width, R the most proposals of any image.
"""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from os import PathLike

import numpy as np
import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.images import image_header, read_image, resize_image, resized_size
from rcnn_keras.data.pipeline import SIZE_MULTIPLE, Batches, read_pixels


def unlabelled(
    images: Sequence[str | PathLike | np.ndarray], classes: Sequence[str]
) -> DetectionDataset:
    """Return a dataset of `images`, numbered from 0, without objects.

    Args:
        images: paths, or arrays as `read_image` takes them.
        classes: the class names of the detector.

    Raises:
        ImageError: for an image that cannot be read, before any is decoded.
    """
    records = []
    for number, image in enumerate(images):
        pixels = read_image(image) if isinstance(image, np.ndarray) else None
        path = str(image) if pixels is None else f"image {number}"
        height, width = image_header(path) if pixels is None else pixels.shape[:2]
        empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0)
        records.append(Record(number, path, height, width, *empty, pixels=pixels))
    return DetectionDataset(records, classes)


Proposals = Mapping[int, np.ndarray] | Sequence[np.ndarray] | Callable[[np.ndarray], np.ndarray]


def with_given_proposals(dataset: DetectionDataset, proposals: Proposals) -> DetectionDataset:
    """Return the dataset with the proposals of each image, in whichever form they come.

    Args:
        dataset: the images.
        proposals: `(r, 4)` boxes `xyxy` in pixels of the upright image: a list with those of each
            image in order, a mapping from image ids, or a function from the image, `(H, W, 3)`
            uint8 RGB.

    Raises:
        ValueError: for an image without an entry, a list of another length, or boxes outside their
            image.
        ImageError: for an image that cannot be read, if a function is given.
    """
    ids = [record.image_id for record in dataset]
    if callable(proposals):
        found = [proposals(read_image(record.image)) for record in dataset]
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

    The same numbers as `Batches.tf_dataset` gives, which traces its graph anew for each dataset:
    that pays for an epoch and not for an image. Threads read ahead of what is asked for.

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
    most = max((len(r.proposals) for r in dataset if r.proposals is not None), default=0)
    with ThreadPoolExecutor() as pool:
        images = ((record, pool.submit(_resized, record, batches)) for record in dataset)
        ahead = deque(islice(images, batch_size + (os.cpu_count() or 1)))
        while ahead:
            batch = [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]
            ahead.extend(islice(images, len(batch)))
            records = [record for record, _ in batch]
            inputs = _stacked(records, [image.result() for _, image in batch])
            if batches.proposals:
                inputs |= _stacked_proposals(records, inputs["image_sizes"], most)
            yield inputs


def _resized(record: Record, batches: Batches) -> np.ndarray:
    """Return a record's image `(h, w, 3)` float32, at the size that the detector sees."""
    image = read_pixels(record)
    size = record.height, record.width
    sizes = batches.min_size
    min_size = sizes[-1] if isinstance(sizes, Sequence) else sizes
    if min_size is None and batches.max_size is None:
        return image.astype(np.float32)
    size = resized_size(*size, min_size or min(size), batches.max_size or sys.maxsize)
    with tf.device("CPU:0"):
        return resize_image(image, *size, antialias=batches.antialias).numpy()


def _stacked(records: Sequence[Record], images: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return images of different sizes as one batch."""
    sizes = np.array([image.shape[:2] for image in images], np.int32)
    height, width = -(-sizes.max(axis=0) // SIZE_MULTIPLE) * SIZE_MULTIPLE
    stacked = np.zeros((len(images), height, width, 3), np.float32)
    for place, image in zip(stacked, images, strict=True):
        place[: image.shape[0], : image.shape[1]] = image
    ids = np.array([record.image_id for record in records], np.int64)
    return {"images": stacked, "image_sizes": sizes, "image_ids": ids}


def _stacked_proposals(
    records: Sequence[Record], sizes: np.ndarray, most: int
) -> dict[str, np.ndarray]:
    """Return the proposals of a batch in pixels of the resized images, filled up to `most`."""
    stacked = np.zeros((len(records), most, 4), np.float32)
    counts = np.zeros(len(records), np.int32)
    for i, (record, size) in enumerate(zip(records, sizes, strict=True)):
        assert record.proposals is not None  # `Batches` saw to it
        ratio = (size / (record.height, record.width)).astype(np.float32)[::-1]
        counts[i] = len(record.proposals)
        stacked[i, : counts[i]] = record.proposals * np.tile(ratio, 2)
    return {"proposals": stacked, "num_proposals": counts}
