"""COCO average precision, by pycocotools.

T IoU thresholds (0.50 to 0.95), R = 101 recall points, K classes, A area ranges, one detection cap.
"""

import contextlib
import io
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pycocotools import mask as run_length
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.masks import check_segmentations

FIELDS = {"bbox": "bbox", "segm": "segmentation"}  # of a result row, by the kind of scores
AREAS = {"APs": 1, "APm": 2, "APl": 3}  # pycocotools' small, medium, large; 0 is all


class CocoScores:
    """Average precision of detections on a dataset, as the COCO challenge counts it.

    Args:
        dataset: images and ground truth; crowd regions are ignored, neither right nor wrong.
        detections: for each image id what was found there, or the rows that `coco_results` makes
            of it; an image left out has no detections.
        max_detections: detections that count an image, best first.
        kind: `"bbox"` compares boxes, `"segm"` masks. A mask's size, as APs, APm and APl tell
            sizes apart, is its own area and not its box's.

    Raises:
        ValueError: for another kind, for detections in an image that the dataset has not, or of
            other classes, and where masks are wanted and missing.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        detections: Mapping[int, Detections] | Sequence[Mapping[str, Any]],
        max_detections: int = 100,
        kind: Literal["bbox", "segm"] = "bbox",
    ):
        if kind not in FIELDS:
            raise ValueError(f"CocoScores: kind must be 'bbox' or 'segm', not {kind!r}")
        self.classes = tuple(dataset.classes)
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress
            truth = _truth(dataset, kind)
            rows = _rows(dataset, detections, kind)
            found = truth.loadRes(rows) if rows else _nothing_found(truth)
            evaluation = COCOeval(truth, found, kind)
            evaluation.params.catIds = list(dataset.category_ids)
            evaluation.params.maxDets = [max_detections]
            evaluation.evaluate()
            evaluation.accumulate()
        self._precision = evaluation.eval["precision"]  # (T, R, K, A, 1), -1 where no truth
        self._recall = evaluation.eval["recall"]  # (T, K, A, 1)
        self._recall_points = evaluation.params.recThrs

    def summary(self) -> dict[str, float]:
        """Return AP, AP50, AP75, APs, APm, APl, AR, and `AP/<class>` for each class, in 0..1.

        A score over no ground truth at all (no small objects, say) is NaN.
        """
        precision = self._precision[..., -1]
        scores = {"AP": _mean(precision[:, :, :, 0])}
        scores["AP50"] = _mean(precision[0, :, :, 0])
        scores["AP75"] = _mean(precision[5, :, :, 0])
        for name, k in AREAS.items():
            scores[name] = _mean(precision[:, :, :, k])
        scores["AR"] = _mean(self._recall[:, :, 0, -1])
        for k, name in enumerate(self.classes):
            scores[f"AP/{name}"] = _mean(precision[:, :, k, 0])
        return scores

    def precision_recall(self, iou: float = 0.5) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return for each class recall `(101,)` and precision `(101,)` at an IoU threshold.

        Args:
            iou: 0.50, 0.55, .. 0.95. Classes without ground truth are left out.
        """
        t = round((iou - 0.5) / 0.05)
        curves = self._precision[t, :, :, 0, -1]
        return {
            name: (self._recall_points, curves[:, k])
            for k, name in enumerate(self.classes)
            if np.all(curves[:, k] > -1)
        }


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


def _truth(dataset: DetectionDataset, kind: str) -> COCO:
    """Return the ground truth; for masks, crowds without one cover their box."""
    truth = COCO()
    truth.dataset = dataset.to_coco()
    truth.createIndex()
    if kind == "segm":
        check_segmentations(dataset)
        stated = {record.image_id for record in dataset if record.areas is not None}
        for annotation in truth.dataset["annotations"]:
            x, y, width, height = annotation["bbox"]
            corners = [x, y, x + width, y, x + width, y + height, x, y + height]
            annotation.setdefault("segmentation", [corners])
            if annotation["image_id"] not in stated:
                annotation["area"] = float(run_length.area(truth.annToRLE(annotation)))
    return truth


def _rows(
    dataset: DetectionDataset,
    detections: Mapping[int, Detections] | Sequence[Mapping[str, Any]],
    kind: str,
) -> list[dict[str, Any]]:
    """Return result rows of one kind, which pycocotools may write into."""
    if isinstance(detections, Mapping):
        ids = set(detections)
        make_rows = _box_rows if kind == "bbox" else coco_results
        rows: Sequence[Mapping[str, Any]] = make_rows(dataset, detections)
    else:
        rows = detections
        ids = {row["image_id"] for row in rows}
    unknown = ids - {record.image_id for record in dataset}
    if unknown:
        raise ValueError(f"detections for images that are not in the dataset: {unknown}")
    bare = [row for row in rows if FIELDS[kind] not in row]
    if bare:
        raise ValueError(f"{len(bare)} of {len(rows)} detections have no {FIELDS[kind]}")
    fields = ("image_id", "category_id", "score", FIELDS[kind])
    return [{field: row[field] for field in fields} for row in rows]


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


def _nothing_found(truth: COCO) -> COCO:
    """Return an empty result set, which `loadRes` cannot make."""
    empty = COCO()
    empty.dataset = {**truth.dataset, "annotations": []}
    empty.createIndex()
    return empty


def _mean(values: np.ndarray) -> float:
    """Mean over the entries that have ground truth (not -1)."""
    values = values[values > -1]
    return float(values.mean()) if values.size else float("nan")
