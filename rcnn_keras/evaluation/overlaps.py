"""How much detections and objects cover each other, as boxes or as masks; by pycocotools.

d detections, n objects. Boxes are `xyxy` in continuous pixels, without the `+ 1` of the VOC
devkit; masks are COCO run lengths.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as run_length

from rcnn_keras.data.records import Record


def box_iou(
    found: np.ndarray, objects: np.ndarray, regions: np.ndarray | None = None
) -> np.ndarray:
    """Return the intersection over union of every pair of boxes.

    Args:
        found: `(d, 4)` boxes.
        objects: `(n, 4)` boxes.
        regions: `(n,)` bool; where true the intersection is divided by the area of the found box
            alone, as COCO does for crowd regions, of which a detection covers one member.

    Returns:
        `(d, n)` float64 in 0..1; 0 where a box has no area.
    """
    return coco_iou(xywh(found), xywh(objects), regions)


def mask_iou(
    found: Sequence[dict[str, Any]],
    objects: Sequence[dict[str, Any]],
    regions: np.ndarray | None = None,
) -> np.ndarray:
    """Return the intersection over union of every pair of masks, counted in pixels.

    Args:
        found: d run lengths, as `Detections.rle_masks` gives them.
        objects: n run lengths.
        regions: as in `box_iou`.

    Returns:
        `(d, n)` float64 in 0..1; 0 where a mask has no pixel.

    Raises:
        ValueError: if the masks are not all of one size.
    """
    sizes = {tuple(mask["size"]) for mask in (*found, *objects)}
    if len(sizes) > 1:
        raise ValueError(f"mask_iou: masks of different heights and widths: {sorted(sizes)}")
    return coco_iou(list(found), list(objects), regions)


def object_masks(record: Record) -> list[dict[str, Any]]:
    """Return the masks of a record's objects as run lengths; one without covers its box."""
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
    """Return boxes as pycocotools takes them; in float64 x1 + (x2 - x1) is x2 again."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)


def coco_iou(found: Any, objects: Any, regions: np.ndarray | None) -> np.ndarray:
    """Return the IoU of every pair as pycocotools has it: of boxes `xywh`, or of run lengths.

    See `box_iou` and `mask_iou`.
    """
    if not len(found) or not len(objects):
        return np.zeros((len(found), len(objects)))
    crowd = np.zeros(len(objects), np.uint8) if regions is None else np.asarray(regions, np.uint8)
    return np.asarray(run_length.iou(found, objects, crowd.tolist()))
