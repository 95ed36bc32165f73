"""COCO average precision: what pycocotools computes, added up image by image.

T IoU thresholds (0.50 to 0.95), R = 101 recall points, K classes, A area ranges; d detections of an
image, n objects in it.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as run_length

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.masks import check_segmentations, mask_areas
from rcnn_keras.data.records import Record
from rcnn_keras.evaluation.coco_curves import RECALLS, GroundTruth, ImageOverlaps, coco_curves
from rcnn_keras.evaluation.coco_matching import AREAS, THRESHOLDS
from rcnn_keras.evaluation.coco_rows import read_rows, rows_by_image
from rcnn_keras.evaluation.overlaps import coco_iou, object_masks, xywh


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
