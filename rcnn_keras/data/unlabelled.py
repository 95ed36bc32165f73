"""Images without ground truth as a dataset, so that detection reads them as training does."""

from collections.abc import Sequence
from os import PathLike

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import image_header, read_image
from rcnn_keras.data.records import Record


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
