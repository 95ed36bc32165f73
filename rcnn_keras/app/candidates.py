"""All that a detector could find in an image, and what of it two thresholds let pass.

D candidates: detections before non-maximum suppression, so that it can be done again with any IoU
without another run of the model.
"""

from os import PathLike

import numpy as np

from rcnn_keras.data.detections import Detections
from rcnn_keras.models import Detector
from rcnn_keras.ops import nms_loop
from rcnn_keras.proposals import selective_search

LOWEST_SCORE = 0.05  # candidates score more
MOST_CANDIDATES = 1000  # an image, the best; each has a mask to draw
MOST_PROPOSALS = 2000  # an image, as in the papers


def give_candidates(model: Detector) -> Detector:
    """Let a detector return candidates in place of detections, and return it.

    It then keeps what overlaps, up to `MOST_CANDIDATES` an image that score more than
    `LOWEST_SCORE`. The model is changed in place; its `get_config()` still has the thresholds that
    it was built with.
    """
    layer = model.detection_layer
    layer.score_threshold = min(layer.score_threshold, LOWEST_SCORE)
    layer.nms_thresh = 1.0  # no overlap is above it
    layer.max_detections = max(layer.max_detections, MOST_CANDIDATES)
    model.predict_function = None  # one that is traced has the old numbers
    return model


def found_in(image: str | PathLike[str] | np.ndarray, model: Detector) -> Detections:
    """Return the candidates in one image, best first.

    Args:
        image: a file or an array, as `read_image` takes them.
        model: of `give_candidates`. One that takes proposals gets those of selective search, mode
            fast.

    Raises:
        ImageError: if the image cannot be read.
    """
    search = _selective_search if model.takes_proposals else None
    (candidates,) = model.detect(image, proposals=search)
    return candidates


def shown(candidates: Detections, min_score: float, nms_iou: float, most: int) -> Detections:
    """Return the candidates that pass both thresholds: what the model built with them detects.

    Args:
        candidates: of one image.
        min_score: those that score less are left out, 0..1.
        nms_iou: IoU with a better one of the same class above which a candidate is dropped.
        most: how many are kept, the best.
    """
    likely = candidates.above(min_score)
    kept = [np.array([], np.intp)]
    for label in np.unique(likely.labels):
        of_class = np.flatnonzero(likely.labels == label)
        kept.append(of_class[nms_loop(likely.boxes[of_class], likely.scores[of_class], nms_iou)])
    return likely.take(np.sort(np.concatenate(kept))[:most])  # they come best first


def _selective_search(image: np.ndarray) -> np.ndarray:
    return selective_search(image)[:MOST_PROPOSALS]
