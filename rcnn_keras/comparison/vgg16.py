"""The family on the papers' network: VGG-16, images of 600 pixels, up to 2,000 proposals.

Time alone is measured, so the weights are drawn at random. It is what shows how R-CNN and its
successors compare, all on the same network: that of the trained R-CNN is much smaller.
"""

from typing import Any

import keras

from rcnn_keras.comparison.family import FAMILY
from rcnn_keras.comparison.timing import count_proposals, time_detector
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.models import Detector

CLASSES = tuple(f"class {number}" for number in range(1, 21))  # as many as Pascal VOC has
ARGUMENTS: dict[str, dict[str, Any]] = {
    "fast_rcnn": {},
    "fast_rcnn_svd": {"box_ranks": (1024, 256)},  # what `truncate_svd` would make of it
    "faster_rcnn": {  # as published: 6,000 boxes go into NMS, and 300 proposals come out
        "min_size": 600,
        "max_size": 1000,
        "rpn_pre_nms_top_n_test": 6000,
        "rpn_post_nms_top_n_test": 300,
    },
    "rcnn": {},  # the last, as it takes minutes an image on two cores
}


def time_vgg16(name: str, dataset: DetectionDataset, repeats: int) -> dict[str, float]:
    """Return the seconds of each part of a detector on VGG-16.

    Args:
        name: a key of `ARGUMENTS`, as in `FAMILY`.
        dataset: a few images with proposals.
        repeats: how often each part runs on an image; one that takes a minute runs once.

    Returns:
        What `time_detector` does, and `boxes`, the mean number of regions an image.
    """
    keras.utils.set_random_seed(0)
    build: Any = FAMILY[name].model
    model: Detector = build("vgg16", CLASSES, **ARGUMENTS[name])
    parts = time_detector(model, dataset, repeats)
    return parts | {"boxes": count_proposals(model, dataset)}
