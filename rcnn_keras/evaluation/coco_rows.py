"""COCO's result rows: one dict a detection, as the format's JSON files have them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.detections import Detections

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
