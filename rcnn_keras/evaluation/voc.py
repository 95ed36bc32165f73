"""Pascal VOC's average precision (Everingham et al., IJCV 2010; the devkits of 2007 to 2012).

P objects of a class that must be found, D detections of it that count, K classes.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation.matching import (
    AnyDetections,
    ImagePairs,
    Kind,
    check_thresholds,
    pair_detections,
)

RIGHT, WRONG, IGNORED = 1, 0, -1


@dataclass(frozen=True, eq=False)
class VocCurve:
    """Precision by recall of one class, point by point as the score falls.

    Attributes:
        scores: `(D,)` float64, falling.
        hits: `(D,)` bool, which detections are right.
        positives: P, how many objects must be found; may be 0.
    """

    scores: np.ndarray
    hits: np.ndarray
    positives: int

    @property
    def recall(self) -> np.ndarray:
        """Share of the objects found by the first detections, `(D,)` in 0..1; NaN if P is 0."""
        hits = np.cumsum(self.hits)
        return hits / self.positives if self.positives else np.full(len(hits), np.nan)

    @property
    def precision(self) -> np.ndarray:
        """Share of the first detections that are right, `(D,)` in 0..1, not interpolated."""
        return np.cumsum(self.hits) / np.arange(1, len(self.hits) + 1)

    @property
    def interpolated(self) -> np.ndarray:
        """The best precision at this recall or a higher one, `(D,)`: it never rises."""
        return np.maximum.accumulate(self.precision[::-1])[::-1]

    def area(self) -> float:
        """Return the area under the interpolated curve (VOC 2010 and later); NaN without objects.

        Recall grows by 1 / P at each hit and nowhere else.
        """
        if not self.positives:
            return float("nan")
        return float(self.interpolated[self.hits].sum() / self.positives)

    def eleven_points(self) -> float:
        """Return the mean of the interpolated precision at recall 0, 0.1, .., 1 (VOC 2007).

        A recall that is not reached has precision 0. Recalls are compared as whole numbers: 3 of
        10 objects do reach 0.3. NaN without objects.
        """
        if not self.positives:
            return float("nan")
        reached = 10 * np.cumsum(self.hits) >= np.arange(11)[:, None] * self.positives
        best = np.where(reached, self.precision, 0).max(axis=1, initial=0)
        return float(best.mean())


class VocScores:
    """Average precision of detections on a dataset, as the Pascal VOC challenge counts it.

    In each image, by falling score, a detection is compared with the one object of its class that
    it overlaps most. It is right if their IoU is at least `iou` and no detection of a higher score
    matched that object; a second one is wrong, even where another object is unmatched (COCO would
    take that). If the object is difficult the detection is ignored; difficult objects need not be
    found. Crowd regions, which VOC does not have, are ignored as in COCO: a detection that would be
    wrong and lies in one is ignored.

    Boxes are continuous, as everywhere in this package; the devkit counts pixels and adds 1 to each
    side. The IoU of small boxes is therefore lower here (10 x 5 of 10 x 10 is 0.50, in the devkit
    11 x 6 of 11 x 11 or 0.55); that of boxes above 100 pixels differs by less than 0.01.

    Args:
        dataset: images and ground truth.
        detections: the detections of each image by image id, or the rows of `coco_results`; an
            image left out has no detections.
        protocol: `"voc07"` takes the mean of 11 points of the interpolated curve (VOC 2007),
            `"voc"` the area under it (VOC 2010 and later).
        iou: threshold in 0..1, above 0.
        kind: `"box"` or `"mask"`, what is compared.

    Attributes:
        classes: the K names.
        curves: for each class its `VocCurve`.

    Raises:
        ValueError: for another protocol, a threshold out of range, and as `pair_detections`.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: AnyDetections,
        *,
        protocol: Literal["voc07", "voc"] = "voc",
        iou: float = 0.5,
        kind: Kind = "box",
    ):
        if protocol not in ("voc07", "voc"):
            raise ValueError(f"VocScores: protocol must be 'voc07' or 'voc', not {protocol!r}")
        check_thresholds("VocScores", iou=iou)
        if not iou:
            raise ValueError("VocScores: iou must be above 0")
        self.classes = tuple(dataset.classes)
        self.protocol, self.iou, self.kind = protocol, iou, kind
        positives = np.zeros(len(self.classes), int)
        scores, labels, outcomes = [np.zeros(0)], [np.zeros(0, int)], [np.zeros(0, int)]
        for pairs in pair_detections(dataset, detections, kind=kind):
            labels_to_find = pairs.record.labels[pairs.must_be_found]
            positives += np.bincount(labels_to_find, minlength=len(self.classes))
            scores.append(pairs.scores)
            labels.append(pairs.labels)
            outcomes.append(_outcomes(pairs, iou))
        all_scores, all_labels = np.concatenate(scores), np.concatenate(labels)
        all_outcomes = np.concatenate(outcomes)
        order = np.argsort(-all_scores, kind="stable")
        self.curves: dict[str, VocCurve] = {}
        for k, name in enumerate(self.classes):
            of_class = order[(all_labels[order] == k) & (all_outcomes[order] != IGNORED)]
            hits = all_outcomes[of_class] == RIGHT
            self.curves[name] = VocCurve(all_scores[of_class], hits, int(positives[k]))

    def summary(self) -> dict[str, float]:
        """Return `mAP`, the mean over the classes, and `AP/<class>` for each, in 0..1.

        A class without objects that must be found is NaN and not in the mean.
        """
        scores = {f"AP/{name}": self.average_precision(name) for name in self.classes}
        known = [score for score in scores.values() if not np.isnan(score)]
        return {"mAP": float(np.mean(known)) if known else float("nan"), **scores}

    def precision_recall(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return for each class recall `(D,)` and precision `(D,)`, not interpolated.

        `curves` has the interpolated precision. Classes without objects are left out.
        """
        return {n: (c.recall, c.precision) for n, c in self.curves.items() if c.positives}

    def average_precision(self, name: str) -> float:
        """Return the average precision of a class by the protocol; NaN without objects."""
        curve = self.curves[name]
        return curve.eleven_points() if self.protocol == "voc07" else curve.area()


def _outcomes(pairs: ImagePairs, iou: float) -> np.ndarray:
    """Return whether each detection of an image is right, wrong or ignored, `(d,)`."""
    difficult = pairs.record.difficult
    difficult = np.zeros(len(pairs.record), bool) if difficult is None else difficult
    region = pairs.record.crowd & ~difficult
    overlap, nearest = pairs.best_overlap(pairs.same_class & ~region)
    near = np.flatnonzero(overlap >= iou)
    _, first = np.unique(nearest[near], return_index=True)  # the best score comes first
    outcomes = np.full(len(pairs.scores), WRONG)
    outcomes[near[first]] = RIGHT
    outcomes[near[difficult[nearest[near]]]] = IGNORED
    in_region = pairs.best_overlap(pairs.same_class & region)[0] >= iou
    outcomes[in_region & (outcomes == WRONG)] = IGNORED
    return outcomes
