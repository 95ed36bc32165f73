"""What the papers, and those who quote them, report; nothing here was measured by this package."""

from typing import NamedTuple

FAST = "Fast R-CNN (Girshick 2015), table 4: VGG-16, one K40, proposals not counted"
FASTER = "Faster R-CNN (Ren et al. 2015), table 5: VGG-16, one K40"
FASTER_AP = "Faster R-CNN (Ren et al. 2015), table 3: trained on VOC 2007, 300 proposals"
MASK = "Mask R-CNN (He et al. 2017), 4.4 and table 3: ResNet-101-FPN, one M40, COCO test-dev"
QUOTED = "widely quoted, for instance in Stanford's CS231n of 2017, lecture 11"


class Figure(NamedTuple):
    """Published seconds an image, in stages and as a whole, and mAP; None where it is not said.

    `voc07` is the mAP of VOC 2007 test in percent, `coco` the box AP of COCO in percent.
    """

    what: str
    source: str
    total: float | None = None
    voc07: float | None = None
    proposals: float | None = None
    features: float | None = None
    regions: float | None = None
    coco: float | None = None


FIGURES = (
    Figure("R-CNN", QUOTED, 49.0),
    Figure("Fast R-CNN", QUOTED, 2.3),
    Figure("Faster R-CNN", QUOTED, 0.2),
    Figure("R-CNN", FAST, 47.0, 66.0),
    Figure("Fast R-CNN", FAST, 0.32, 66.9),
    Figure("Fast R-CNN, truncated SVD", FAST, 0.22, 66.6),
    Figure("Fast R-CNN on selective search", FASTER, 1.83, None, 1.51, 0.146, 0.174),
    Figure("Faster R-CNN", FASTER, 0.198, None, 0.010, 0.141, 0.047),
    Figure("Faster R-CNN", FASTER_AP, None, 69.9),
    Figure("Mask R-CNN", MASK, 0.195, coco=38.2),
)

# Recall at IoU 0.5, boxes and seconds an image: Uijlings et al. 2013, tables 4 (time) and 5.
SELECTIVE_SEARCH = {
    "published, fast, VOC 2007 test": {"recall": 0.980, "boxes": 2134, "seconds": 3.79},
    "published, quality, VOC 2007 test": {"recall": 0.991, "boxes": 10097, "seconds": 17.15},
}
