"""Proposals as a caller has them, brought into a dataset."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import read_image

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
