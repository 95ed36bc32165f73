"""Detections of an image before the thresholds, and those that pass a score and an NMS threshold.

D candidates are detections before non-maximum suppression, which can then be repeated with any IoU
without running the model again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

import numpy as np

from rcnn_keras.data.detections import Detections
from rcnn_keras.models import Detector
from rcnn_keras.ops import nms_loop
from rcnn_keras.proposals import selective_search

MIN_CANDIDATE_SCORE = 0.05
MAX_CANDIDATES = 1000  # per image; each has a mask to draw
MAX_PROPOSALS = 2000  # per image, as in the papers


def return_candidates(model: Detector) -> Detector:
    """Change a detector so that it returns candidates instead of detections, and return it.

    Nothing is suppressed: it returns up to `MAX_CANDIDATES` per image with scores above
    `MIN_CANDIDATE_SCORE`. The model is changed in place; its `get_config()` still has the
    thresholds that it was built with.
    """
    layer = model.detection_layer
    layer.score_threshold = min(layer.score_threshold, MIN_CANDIDATE_SCORE)
    layer.nms_thresh = 1.0  # no IoU is above it
    layer.max_detections = max(layer.max_detections, MAX_CANDIDATES)
    model.predict_function = None  # a traced one has the old thresholds
    return model


@contextmanager
def thresholds_as_built(model: Detector) -> Iterator[None]:
    """Give a detector of `return_candidates` the thresholds of its constructor inside the block.

    What was traced before keeps the thresholds that it had.
    """
    layer, config = model.detection_layer, model.get_config()
    before = layer.score_threshold, layer.nms_thresh, layer.max_detections
    names = ("box_score_thresh", "box_nms_thresh", "box_detections_per_img")
    layer.score_threshold, layer.nms_thresh, layer.max_detections = (config[n] for n in names)
    try:
        yield
    finally:
        layer.score_threshold, layer.nms_thresh, layer.max_detections = before


def detect_candidates(image: str | PathLike[str] | np.ndarray, model: Detector) -> Detections:
    """Return the candidates in one image, best first.

    Args:
        image: a file or an array, as `read_image` takes them.
        model: of `return_candidates`. One that takes proposals is given those of selective search,
            mode fast.

    Raises:
        ImageError: if the image cannot be read.
    """
    search = _selective_search if model.takes_proposals else None
    (candidates,) = model.detect(image, proposals=search)
    return candidates


def filter_candidates(
    candidates: Detections, min_score: float, nms_iou: float, max_detections: int
) -> Detections:
    """Return the candidates that pass both thresholds, as a model built with them detects.

    Args:
        candidates: of one image.
        min_score: candidates of lower scores are left out, 0..1.
        nms_iou: IoU with a kept one of the same class above which a candidate is dropped.
        max_detections: maximum number, those of the highest scores.
    """
    scored = candidates.above(min_score)
    kept = [np.array([], np.intp)]
    for label in np.unique(scored.labels):
        of_class = np.flatnonzero(scored.labels == label)
        kept.append(of_class[nms_loop(scored.boxes[of_class], scored.scores[of_class], nms_iou)])
    return scored.take(
        np.sort(np.concatenate(kept))[:max_detections]
    )  # candidates are sorted by score


def _selective_search(image: np.ndarray) -> np.ndarray:
    return selective_search(image)[:MAX_PROPOSALS]
