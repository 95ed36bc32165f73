"""The detectors that are compared, in the order of their papers."""

from dataclasses import dataclass

from rcnn_keras.models import RCNN, Detector, FasterRCNN, FastRCNN, MaskRCNN


@dataclass(frozen=True)
class Member:
    """One line of the comparison.

    Attributes:
        title: what the page calls it.
        model: its class.
        made_of: the member that it is made from without training, None if it is trained.
        alternating: whether it is trained in the four steps of the Faster R-CNN paper.
    """

    title: str
    model: type[Detector]
    made_of: str | None = None
    alternating: bool = False


FAMILY = {
    "rcnn": Member("R-CNN", RCNN),
    "fast_rcnn": Member("Fast R-CNN", FastRCNN),
    "fast_rcnn_svd": Member("Fast R-CNN, truncated SVD", FastRCNN, made_of="fast_rcnn"),
    "faster_rcnn": Member("Faster R-CNN, joint training", FasterRCNN),
    "faster_rcnn_alternating": Member("Faster R-CNN, four steps", FasterRCNN, alternating=True),
    "mask_rcnn": Member("Mask R-CNN", MaskRCNN),
}


def name_of(model: Detector) -> str:
    """Return the place that a trained model takes in the comparison.

    Raises:
        ValueError: for a detector that is none of the four.
    """
    for name, member in FAMILY.items():
        if type(model) is member.model:
            return name
    known = sorted({member.model.__name__ for member in FAMILY.values()})
    raise ValueError(f"{type(model).__name__} is none of {', '.join(known)}")
