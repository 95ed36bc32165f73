"""What the papers and those who quote them report; nothing here was measured by this package."""

from dataclasses import dataclass

FAST = "Fast R-CNN (Girshick 2015), table 4: VGG-16, one K40, proposals not counted"
FASTER = "Faster R-CNN (Ren et al. 2015), table 5: VGG-16, one K40"
FASTER_AP = "Faster R-CNN (Ren et al. 2015), table 3: trained on VOC 2007, 300 proposals"
MASK = "Mask R-CNN (He et al. 2017), 4.4 and table 3: ResNet-101-FPN, one M40, COCO test-dev"
QUOTED = "widely quoted, for instance in Stanford's CS231n of 2017, lecture 11"
SEARCH = "Selective search (Uijlings et al. 2013), tables 4 (time) and 5: VOC 2007 test"


@dataclass(frozen=True)
class Figure:
    """One published line.

    Attributes:
        what: the detector.
        source: paper and table.
        proposals: seconds an image for them; None where it is not told.
        features: seconds an image for the convolutions.
        regions: seconds an image for what is done for each region.
        total: seconds an image.
        with_proposals: whether `total` has the proposals in it.
        voc07: mAP of VOC 2007 test in percent.
        coco: box AP of COCO in percent.
    """

    what: str
    source: str
    proposals: float | None = None
    features: float | None = None
    regions: float | None = None
    total: float | None = None
    with_proposals: bool = False
    voc07: float | None = None
    coco: float | None = None


@dataclass(frozen=True)
class SearchFigure:
    """Selective search in a mode: recall at IoU 0.5, boxes and seconds an image."""

    mode: str
    recall: float
    boxes: int
    seconds: float


FIGURES = (
    Figure("R-CNN", QUOTED, total=49.0, with_proposals=True),
    Figure("Fast R-CNN", QUOTED, total=2.3, with_proposals=True),
    Figure("Faster R-CNN", QUOTED, total=0.2, with_proposals=True),
    Figure("R-CNN", FAST, total=47.0, voc07=66.0),
    Figure("Fast R-CNN", FAST, total=0.32, voc07=66.9),
    Figure("Fast R-CNN, truncated SVD", FAST, total=0.22, voc07=66.6),
    Figure(
        "Fast R-CNN on selective search",
        FASTER,
        proposals=1.51,
        features=0.146,
        regions=0.174,
        total=1.83,
        with_proposals=True,
    ),
    Figure(
        "Faster R-CNN",
        FASTER,
        proposals=0.010,
        features=0.141,
        regions=0.047,
        total=0.198,
        with_proposals=True,
    ),
    Figure("Faster R-CNN", FASTER_AP, voc07=69.9),
    Figure("Mask R-CNN", MASK, total=0.195, with_proposals=True, coco=38.2),
)
SELECTIVE_SEARCH = (
    SearchFigure("fast", 0.980, 2134, 3.79),
    SearchFigure("quality", 0.991, 10097, 17.15),
)
