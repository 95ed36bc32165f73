"""COCO average precision: what pycocotools computes, added up image by image.

The rules are those of pycocotools' `COCOeval`, and so are the numbers, to the last bit. It looks at
one detection of one image after the other; here the first detections of every image and class are
matched together, then the second ones, and so on, at all thresholds and area ranges.

D detections and G objects of all images, K classes, A area ranges, T IoU thresholds (0.50 to 0.95),
R = 101 recalls; d detections of an image, n objects in it, p pairs of one and an object.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from pycocotools import mask as run_length

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.masks import check_segmentations, mask_areas
from rcnn_keras.evaluation.matching import coco_iou, object_masks, xywh

THRESHOLDS = np.linspace(0.5, 0.95, 10)

AREAS = {"all": (0, 1e10), "APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, 1e10)}


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
    """Give objects to detections greedily by score, as COCO does.

    A detection takes the free object that it overlaps most, of equals the last; one that is ignored
    only if there is no other. Any number may take a region of a crowd.

    Args:
        detections: `(P,)` int, each pair's detection. Numbers follow each other within an image and
            class, the best score first.
        objects: `(P,)` int in 0..G-1, each pair's object, of the same image and class.
        overlaps: `(P,)` float64 IoU.
        groups: `(G,)` int, the same for objects of one image and class.
        crowd: `(G,)` bool.
        ignored: `(G, A)` bool, objects that count neither way.

    Returns:
        The detections that are in a pair, `(n,)` int, rising, and what each of them is at each area
        range and threshold, `(n, A, T)` int8: `RIGHT`, `IGNORED` or `WRONG`.
    """
    found, first, place = np.unique(detections, return_index=True, return_inverse=True)
    new_group = np.diff(groups[objects[first]], prepend=-1) != 0
    starts = np.flatnonzero(new_group)
    turns = np.arange(len(found)) - starts[np.cumsum(new_group) - 1]  # of each in its group
    order = np.lexsort((objects, overlaps, place, turns[place]))
    place, objects, overlaps = place[order], objects[order], overlaps[order]
    reached = overlaps[:, None, None] >= THRESHOLDS
    outcomes = np.full((len(found), len(AREAS), len(THRESHOLDS)), WRONG, np.int8)
    taken = np.zeros((len(crowd), *outcomes.shape[1:]), bool)
    ends = np.searchsorted(turns[place], np.arange(turns.max(initial=-1) + 2))
    for begin, end in pairwise(ends):
        of_turn, candidates, count = place[begin:end], objects[begin:end], end - begin
        free = reached[begin:end] & (~taken[candidates] | crowd[candidates, None, None])
        # the later in order, the better; beyond `count`, those that are not ignored
        value = np.arange(1, count + 1)[:, None] + count * ~ignored[candidates]
        firsts = np.flatnonzero(np.diff(of_turn, prepend=-1))
        best = np.maximum.reduceat(np.where(free, value[..., None], 0), firsts)
        outcomes[of_turn[firsts]] = np.where(best > count, RIGHT, np.where(best, IGNORED, WRONG))
        _, area, threshold = hit = np.nonzero(best)
        taken[candidates[(best[hit] - 1) % count], area, threshold] = True
    return found, outcomes


RECALLS = np.linspace(0, 1, 101)


class ImageOverlaps(NamedTuple):
    """What decides the scores of one image's detections, class by class, the best score first.

    Attributes:
        scores: `(d,)` float64.
        labels: `(d,)` int, rising.
        areas: `(d,)` float64 in square pixels.
        detections: `(p,)` int in 0..d-1, of each pair of one class that overlaps by 0.5 or more.
        objects: `(p,)` int, the object's place in the record.
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
    """The objects of a dataset, end to end.

    Attributes:
        classes: K.
        firsts: for each image where its objects begin, and G at the end.
        labels: `(G,)` int.
        crowd: `(G,)` bool.
        ignored: `(G, A)` bool, crowds and objects outside of an area range.
    """

    classes: int
    firsts: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray
    ignored: np.ndarray

    @staticmethod
    def of(dataset: DetectionDataset, kind: str) -> "GroundTruth":
        """Return the objects of a dataset; for `kind` "segm" sizes are those of masks."""
        firsts = np.cumsum([0, *(len(record) for record in dataset)])
        crowd = _end_to_end([record.crowd for record in dataset], bool)
        outside = outside_areas(_end_to_end([_areas(record, kind) for record in dataset], float))
        labels = _end_to_end([record.labels for record in dataset], np.int64)
        return GroundTruth(len(dataset.classes), firsts, labels, crowd, crowd[:, None] | outside)


def coco_curves(
    images: Sequence[ImageOverlaps], places: Sequence[int], truth: GroundTruth
) -> tuple[np.ndarray, np.ndarray]:
    """Return precision and recall of all classes.

    Args:
        images: those with detections, by rising image id, which is COCO's order of equal scores.
        places: of each of them in the dataset.
        truth: the objects of all images.

    Returns:
        `(T, R, K, A)` float64 precision and `(T, K, A)` recall; see `precision_at_recall`.
    """
    scores = _end_to_end([image.scores for image in images], float)
    labels = _end_to_end([image.labels for image in images], np.int64)
    ignored = outside_areas(_end_to_end([image.areas for image in images], float))
    before = np.cumsum([0, *(len(image.scores) for image in images)])
    found, outcomes = match(
        _end_to_end([i.detections + n for i, n in zip(images, before[:-1], strict=True)], np.int64),
        _end_to_end(
            [i.objects + truth.firsts[n] for i, n in zip(images, places, strict=True)], int
        ),
        _end_to_end([image.overlaps for image in images], float),
        np.repeat(np.arange(len(truth.firsts) - 1), np.diff(truth.firsts)) * truth.classes
        + truth.labels,
        truth.crowd,
        truth.ignored,
    )
    row = np.full(len(scores), -1)
    row[found] = np.arange(len(found))
    order = np.lexsort((-scores, labels))
    ends = np.searchsorted(labels[order], np.arange(truth.classes + 1))
    curves = []
    for k, (begin, end) in enumerate(pairwise(ends)):
        of_class = order[begin:end]
        known = row[of_class] >= 0
        of_each = np.full((len(of_class), *outcomes.shape[1:]), WRONG, np.int8)
        of_each[known] = outcomes[row[of_class[known]]]
        positives = (~truth.ignored[truth.labels == k]).sum(axis=0)
        curves.append(precision_at_recall(of_each, ignored[of_class], positives))
    precision, recall = zip(*curves, strict=True)
    return np.stack(precision, axis=2), np.stack(recall, axis=1)


def precision_at_recall(
    outcomes: np.ndarray, ignored: np.ndarray, positives: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the interpolated precision and the recall of one class.

    Args:
        outcomes: `(D, A, T)` int8 as `match` gives them, best score first.
        ignored: `(D, A)` bool, detections that are ignored where they are wrong.
        positives: `(A,)` int, how many objects are to be found.

    Returns:
        `(T, R, A)` float64 precision in 0..1, the best at this recall or a higher one, and
        `(T, A)` recall in 0..1; -1 where there is nothing to be found.
    """
    precision = np.full((len(THRESHOLDS), len(RECALLS), len(AREAS)), -1.0)
    recall = np.full((len(THRESHOLDS), len(AREAS)), -1.0)
    for a in np.flatnonzero(positives):
        outcome = outcomes[:, a]
        counted = (outcome == RIGHT) | ((outcome == WRONG) & ~ignored[:, a, None])
        number = np.cumsum(counted, axis=0, dtype=np.int32)
        for t in range(len(THRESHOLDS)):
            # Between two hits precision only falls, so the hits tell all.
            hits = np.flatnonzero(outcome[:, t] == RIGHT)
            rank = np.arange(1, len(hits) + 1)
            best = np.maximum.accumulate((rank / (number[hits, t] + np.spacing(1)))[::-1])[::-1]
            reached = np.searchsorted(rank / positives[a], RECALLS)
            precision[t, :, a] = np.append(best, 0.0)[reached]
            recall[t, a] = len(hits) / positives[a]
    return precision, recall


def _areas(record: Record, kind: str) -> np.ndarray:
    """Return the objects' sizes in square pixels: as stated by the file, else their own."""
    if record.areas is not None:
        return record.areas
    if kind == "segm":
        return np.asarray(run_length.area(object_masks(record)), np.float64)
    x1, y1, x2, y2 = record.boxes.astype(np.float64).T
    return (x2 - x1) * (y2 - y1)


def _end_to_end(arrays: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)


FIELDS = {"bbox": "bbox", "segm": "segmentation"}  # of a row, by the kind of scores


def coco_results(
    dataset: DetectionDataset, detections: Mapping[int, Detections]
) -> list[dict[str, Any]]:
    """Return detections as COCO's result rows: image id, category id, `xywh` box and score.

    Detections with masks also have a `segmentation` in run lengths, set above 0.5.

    Raises:
        ValueError: if the detections' classes are not those of the dataset.
    """
    rows = _box_rows(dataset, detections)
    masks = (
        mask
        for found in detections.values()
        for mask in ([None] * len(found) if found.masks is None else found.rle_masks())
    )
    for row, mask in zip(rows, masks, strict=True):
        if mask is not None:
            row["segmentation"] = mask
    return rows


def rows_by_image(rows: Sequence[Mapping[str, Any]], kind: str) -> dict[int, list]:
    """Return the rows of each image.

    Raises:
        ValueError: for rows without boxes, or for `kind` "segm" without masks.
    """
    bare = [row for row in rows if FIELDS[kind] not in row]
    if bare:
        raise ValueError(f"{len(bare)} of {len(rows)} detections have no {FIELDS[kind]}")
    found: dict[int, list] = {}
    for row in rows:
        found.setdefault(row["image_id"], []).append(row)
    return found


def read_rows(
    rows: Sequence[Mapping[str, Any]], category_ids: Sequence[int], kind: str
) -> tuple[np.ndarray, np.ndarray, Any]:
    """Return an image's scores `(d,)`, labels `(d,)` and what was found, without other categories.

    What was found are boxes, `(d, 4)` float64 `xywh`, and for `kind` "segm" d run lengths.
    """
    label_of = {id: label for label, id in enumerate(category_ids)}
    rows = [row for row in rows if row["category_id"] in label_of]
    scores = np.array([row["score"] for row in rows], np.float64)
    labels = np.array([label_of[row["category_id"]] for row in rows], np.int32)
    shapes = [row[FIELDS[kind]] for row in rows]
    boxes = kind == "bbox"
    return scores, labels, np.array(shapes, np.float64).reshape(-1, 4) if boxes else shapes


def _box_rows(
    dataset: DetectionDataset, detections: Mapping[int, Detections]
) -> list[dict[str, Any]]:
    rows = []
    for image_id, found in detections.items():
        if tuple(found.classes) != tuple(dataset.classes):
            raise ValueError(
                f"the detections' classes {list(found.classes)} are not those of the dataset "
                f"{list(dataset.classes)}"
            )
        for box, score, label in zip(found.boxes, found.scores, found.labels, strict=True):
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

    The detections come all at once, or image by image with `add`. Of each, its score, class and
    area and the objects that it overlaps are kept, in arrays, and nothing else: scoring takes the
    same memory with masks as without.

    Args:
        dataset: images and ground truth; crowd regions are ignored, neither right nor wrong.
        detections: for each image id what was found there, or the rows that `coco_results` makes
            of it; an image left out has no detections.
        max_detections: detections that count an image and class, best first.
        kind: `"bbox"` compares boxes, `"segm"` masks. A mask's size, as APs, APm and APl tell
            sizes apart, is its own area and not its box's.

    Raises:
        ValueError: for another kind, for detections in an image that the dataset has not, or of
            other classes, and where masks are wanted and missing.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: Mapping[int, Detections] | Sequence[Mapping[str, Any]] = (),
        max_detections: int = 100,
        kind: Literal["bbox", "segm"] = "bbox",
    ):
        if kind not in ("bbox", "segm"):
            raise ValueError(f"CocoScores: kind must be 'bbox' or 'segm', not {kind!r}")
        if kind == "segm":
            check_segmentations(dataset)
        self.classes = tuple(dataset.classes)
        self.max_detections, self.kind = max_detections, kind
        self._dataset = dataset
        self._places = {record.image_id: i for i, record in enumerate(dataset)}
        self._added: dict[int, ImageOverlaps] = {}
        self._curves: tuple[np.ndarray, np.ndarray] | None = None
        if isinstance(detections, Mapping):
            self._check_images(detections)
            for image_id, found in detections.items():
                self.add(image_id, found)
        else:
            rows = rows_by_image(detections, kind)
            self._check_images(rows)
            for image_id, of_image in rows.items():
                self._add_rows(image_id, of_image)

    def add(self, image_id: int, detections: Detections) -> None:
        """Take in what was found in an image.

        Raises:
            ValueError: for an image that the dataset has not or that was added before, for other
                classes, and for missing masks.
        """
        if tuple(detections.classes) != self.classes:
            raise ValueError(
                f"the detections' classes {list(detections.classes)} are not those of the dataset "
                f"{list(self.classes)}"
            )
        self._check_images([image_id])
        record = self._dataset[self._places[image_id]]
        if self.kind == "bbox":
            boxes = xywh(detections.boxes)
            areas = boxes[:, 2] * boxes[:, 3]
            overlaps = coco_iou(boxes, xywh(record.boxes), record.crowd)
        else:
            areas, overlaps = _of_masks(detections, record)
        scores = np.asarray(detections.scores, np.float64)
        self._keep(image_id, scores, np.asarray(detections.labels), areas, overlaps)

    def summary(self) -> dict[str, float]:
        """Return AP, AP50, AP75, APs, APm, APl, AR, and `AP/<class>` for each class, in 0..1.

        A score over no ground truth at all (no small objects, say) is NaN.
        """
        precision, recall = self.precision_and_recall()
        scores = {"AP": _mean(precision[:, :, :, 0])}
        scores["AP50"] = _mean(precision[0, :, :, 0])
        scores["AP75"] = _mean(precision[5, :, :, 0])
        for k, name in enumerate(AREAS):
            if k:
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
            places = [self._places[image_id] for image_id in ids]
            self._curves = coco_curves(images, places, GroundTruth.of(self._dataset, self.kind))
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
        """Take in an image's result rows; boxes stay as the rows have them, to the last bit."""
        record = self._dataset[self._places[image_id]]
        scores, labels, shapes = read_rows(rows, self._dataset.category_ids, self.kind)
        if self.kind == "bbox":
            areas = shapes[:, 2] * shapes[:, 3]
            overlaps = coco_iou(shapes, xywh(record.boxes), record.crowd)
        else:
            areas = np.asarray(run_length.area(shapes), np.float64)
            overlaps = coco_iou(shapes, object_masks(record), record.crowd)
        self._keep(image_id, scores, labels, areas, overlaps)

    def _keep(
        self,
        image_id: int,
        scores: np.ndarray,
        labels: np.ndarray,
        areas: np.ndarray,
        overlaps: np.ndarray,
    ) -> None:
        """Keep what decides the scores of an image's detections; overlaps are `(d, n)`."""
        order = np.lexsort((-scores, labels))
        first_of_class = np.searchsorted(labels[order], labels[order])
        order = order[np.arange(len(order)) - first_of_class < self.max_detections]
        record, overlaps = self._dataset[self._places[image_id]], overlaps[order]
        near = (overlaps >= THRESHOLDS[0]) & (labels[order, None] == record.labels)
        found, objects = np.nonzero(near)
        self._added[image_id] = ImageOverlaps(
            scores[order], labels[order], areas[order], found, objects, overlaps[near]
        )
        self._curves = None

    def _check_images(self, image_ids: Collection[int]) -> None:
        if unknown := [i for i in image_ids if i not in self._places]:
            raise ValueError(f"detections for images that are not in the dataset: {unknown[:10]}")
        if repeated := [i for i in image_ids if i in self._added]:
            raise ValueError(f"detections were added before in the images {repeated[:10]}")


def _of_masks(detections: Detections, record: Record) -> tuple[np.ndarray, np.ndarray]:
    """Return the masks' areas `(d,)` and IoU `(d, n)`, which is 0 between different classes."""
    count = len(detections)
    areas, overlaps = np.zeros(count), np.zeros((count, len(record)))
    if not count:
        return areas, overlaps
    if detections.masks is None:
        raise ValueError(f"{count} of {count} detections have no segmentation")
    same = np.isin(detections.labels, record.labels)
    other = ~same  # of these the size alone counts
    areas[other] = mask_areas(
        detections.masks[other], detections.boxes[other], detections.image_size
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
