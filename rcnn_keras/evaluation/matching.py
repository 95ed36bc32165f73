"""IoU of detections and ground truth, and the matching behind every score but COCO's.

d detections of an image by falling score, n ground-truth objects in it, K classes. Boxes are
`xyxy` in continuous pixels, without the `+ 1` of the VOC devkit; masks are COCO run-length
encodings (RLE). IoU is pycocotools'.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pycocotools import mask as run_length

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.masks import check_segmentations


def box_iou(
    detections: np.ndarray, objects: np.ndarray, crowd: np.ndarray | None = None
) -> np.ndarray:
    """Return the intersection over union of every pair of boxes.

    Args:
        detections: `(d, 4)` boxes.
        objects: `(n, 4)` boxes.
        crowd: `(n,)` bool; where true the intersection is divided by the area of the detection
            alone, as COCO does for crowd regions, of which a detection covers one member.

    Returns:
        `(d, n)` float64 in 0..1; 0 where a box has no area.
    """
    return coco_iou(xywh(detections), xywh(objects), crowd)


def mask_iou(
    detections: Sequence[dict[str, Any]],
    objects: Sequence[dict[str, Any]],
    crowd: np.ndarray | None = None,
) -> np.ndarray:
    """Return the intersection over union of every pair of masks, counted in pixels.

    Args:
        detections: d RLE masks, as `Detections.rle_masks` returns them.
        objects: n RLE masks.
        crowd: as in `box_iou`.

    Returns:
        `(d, n)` float64 in 0..1; 0 where a mask has no pixel.

    Raises:
        ValueError: if the masks are not all of one size.
    """
    sizes = {tuple(mask["size"]) for mask in (*detections, *objects)}
    if len(sizes) > 1:
        raise ValueError(f"mask_iou: masks of different heights and widths: {sorted(sizes)}")
    return coco_iou(list(detections), list(objects), crowd)


def object_masks(record: Record) -> list[dict[str, Any]]:
    """Return the RLE masks of a record's objects; an object without a mask fills its box."""
    size = record.height, record.width
    masks = []
    segmentations = record.segmentations or (None,) * len(record)
    for box, segmentation in zip(record.boxes.tolist(), segmentations, strict=True):
        if segmentation is None:
            x1, y1, x2, y2 = box
            segmentation = [[x1, y1, x2, y1, x2, y2, x1, y2]]
        if isinstance(segmentation, list):
            segmentation = run_length.merge(run_length.frPyObjects(segmentation, *size))
        elif isinstance(segmentation["counts"], list):
            segmentation = run_length.frPyObjects(segmentation, *size)
        masks.append(segmentation)
    return masks


def xywh(boxes: np.ndarray) -> np.ndarray:
    """Return boxes as `x, y, width, height` in float64, where x1 + (x2 - x1) is exactly x2."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def coco_iou(detections: Any, objects: Any, crowd: np.ndarray | None) -> np.ndarray:
    """Return pycocotools' IoU of every pair, of boxes `xywh` or of RLE masks.

    See `box_iou` and `mask_iou`.
    """
    if not len(detections) or not len(objects):
        return np.zeros((len(detections), len(objects)))
    is_crowd = np.zeros(len(objects), np.uint8) if crowd is None else np.asarray(crowd, np.uint8)
    return np.asarray(run_length.iou(detections, objects, is_crowd.tolist()))


def proposal_recall(dataset: DetectionDataset, iou_thresh: float = 0.5) -> dict[str, float]:
    """Return how well proposals find the objects of a data set.

    Args:
        dataset: images with proposals.
        iou_thresh: an object is found by a proposal that overlaps it by more. Crowd regions are no
            objects.

    Returns:
        `recall`, the share of the objects that are found, NaN without any, and `boxes`, the mean
        number of proposals an image.

    Raises:
        ValueError: an image has no proposals.
    """
    best, counts = [], []
    for record in dataset:
        if record.proposals is None:
            raise ValueError(f"image {record.image_id} ({record.path}) has no proposals")
        counts.append(len(record.proposals))
        overlaps = box_iou(record.proposals, record.boxes[~record.crowd])
        best.append(overlaps.max(axis=0, initial=0.0))
    found = np.concatenate([np.zeros(0), *best]) > iou_thresh
    recall = float(found.mean()) if len(found) else float("nan")
    return {"recall": recall, "boxes": float(np.mean(counts))}


Kind = Literal["box", "mask"]

AnyDetections = Mapping[int, Detections] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """The detections of one image, its objects, and the IoU of every pair.

    Attributes:
        record: the image and its n objects.
        indices: `(d,)` int, each detection's index among those given for the image.
        scores: `(d,)` float64, falling; equal scores keep the order in which they were given.
        labels: `(d,)` int32 in 0..K-1.
        overlaps: `(d, n)` float64 in 0..1: IoU; for crowd regions the intersection over the
            detection's own area.
    """

    record: Record
    indices: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    overlaps: np.ndarray

    @property
    def same_class(self) -> np.ndarray:
        """Which pairs have the same class, `(d, n)` bool."""
        return self.labels[:, None] == self.record.labels

    @property
    def must_be_found(self) -> np.ndarray:
        """Which objects must be found, `(n,)` bool: neither crowd nor difficult."""
        return ~self.record.crowd

    def best_overlap(self, allowed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return each detection's largest overlap among the allowed pairs.

        Args:
            allowed: bool that broadcasts to `(d, n)`.

        Returns:
            The overlaps `(d,)` and the indices of their objects `(d,)`, the first of equals; 0 and
            -1 where a detection overlaps none.
        """
        overlaps = np.where(allowed, self.overlaps, 0)
        largest = overlaps.max(axis=1, initial=0)
        if not overlaps.shape[1]:
            return largest, np.full(len(largest), -1)
        return largest, np.where(largest > 0, overlaps.argmax(axis=1), -1)

    def assign(self, allowed: np.ndarray, iou: float) -> np.ndarray:
        """Assign objects to detections greedily by score, as COCO does.

        By falling score, each detection is assigned the unassigned object with the largest overlap,
        if that is at least `iou`; of equal overlaps it prefers an object of its own class.

        Args:
            allowed: `(d, n)` bool, which pairs may be matched.
            iou: threshold in 0..1.

        Returns:
            `(d,)` int, the index of each detection's object, -1 for none.
        """
        detections, objects = np.nonzero(allowed & (self.overlaps >= iou))
        other_class = ~self.same_class[detections, objects]
        order = np.lexsort((other_class, -self.overlaps[detections, objects], detections))
        assigned = np.full(len(self.scores), -1)
        free = np.ones(len(self.record), bool)
        for i, k in zip(detections[order].tolist(), objects[order].tolist(), strict=True):
            if assigned[i] < 0 and free[k]:
                assigned[i], free[k] = k, False
        return assigned


def pair_detections(
    dataset: DetectionDataset,
    detections: AnyDetections,
    *,
    kind: Kind = "box",
    min_score: float = 0.0,
) -> Iterator[ImagePairs]:
    """Yield for every image of a dataset its detections, its objects and their overlaps.

    Args:
        dataset: images and ground truth.
        detections: the detections of each image by image id, or COCO result rows as `coco_results`
            returns them; an image left out has no detections.
        kind: whether boxes or masks are compared. A crowd region without a mask fills its box.
        min_score: detections below it are left out.

    Raises:
        ValueError: before anything is yielded, for another kind, for detections in images that
            are not in the dataset or of other classes, for scores and boxes that are not finite,
            for masks of another size than their image, and for missing masks if `kind` is "mask".
    """
    if kind not in ("box", "mask"):
        raise ValueError(f"kind must be 'box' or 'mask', not {kind!r}")
    if kind == "mask":
        check_segmentations(dataset)
    if isinstance(detections, Mapping):
        by_image = _read_detections(dataset, detections, kind)
    else:
        by_image = _read_rows(dataset, detections, kind)
    records = {record.image_id: record for record in dataset}
    unknown = sorted(set(by_image) - set(records))
    if unknown:
        raise ValueError(f"detections for images that are not in the dataset: {unknown[:10]}")
    for image_id, image_detections in by_image.items():
        image_detections.check(records[image_id])
    return _pairs(dataset, by_image, kind, min_score)


def check_thresholds(where: str, **thresholds: float) -> None:
    """Raise ValueError for a threshold that is not in 0..1."""
    for name, value in thresholds.items():
        if not 0 <= value <= 1:  # NaN fails too
            raise ValueError(f"{where}: {name} must be in 0..1, not {value!r}")


@dataclass(frozen=True, eq=False)
class _ImageDetections:
    """The detections of an image in the order given; RLE masks, None where boxes are compared."""

    scores: np.ndarray
    labels: np.ndarray
    boxes: np.ndarray
    masks: Sequence[dict[str, Any]] | None

    def check(self, record: Record) -> None:
        for name, values in (("score", self.scores), ("box", self.boxes)):
            finite = np.isfinite(values)
            if not finite.all():
                i = int(np.argwhere(~finite)[0, 0])
                raise ValueError(
                    f"{record.path} (image {record.image_id}): detection {i}: {name} is not "
                    f"finite: {values[i].tolist()}"
                )
        size = record.height, record.width
        for i, mask in enumerate(self.masks or ()):
            if tuple(mask["size"]) != size:
                raise ValueError(
                    f"{record.path} (image {record.image_id}): detection {i}: the mask is of "
                    f"{tuple(mask['size'])} pixels (height, width), the image of {size}"
                )


def _pairs(
    dataset: DetectionDataset, by_image: dict[int, _ImageDetections], kind: Kind, min_score: float
) -> Iterator[ImagePairs]:
    empty = _ImageDetections(np.zeros(0), np.zeros(0, np.int32), np.zeros((0, 4)), ())
    for record in dataset:
        detections = by_image.get(record.image_id, empty)
        order = np.argsort(-detections.scores, kind="stable")
        # as in `Detections.above`, whose scores are float32
        order = order[np.float32(detections.scores[order]) >= np.float32(min_score)]
        crowd = record.crowd if record.difficult is None else record.crowd & ~record.difficult
        if kind == "box":
            overlaps = box_iou(detections.boxes[order], record.boxes, crowd)
        else:
            masks = detections.masks or ()
            overlaps = mask_iou([masks[i] for i in order], object_masks(record), crowd)
        scores, labels = detections.scores[order], detections.labels[order]
        yield ImagePairs(record, order, scores, labels, overlaps)


def _read_detections(
    dataset: DetectionDataset, detections: Mapping[int, Detections], kind: Kind
) -> dict[int, _ImageDetections]:
    by_image = {}
    for image_id, image in detections.items():
        if tuple(image.classes) != tuple(dataset.classes):
            raise ValueError(
                f"image {image_id}: the detections' classes {list(image.classes)} are not those of "
                f"the dataset {list(dataset.classes)}"
            )
        masks = image.rle_masks() if kind == "mask" else None
        scores = np.asarray(image.scores, np.float64)
        labels, boxes = np.asarray(image.labels, np.int32), np.asarray(image.boxes, np.float64)
        by_image[image_id] = _ImageDetections(scores, labels, boxes.reshape(-1, 4), masks)
    return by_image


def _read_rows(
    dataset: DetectionDataset, rows: Sequence[Mapping[str, Any]], kind: Kind
) -> dict[int, _ImageDetections]:
    label_of = {id: label for label, id in enumerate(dataset.category_ids)}
    rows_of_image: dict[int, list[Mapping[str, Any]]] = {}
    required = ("image_id", "category_id", "score", "bbox", *(("segmentation",) * (kind == "mask")))
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise ValueError(
                f"detections: a dict of Detections by image id, or COCO result rows, are needed; "
                f"element {i} is of {type(row).__name__}"
            )
        missing = [field for field in required if field not in row]
        if missing:
            raise ValueError(f"detections: row {i} has no {missing[0]}")
        if row["category_id"] not in label_of:
            raise ValueError(
                f"detections: row {i}: category_id {row['category_id']!r} is not in the dataset"
            )
        if len(row["bbox"]) != 4:
            raise ValueError(
                f"detections: row {i}: bbox {row['bbox']!r} is not x, y, width, height"
            )
        rows_of_image.setdefault(row["image_id"], []).append(row)
    by_image = {}
    for image_id, image_rows in rows_of_image.items():
        boxes = np.array([row["bbox"] for row in image_rows], np.float64)
        boxes[:, 2:] += boxes[:, :2]
        scores = np.array([row["score"] for row in image_rows], np.float64)
        labels = np.array([label_of[row["category_id"]] for row in image_rows], np.int32)
        masks = [row["segmentation"] for row in image_rows] if kind == "mask" else None
        by_image[image_id] = _ImageDetections(scores, labels, boxes, masks)
    return by_image
