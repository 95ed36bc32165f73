"""COCO average precision as pycocotools computes it, accumulated image by image.

Rules and numbers are those of pycocotools' `COCOeval`, to the last bit. It matches one detection of
one image after the other; here the first detections of every image and class are matched together,
then the second ones, and so on, at all thresholds and area ranges.

D detections and G objects of all images, K classes, A area ranges, T IoU thresholds (0.50 to 0.95),
R = 101 recalls; d detections of an image, n objects in it, p pairs of a detection and an object.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from pycocotools import mask as run_length

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.keypoints import num_labelled
from rcnn_keras.data.masks import check_segmentations, mask_areas
from rcnn_keras.evaluation.keypoints import check_keypoints_there, keypoint_similarity
from rcnn_keras.evaluation.keypoints import keypoint_sigmas as sigmas_of
from rcnn_keras.evaluation.matching import coco_iou, object_masks, xywh

THRESHOLDS = np.linspace(0.5, 0.95, 10)

AREAS = {"all": (0, 1e10), "APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, 1e10)}


MAX_DETECTIONS, MAX_WITH_KEYPOINTS = 100, 20  # of an image and class, as COCO counts

WRONG, IGNORED, RIGHT = range(3)


def outside_areas(areas: np.ndarray) -> np.ndarray:
    """Return which areas, `(n,)` in square pixels, are outside of each range: `(n, A)` bool."""
    low, high = np.array(list(AREAS.values())).T
    return (areas[:, None] < low) | (areas[:, None] > high)


def match(
    detections: np.ndarray,
    objects: np.ndarray,
    overlaps: np.ndarray,
    groups: np.ndarray,
    crowd: np.ndarray,
    ignored: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Match detections to objects greedily by score, as COCO does.

    A detection is matched to the unmatched object that it overlaps most, of equals the last; to an
    ignored one only if there is no other. A crowd region may match any number of detections.

    Args:
        detections: `(P,)` int, each pair's detection. Numbers are consecutive within an image and
            class, the best score first.
        objects: `(P,)` int in 0..G-1, each pair's object, of the same image and class.
        overlaps: `(P,)` float64 IoU.
        groups: `(G,)` int, the same for objects of one image and class.
        crowd: `(G,)` bool.
        ignored: `(G, A)` bool, objects that count neither as found nor as missed.

    Returns:
        The detections that are in a pair, `(n,)` int, rising, and the outcome of each at each area
        range and threshold, `(n, A, T)` int8: `RIGHT`, `IGNORED` or `WRONG`.
    """
    paired, first, row = np.unique(detections, return_index=True, return_inverse=True)
    new_group = np.diff(groups[objects[first]], prepend=-1) != 0
    starts = np.flatnonzero(new_group)
    ranks = np.arange(len(paired)) - starts[np.cumsum(new_group) - 1]  # of each in its group
    order = np.lexsort((objects, overlaps, row, ranks[row]))
    row, objects, overlaps = row[order], objects[order], overlaps[order]
    reached = overlaps[:, None, None] >= THRESHOLDS
    outcomes = np.full((len(paired), len(AREAS), len(THRESHOLDS)), WRONG, np.int8)
    matched = np.zeros((len(crowd), *outcomes.shape[1:]), bool)
    ends = np.searchsorted(ranks[row], np.arange(ranks.max(initial=-1) + 2))
    for begin, end in pairwise(ends):
        rows, candidates, count = row[begin:end], objects[begin:end], end - begin
        free = reached[begin:end] & (~matched[candidates] | crowd[candidates, None, None])
        # later in order is better; objects that are not ignored come before all others
        value = np.arange(1, count + 1)[:, None] + count * ~ignored[candidates]
        firsts = np.flatnonzero(np.diff(rows, prepend=-1))
        best = np.maximum.reduceat(np.where(free, value[..., None], 0), firsts)
        outcomes[rows[firsts]] = np.where(best > count, RIGHT, np.where(best, IGNORED, WRONG))
        _, area, threshold = hit = np.nonzero(best)
        matched[candidates[(best[hit] - 1) % count], area, threshold] = True
    return paired, outcomes


RECALLS = np.linspace(0, 1, 101)


class ImageOverlaps(NamedTuple):
    """What is kept of one image's detections for scoring, by class and then by falling score.

    Attributes:
        scores: `(d,)` float64.
        labels: `(d,)` int, rising.
        areas: `(d,)` float64 in square pixels.
        detections: `(p,)` int in 0..d-1, of each pair of the same class with an IoU of 0.5 or more.
        objects: `(p,)` int, the object's index in the record.
        overlaps: `(p,)` float64 IoU.
    """

    scores: np.ndarray
    labels: np.ndarray
    areas: np.ndarray
    detections: np.ndarray
    objects: np.ndarray
    overlaps: np.ndarray


@dataclass(frozen=True)
class GroundTruth:
    """The objects of all images of a dataset, concatenated.

    Attributes:
        num_classes: K.
        firsts: for each image the index of its first object, and G at the end.
        labels: `(G,)` int.
        crowd: `(G,)` bool.
        ignored: `(G, A)` bool, crowd regions, objects outside of an area range, and those without
            keypoints where these are scored.
    """

    num_classes: int
    firsts: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray

    @staticmethod
    def of(dataset: DetectionDataset, kind: str) -> "GroundTruth":
        """Return the objects of a dataset.

        For `kind` "segm" areas are those of masks; for "keypoints" objects without a labelled one
        are ignored.
        """
        firsts = np.cumsum([0, *(len(record) for record in dataset)])
        crowd = _concatenate([record.crowd for record in dataset], bool)
        outside = outside_areas(_concatenate([_areas(record, kind) for record in dataset], float))
        labels = _concatenate([record.labels for record in dataset], np.int64)
        ignored = crowd.copy()
        if kind == "keypoints":
            ignored |= _concatenate([num_labelled(_keypoints(r)) == 0 for r in dataset], bool)
        return GroundTruth(len(dataset.classes), firsts, labels, crowd, ignored[:, None] | outside)


def coco_curves(
    images: Sequence[ImageOverlaps], indices: Sequence[int], truth: GroundTruth
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall of all classes.

    Args:
        images: those with detections, by rising image id, as COCO orders equal scores.
        indices: of each of them in the dataset.
        truth: the objects of all images.

    Returns:
        `(T, R, K, A)` float64 precision and `(T, K, A)` recall; see `precision_at_recall`.
    """
    scores = _concatenate([image.scores for image in images], float)
    labels = _concatenate([image.labels for image in images], np.int64)
    ignored = outside_areas(_concatenate([image.areas for image in images], float))
    offsets = np.cumsum([0, *(len(image.scores) for image in images)])
    paired, outcomes = match(
        _concatenate(
            [i.detections + n for i, n in zip(images, offsets[:-1], strict=True)], np.int64
        ),
        _concatenate(
            [i.objects + truth.firsts[n] for i, n in zip(images, indices, strict=True)], int
        ),
        _concatenate([image.overlaps for image in images], float),
        np.repeat(np.arange(len(truth.firsts) - 1), np.diff(truth.firsts)) * truth.num_classes
        + truth.labels,
        truth.crowd,
        truth.ignored,
    )
    row = np.full(len(scores), -1)
    row[paired] = np.arange(len(paired))
    order = np.lexsort((-scores, labels))
    ends = np.searchsorted(labels[order], np.arange(truth.num_classes + 1))
    curves = []
    for k, (begin, end) in enumerate(pairwise(ends)):
        of_class = order[begin:end]
        in_pair = row[of_class] >= 0
        class_outcomes = np.full((len(of_class), *outcomes.shape[1:]), WRONG, np.int8)
        class_outcomes[in_pair] = outcomes[row[of_class[in_pair]]]
        positives = (~truth.ignored[truth.labels == k]).sum(axis=0)
        curves.append(precision_at_recall(class_outcomes, ignored[of_class], positives))
    precision, recall = zip(*curves, strict=True)
    return np.stack(precision, axis=2), np.stack(recall, axis=1)


def precision_at_recall(
    outcomes: np.ndarray, ignored: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interpolated precision and the recall of one class.

    Args:
        outcomes: `(D, A, T)` int8 as `match` returns them, best score first.
        ignored: `(D, A)` bool, detections that are ignored where they are wrong.
        positives: `(A,)` int, how many objects must be found.

    Returns:
        `(T, R, A)` float64 precision in 0..1, the best at this recall or a higher one, and
        `(T, A)` recall in 0..1; -1 where there are no objects to find.
    """
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(AREAS)), -1.0)
    recall = np.full((len(THRESHOLDS), len(AREAS)), -1.0)
    for a in np.flatnonzero(positives):
        outcome = outcomes[:, a]
        counted = (outcome == RIGHT) | ((outcome == WRONG) & ~ignored[:, a, None])
        number = np.cumsum(counted, axis=0, dtype=np.int32)
        for t in range(len(THRESHOLDS)):
            # Precision only falls between two hits, so the hits alone give the maxima.
            hits = np.flatnonzero(outcome[:, t] == RIGHT)
            rank = np.arange(1, len(hits) + 1)
            best = np.maximum.accumulate((rank / (number[hits, t] + np.spacing(1)))[::-1])[::-1]
            reached = np.searchsorted(rank / positives[a], RECALLS)
            precision[t, :, a] = np.append(best, 0.0)[reached]
            recall[t, a] = len(hits) / positives[a]
    return precision, recall


def _areas(record: Record, kind: str) -> np.ndarray:
    """Return the objects' areas in square pixels: as stated by the file, else computed."""
    if record.areas is not None:
        return record.areas
    if kind == "segm":
        return np.asarray(run_length.area(object_masks(record)), np.float64)
    x1, y1, x2, y2 = record.boxes.astype(np.float64).T
    return (x2 - x1) * (y2 - y1)


def _concatenate(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)


def _keypoints(record: Record) -> np.ndarray:
    """Return the keypoints of a record, zeros if it has none: none is labelled."""
    return np.zeros((len(record), 1, 3)) if record.keypoints is None else record.keypoints


FIELDS = {"bbox": "bbox", "segm": "segmentation", "keypoints": "keypoints"}  # of a row, by `kind`


def coco_results(
    dataset: DetectionDataset, detections: Mapping[int, Detections]
) -> list[dict[str, Any]]:
    """Return detections as COCO's result rows: image id, category id, `xywh` box and score.

    Detections with masks also have a `segmentation`, an RLE mask of the values above 0.5, those
    with keypoints `keypoints`, x, y and score of each.

    Raises:
        ValueError: if the detections' classes are not those of the dataset.
    """
    rows = _box_rows(dataset, detections)
    masks = (
        mask
        for image in detections.values()
        for mask in ([None] * len(image) if image.masks is None else image.rle_masks())
    )
    for row, mask in zip(rows, masks, strict=True):
        if mask is not None:
            row["segmentation"] = mask
    points = (
        keypoints
        for image in detections.values()
        for keypoints in ([None] * len(image) if image.keypoints is None else image.keypoints)
    )
    for row, keypoints in zip(rows, points, strict=True):
        if keypoints is not None:
            row["keypoints"] = [float(value) for value in keypoints.ravel()]
    return rows


def rows_by_image(rows: Sequence[Mapping[str, Any]], kind: str) -> dict[int, list]:
    """Return the rows of each image.

    Raises:
        ValueError: for rows without boxes, or without the masks or keypoints that `kind` needs.
    """
    missing = [row for row in rows if FIELDS[kind] not in row]
    if missing:
        raise ValueError(f"{len(missing)} of {len(rows)} detections have no {FIELDS[kind]}")
    by_image: dict[int, list] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row)
    return by_image


def read_rows(
    rows: Sequence[Mapping[str, Any]], category_ids: Sequence[int], kind: str
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return scores `(d,)`, labels `(d,)` and shapes of an image's rows, without other categories.

    Shapes are boxes, `(d, 4)` float64 `xywh`; for `kind` "segm" d RLE masks; for "keypoints" both
    the keypoints `(d, P, 3)` and the areas `(d,)`, which pycocotools takes from the box if there
    is one.
    """
    label_of = {id: label for label, id in enumerate(category_ids)}
    rows = [row for row in rows if row["category_id"] in label_of]
    scores = np.array([row["score"] for row in rows], np.float64)
    labels = np.array([label_of[row["category_id"]] for row in rows], np.int32)
    shapes = [row[FIELDS[kind]] for row in rows]
    if kind == "segm":
        return scores, labels, shapes
    if kind == "bbox":
        return scores, labels, np.array(shapes, np.float64).reshape(-1, 4)
    keypoints = np.array(shapes, np.float64).reshape(len(rows), -1, 3)
    extents = np.ptp(keypoints[..., :2], axis=1) if len(rows) else np.zeros((0, 2))
    sides = [
        row.get("bbox", (0, 0, *extent))[2:] for row, extent in zip(rows, extents, strict=True)
    ]
    return scores, labels, (keypoints, np.array(sides, np.float64).reshape(-1, 2).prod(axis=1))


def _box_rows(
    dataset: DetectionDataset, detections: Mapping[int, Detections]
) -> list[dict[str, Any]]:
    rows = []
    for image_id, image in detections.items():
        if tuple(image.classes) != tuple(dataset.classes):
            raise ValueError(
                f"the detections' classes {list(image.classes)} are not those of the dataset "
                f"{list(dataset.classes)}"
            )
        for box, score, label in zip(image.boxes, image.scores, image.labels, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            rows.append(
                {
                    "image_id": image_id,
                    "category_id": dataset.category_ids[label],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score),
                }
            )
    return rows


class CocoScores:
    """Average precision of detections on a dataset, as the COCO challenge counts it.

    Detections are given all at once, or image by image with `add`. Only the score, class and area
    of each and the objects that it overlaps are kept, in arrays: scoring takes the same memory with
    masks as without.

    Args:
        dataset: images and ground truth; crowd regions are ignored, neither right nor wrong.
        detections: the detections of each image by image id, or the rows of `coco_results`; an
            image left out has no detections.
        max_detections: detections that count per image and class, those of the highest scores;
            default COCO's 100, or 20 for keypoints.
        kind: `"bbox"` compares boxes, `"segm"` masks, `"keypoints"` keypoints by their OKS, see
            `keypoint_similarity`. For masks, APs, APm and APl go by the area of the mask and not of
            its box; keypoints have no APs, and objects without a labelled one are ignored.
        keypoint_sigmas: of OKS, one a keypoint, see `keypoint_sigmas`.

    Raises:
        ValueError: for another kind, for detections in an image that is not in the dataset, or of
            other classes, and for missing masks or keypoints if `kind` needs them.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: Mapping[int, Detections] | Sequence[Mapping[str, Any]] = (),
        max_detections: int | None = None,
        kind: Literal["bbox", "segm", "keypoints"] = "bbox",
        keypoint_sigmas: Iterable[float] | None = None,
    ):
        if kind not in FIELDS:
            raise ValueError(
                f"CocoScores: kind must be 'bbox', 'segm' or 'keypoints', not {kind!r}"
            )
        if kind == "segm":
            check_segmentations(dataset)
        self._sigmas: np.ndarray | None = None
        if kind == "keypoints":
            check_keypoints_there(dataset)
            assert dataset.skeleton is not None
            self._sigmas = sigmas_of(len(dataset.skeleton), keypoint_sigmas)
        if max_detections is None:
            max_detections = MAX_WITH_KEYPOINTS if kind == "keypoints" else MAX_DETECTIONS
        self.classes = tuple(dataset.classes)
        self.max_detections, self.kind = max_detections, kind
        self._dataset = dataset
        self._indices = {record.image_id: i for i, record in enumerate(dataset)}
        self._added: dict[int, ImageOverlaps] = {}
        self._curves: tuple[np.ndarray, np.ndarray] | None = None
        if isinstance(detections, Mapping):
            self._check_images(detections)
            for image_id, image_detections in detections.items():
                self.add(image_id, image_detections)
        else:
            rows = rows_by_image(detections, kind)
            self._check_images(rows)
            for image_id, image_rows in rows.items():
                self._add_rows(image_id, image_rows)

    def add(self, image_id: int, detections: Detections) -> None:
        """Add the detections of an image.

        Raises:
            ValueError: for an image that is not in the dataset or was added before, for other
                classes, and for missing masks.
        """
        if tuple(detections.classes) != self.classes:
            raise ValueError(
                f"the detections' classes {list(detections.classes)} are not those of the dataset "
                f"{list(self.classes)}"
            )
        self._check_images([image_id])
        record = self._dataset[self._indices[image_id]]
        if self.kind == "bbox":
            boxes = xywh(detections.boxes)
            areas = boxes[:, 2] * boxes[:, 3]
            overlaps = coco_iou(boxes, xywh(record.boxes), record.crowd)
        elif self.kind == "keypoints":
            areas = xywh(detections.boxes)[:, 2:].prod(axis=1)
            if detections.keypoints is None and len(detections):
                count = len(detections)
                raise ValueError(f"{count} of {count} detections have no keypoints")
            overlaps = self._similarity(detections.keypoints, record)
        else:
            areas, overlaps = _mask_overlaps(detections, record)
        scores = np.asarray(detections.scores, np.float64)
        self._keep(image_id, scores, np.asarray(detections.labels), areas, overlaps)

    def summary(self) -> dict[str, float]:
        """Return AP, AP50, AP75, APs, APm, APl, AR, and `AP/<class>` for each class, in 0..1.

        For keypoints without APs, as COCO annotates none of small persons.
        A score without any ground truth (for example no small objects) is NaN.
        """
        precision, recall = self.precision_and_recall()
        scores = {"AP": _mean(precision[:, :, :, 0])}
        scores["AP50"] = _mean(precision[0, :, :, 0])
        scores["AP75"] = _mean(precision[5, :, :, 0])
        for k, name in enumerate(AREAS):
            if k and not (name == "APs" and self.kind == "keypoints"):
                scores[name] = _mean(precision[:, :, :, k])
        scores["AR"] = _mean(recall[:, :, 0])
        for k, name in enumerate(self.classes):
            scores[f"AP/{name}"] = _mean(precision[:, :, k, 0])
        return scores

    def precision_and_recall(self) -> tuple[np.ndarray, np.ndarray]:
        """Return precision `(T, R, K, A)` and recall `(T, K, A)`, as pycocotools counts them.

        Both are float64 in 0..1, and -1 where there is no ground truth. The area ranges are all,
        small, medium and large.
        """
        if self._curves is None:
            ids = sorted(self._added)
            images = [self._added[image_id] for image_id in ids]
            indices = [self._indices[image_id] for image_id in ids]
            self._curves = coco_curves(images, indices, GroundTruth.of(self._dataset, self.kind))
        return self._curves

    def precision_recall(self, iou: float = 0.5) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return for each class recall `(101,)` and precision `(101,)` at an IoU threshold.

        Args:
            iou: 0.50, 0.55, .. 0.95. Classes without ground truth are left out.
        """
        t = round((iou - 0.5) / 0.05)
        curves = self.precision_and_recall()[0][t, :, :, 0]
        return {
            name: (RECALLS, curves[:, k])
            for k, name in enumerate(self.classes)
            if np.all(curves[:, k] > -1)
        }

    def _add_rows(self, image_id: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Add an image's result rows; their boxes are used unchanged, to the last bit."""
        record = self._dataset[self._indices[image_id]]
        scores, labels, shapes = read_rows(rows, self._dataset.category_ids, self.kind)
        if self.kind == "bbox":
            areas = shapes[:, 2] * shapes[:, 3]
            overlaps = coco_iou(shapes, xywh(record.boxes), record.crowd)
        elif self.kind == "keypoints":
            keypoints, areas = shapes
            overlaps = self._similarity(keypoints, record)
        else:
            areas = np.asarray(run_length.area(shapes), np.float64)
            overlaps = coco_iou(shapes, object_masks(record), record.crowd)
        self._keep(image_id, scores, labels, areas, overlaps)

    def _similarity(self, keypoints: np.ndarray | None, record: Record) -> np.ndarray:
        """Return the OKS `(d, n)` of detections' keypoints `(d, P, 3)` with a record's objects."""
        assert self._sigmas is not None
        count = len(self._sigmas)
        if keypoints is None or not len(keypoints):
            return np.zeros((0, len(record)))
        if keypoints.shape[1] != count:
            raise ValueError(
                f"detections have {keypoints.shape[1]} keypoints, the dataset's objects {count}"
            )
        stated = record.keypoints
        stated = np.zeros((len(record), count, 3)) if stated is None else stated
        areas = _areas(record, self.kind)
        return keypoint_similarity(keypoints, stated, record.boxes, areas, self._sigmas)

    def _keep(
        self,
        image_id: int,
        scores: np.ndarray,
        labels: np.ndarray,
        areas: np.ndarray,
        overlaps: np.ndarray,
    ) -> None:
        """Keep what scoring needs of an image's detections; overlaps are `(d, n)`."""
        order = np.lexsort((-scores, labels))
        first_of_class = np.searchsorted(labels[order], labels[order])
        order = order[np.arange(len(order)) - first_of_class < self.max_detections]
        record, overlaps = self._dataset[self._indices[image_id]], overlaps[order]
        near = (overlaps >= THRESHOLDS[0]) & (labels[order, None] == record.labels)
        in_pair, objects = np.nonzero(near)
        self._added[image_id] = ImageOverlaps(
            scores[order], labels[order], areas[order], in_pair, objects, overlaps[near]
        )
        self._curves = None

    def _check_images(self, image_ids: Collection[int]) -> None:
        if unknown := [i for i in image_ids if i not in self._indices]:
            raise ValueError(f"detections for images that are not in the dataset: {unknown[:10]}")
        if repeated := [i for i in image_ids if i in self._added]:
            raise ValueError(f"detections were added before in the images {repeated[:10]}")


def _mask_overlaps(detections: Detections, record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks' areas `(d,)` and IoU `(d, n)`, which is 0 between different classes."""
    count = len(detections)
    areas, overlaps = np.zeros(count), np.zeros((count, len(record)))
    if not count:
        return areas, overlaps
    if detections.masks is None:
        raise ValueError(f"{count} of {count} detections have no segmentation")
    same = np.isin(detections.labels, record.labels)
    other = ~same  # of these only the area matters
    areas[other] = mask_areas(
        detections.masks[other],
        detections.boxes[other],
        detections.image_size,
        rule=detections.mask_pasting,
    )
    if same.any():
        codes = detections.take(same).rle_masks()
        areas[same] = run_length.area(codes)
        overlaps[same] = coco_iou(codes, object_masks(record), record.crowd)
    return areas, overlaps


def _mean(values: np.ndarray) -> float:
    """Mean over the entries that have ground truth (not -1)."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")
