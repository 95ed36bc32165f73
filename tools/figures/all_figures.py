"""Every figure by the name of its file."""

from collections.abc import Callable
from pathlib import Path

from figures import (
    box_regression,
    family,
    fast_rcnn,
    faster_rcnn,
    mask_rcnn,
    metrics,
    negatives_and_nms,
    rcnn,
    selective_search,
)

PAGES = (
    metrics,
    rcnn,
    selective_search,
    box_regression,
    negatives_and_nms,
    fast_rcnn,
    faster_rcnn,
    mask_rcnn,
    family,
)
FIGURES: dict[str, Callable[[Path], None]] = {
    name: draw for page in PAGES for name, draw in page.FIGURES.items()
}
