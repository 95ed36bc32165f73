"""The kind of every detection: correct, or one of the errors that a detector can make.

D detections of all images, K classes. After Hoiem, Chodpathumwan and Dai, "Diagnosing Error in
Object Detectors" (ECCV 2012), with duplicates separate from bad localisation, and a kind for
both errors at once, as in Bolya et al., "TIDE" (ECCV 2020).
"""

from os import PathLike
from typing import NamedTuple

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation.matching import (
    AnyDetections,
    ImagePairs,
    Kind,
    check_thresholds,
    pair_detections,
)
from rcnn_keras.evaluation.report.plots import LIGHT, Theme, plot_errors

RIGHT, DUPLICATE, LOCALISATION, WRONG_CLASS, BOTH, BACKGROUND, IGNORED = range(7)
KINDS = (
    "true positive",
    "duplicate",
    "localisation",
    "wrong class",
    "class and localisation",
    "background",
    "ignored",
)
FALSE_POSITIVES = KINDS[DUPLICATE:IGNORED]
MISSED = "missed"  # the false negatives


class Case(NamedTuple):
    """One detection, or one object that was missed.

    Attributes:
        kind: a name of `KINDS`, or `MISSED`.
        image_id: of its image.
        label: the class that was predicted, or missed.
        detection: its index among those given for its image; -1 for a missed object.
        object: index in the record of the object that decides the kind; -1 for none.
        score: of the detection in 0..1; NaN for a missed object.
        overlap: the detection's IoU with that object, 0 for none.
    """

    kind: str
    image_id: int
    label: int
    detection: int
    object: int
    score: float
    overlap: float


class DetectionErrors:
    """The kind of each detection, and the objects that were missed.

    A detection is of the first kind that holds:

    1. true positive: it matches an object of its class by IoU of at least `iou`; by falling score,
       each detection is matched to the unmatched object that it overlaps most, as in COCO;
    2. ignored: it lies on a crowd region or a difficult object of its class, as the protocols
       ignore it: by `iou` of its own area for a region (COCO), by IoU for an object (VOC);
    3. duplicate: IoU of at least `iou` with an object of its class that a detection of a higher
       score has matched;
    4. localisation: IoU of at least `background_iou` with an object of its class;
    5. wrong class: IoU of at least `iou` with an object of another class;
    6. class and localisation: IoU of at least `background_iou` with one of another class;
    7. background: none of these.

    Crowd regions and difficult objects count in rule 2 only, and are never missed.

    Args:
        dataset: images and ground truth.
        detections: the detections of each image by image id, or the rows of `coco_results`.
        iou: from which IoU on an object counts as found, in 0..1.
        background_iou: below which IoU a detection has nothing to do with an object, at most `iou`.
        min_score: detections below it are left out, so that the table shows what a user of that
            threshold sees.
        kind: `"box"` or `"mask"`, what is compared.

    Attributes:
        classes: the K names.
        image_ids: `(D,)` int64, image after image as in the dataset, by falling score in each.
        indices: `(D,)` int, the index of each among those given for its image.
        scores: `(D,)` float64.
        labels: `(D,)` int32.
        kinds: `(D,)` int, index of the kind in `KINDS`.
        objects: `(D,)` int, index in the record of the object that decides the kind, or -1.
        overlaps: `(D,)` float64, the IoU with it.
        missed: `(F, 3)` int64: image id, index in the record and label of each missed object.
        missed_areas: `(F,)` float64 in square pixels: as stated by the file, else of the box.

    Raises:
        ValueError: for thresholds out of range, and as `pair_detections`.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: AnyDetections,
        *,
        iou: float = 0.5,
        background_iou: float = 0.1,
        min_score: float = 0.5,
        kind: Kind = "box",
    ):
        thresholds = {"iou": iou, "background_iou": background_iou, "min_score": min_score}
        check_thresholds("DetectionErrors", **thresholds)
        if not 0 < background_iou <= iou:
            raise ValueError(
                "DetectionErrors: background_iou must be above 0 and at most iou, "
                f"not {background_iou!r} with iou={iou!r}"
            )
        self.classes = tuple(dataset.classes)
        self.iou, self.background_iou, self.min_score, self.kind = *thresholds.values(), kind
        images: list[tuple[np.ndarray, ...]] = []
        missed, areas = [np.zeros((0, 3), np.int64)], [np.zeros(0)]
        for pairs in pair_detections(dataset, detections, kind=kind, min_score=min_score):
            kinds, objects, overlaps = _classify(pairs, iou, background_iou)
            ids = np.full(len(kinds), pairs.record.image_id, np.int64)
            found = pairs.indices, pairs.scores, pairs.labels
            images.append((ids, *found, kinds, objects, overlaps))
            unmatched = np.setdiff1d(np.flatnonzero(pairs.must_be_found), objects[kinds == RIGHT])
            labels = pairs.record.labels[unmatched]
            rows = [np.full(len(unmatched), pairs.record.image_id), unmatched, labels]
            missed.append(np.stack(rows, axis=1))
            areas.append(_areas(pairs)[unmatched])
        columns = [np.concatenate(column) for column in zip(*images, strict=True)]
        columns = columns or [np.zeros(0, int)] * 7  # of a dataset without images
        self.image_ids, self.indices, self.scores, self.labels = columns[:4]
        self.kinds, self.objects, self.overlaps = columns[4:]
        self.missed, self.missed_areas = np.concatenate(missed), np.concatenate(areas)

    def table(self) -> dict[str, dict[str, int]]:
        """Return for each class its `objects`, and how many detections are of each of `KINDS`.

        `missed` is how many of the objects are not found; `objects` is the sum of `missed` and
        `true positive`. Detections count for the class that they predict.
        """
        size = len(self.classes), len(KINDS)
        kinds = np.zeros(size, int)
        np.add.at(kinds, (self.labels, self.kinds), 1)
        missed = np.bincount(self.missed[:, 2], minlength=len(self.classes))
        return {
            name: {
                "objects": int(kinds[k, RIGHT] + missed[k]),
                **dict(zip(KINDS, kinds[k].tolist(), strict=True)),
                MISSED: int(missed[k]),
            }
            for k, name in enumerate(self.classes)
        }

    def plot(self, path: str | PathLike[str], theme: Theme = LIGHT) -> None:
        """Write the table as a PNG with a stacked bar for each class; see `plot_errors`."""
        plot_errors(path, self.table(), theme)

    def worst(self, kind: str, count: int) -> list[Case]:
        """Return the detections of a kind with the highest scores, or the largest missed objects.

        Args:
            kind: a name of `KINDS`, or `MISSED`.
            count: how many at most.

        Raises:
            ValueError: for another kind.
        """
        if kind == MISSED:
            order = np.argsort(-self.missed_areas, kind="stable")[:count]
            return [
                Case(MISSED, image_id, label, -1, index, float("nan"), 0.0)
                for image_id, index, label in self.missed[order].tolist()
            ]
        if kind not in KINDS:
            raise ValueError(f"worst: kind must be one of {[*KINDS, MISSED]}, not {kind!r}")
        of_kind = np.flatnonzero(self.kinds == KINDS.index(kind))
        order = of_kind[np.argsort(-self.scores[of_kind], kind="stable")][:count]
        columns: list[np.ndarray] = [self.image_ids, self.labels, self.indices, self.objects]
        columns += [self.scores, self.overlaps]
        rows = zip(*(column[order].tolist() for column in columns), strict=True)
        return [Case(kind, *row) for row in rows]


def _classify(
    pairs: ImagePairs, iou: float, background_iou: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return kind, deciding object and overlap of each detection of an image."""
    same_class, must_be_found = pairs.same_class, pairs.must_be_found
    own = pairs.best_overlap(same_class & must_be_found)
    other = pairs.best_overlap(~same_class & must_be_found)
    ignored = pairs.best_overlap(same_class & ~must_be_found)
    objects = pairs.assign(same_class & must_be_found, iou)
    kinds = np.where(objects >= 0, RIGHT, BACKGROUND)
    overlaps = np.zeros(len(kinds))
    for kind, (overlap, nearest), threshold in (
        (IGNORED, ignored, iou),
        (DUPLICATE, own, iou),
        (LOCALISATION, own, background_iou),
        (WRONG_CLASS, other, iou),
        (BOTH, other, background_iou),
    ):
        new = (kinds == BACKGROUND) & (overlap >= threshold)
        kinds[new], objects[new] = kind, nearest[new]
    decided = objects >= 0
    overlaps[decided] = pairs.overlaps[decided, objects[decided]]
    return kinds, objects, overlaps


def _areas(pairs: ImagePairs) -> np.ndarray:
    if pairs.record.areas is not None:
        return pairs.record.areas
    sides = pairs.record.boxes[:, 2:] - pairs.record.boxes[:, :2]
    return sides.prod(axis=1).astype(np.float64)
