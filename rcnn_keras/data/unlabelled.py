"""Images without ground truth as a dataset, so that detection reads them as training does."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import image_header, read_image
from rcnn_keras.data.records import Record

GivenProposals = (
    Mapping[int, np.ndarray] | Sequence[np.ndarray] | Callable[[np.ndarray], np.ndarray]
)


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


def with_given_proposals(dataset: DetectionDataset, proposals: GivenProposals) -> DetectionDataset:
    """Return the dataset with proposals.

    Args:
        dataset: the images.
        proposals: boxes `(r, 4)` by image id, or a list of them with an entry an image, or a
            function from an image `(H, W, 3)` uint8 to them.

    Raises:
        ValueError: for another number of entries than images, or as `with_proposals` does.
        ImageError: for an image that cannot be read; names it.
    """
    if isinstance(proposals, Mapping):
        return dataset.with_proposals(proposals)
    if callable(proposals):
        boxes = [proposals(read_image(r.path if r.pixels is None else r.pixels)) for r in dataset]
    else:
        boxes = list(proposals)
    if len(boxes) != len(dataset):
        raise ValueError(f"{len(boxes)} entries of proposals for {len(dataset)} images")
    ids = (record.image_id for record in dataset)
    return dataset.with_proposals(dict(zip(ids, boxes, strict=True)))
