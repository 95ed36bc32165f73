"""A detector's inputs straight from records: no graph is built, so none is traced.

B images a batch, H and W the batch's padded height and width, R the most proposals of any image.
"""

import os
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import tensorflow as tf

from rcnn_keras.data.batches import Batches
from rcnn_keras.data.image_sources import read_pixels
from rcnn_keras.data.images import resize_image, resized_size
from rcnn_keras.data.padding import SIZE_MULTIPLE
from rcnn_keras.data.records import Record


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
