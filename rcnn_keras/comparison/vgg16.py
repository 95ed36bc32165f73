"""The family on the papers' network: VGG-16, images of 600 pixels, up to 2,000 proposals.

Time alone is measured, so the weights are drawn at random. It is what shows how R-CNN and its
successors compare, all on the same network: that of the trained R-CNN is much smaller.
"""

import keras

from rcnn_keras.comparison.timing import count_proposals, time_detector
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.models import RCNN, Detector, FasterRCNN, FastRCNN, truncate_svd

CLASSES = tuple(f"class {number}" for number in range(1, 21))  # as many as Pascal VOC has
FASTER = {  # as published: 6,000 boxes go into NMS, and 300 proposals come out
    "min_size": 600,
    "max_size": 1000,
    "rpn_pre_nms_top_n_test": 6000,
    "rpn_post_nms_top_n_test": 300,
}


def time_vgg16(dataset: DetectionDataset, repeats: int) -> dict[str, dict[str, float]]:
    """Return the seconds of each part of R-CNN, Fast R-CNN with and without SVD and Faster R-CNN.

    R-CNN takes minutes an image on two cores.

    Args:
        dataset: a few images with proposals.
        repeats: how often each part runs on an image; one that takes a minute runs once.

    Returns:
        By the names of `FAMILY` the parts of `time_detector`, and `boxes`, the regions an image.
    """
    found = {}
    fast = _build(FastRCNN)
    found["fast_rcnn"] = _time(fast, dataset, repeats)
    found["fast_rcnn_svd"] = _time(truncate_svd(fast), dataset, repeats)
    del fast
    found["faster_rcnn"] = _time(_build(FasterRCNN, **FASTER), dataset, repeats)
    return {"rcnn": _time(_build(RCNN), dataset, repeats)} | found


def _build(architecture: type[Detector], **arguments) -> Detector:
    keras.utils.set_random_seed(0)
    return architecture("vgg16", CLASSES, **arguments)  # type: ignore[call-arg]


def _time(model: Detector, dataset: DetectionDataset, repeats: int) -> dict[str, float]:
    parts = time_detector(model, dataset, repeats)
    return parts | {"boxes": count_proposals(model, dataset)}
