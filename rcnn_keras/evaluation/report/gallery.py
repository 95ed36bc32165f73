"""Pictures of the worst errors: false positives of the highest scores, and missed objects.

A picture has two panels, crops of the same part of the image: ground truth and detections.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as run_length

from rcnn_keras import visualize
from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.images import read_image
from rcnn_keras.data.keypoints import Skeleton
from rcnn_keras.data.masks import decode_mask
from rcnn_keras.data.value_range import FULL, ValueRange
from rcnn_keras.evaluation.errors import FALSE_POSITIVES, MISSED, Case, DetectionErrors

MARGIN = 0.6  # around the boxes shown, as a share of their longer side

MIN_CROP = 48  # pixels, the smallest side of a crop, where the image has them

MIN_PANEL = 240  # pixels to which small crops are enlarged at least


class Picture(NamedTuple):
    """A picture file and what it shows."""

    path: Path
    caption: str


def draw_worst(
    folder: str | os.PathLike[str],
    errors: DetectionErrors,
    dataset: DetectionDataset,
    detections: Mapping[int, Detections],
    *,
    count: int = 4,
    kinds: Sequence[str] = (*FALSE_POSITIVES, MISSED),
    value_range: ValueRange = FULL,
) -> list[Picture]:
    """Draw the false positives of the highest scores, by kind, and the largest missed objects.

    A false positive is drawn alone on the right; beside a missed object all detections of the
    errors' `min_score` are. Masks are drawn if the errors are those of masks.

    Args:
        folder: where the PNG files `error_<kind>_<number>.png` are written; created if missing.
        errors: of these detections on this dataset.
        dataset: images and ground truth.
        detections: by image id, those that `errors` was computed from.
        count: how many of each kind at most.
        kinds: which kinds, in which order.
        value_range: of images of more than 8 bits, as the model's, see `read_image`.

    Returns:
        The pictures, kind after kind.

    Raises:
        ImageError: an image cannot be read.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    records = {record.image_id: record for record in dataset}
    pictures = []
    for kind in kinds:
        for number, case in enumerate(errors.worst(kind, count), start=1):
            record = records[case.image_id]
            path = folder / f"error_{kind.replace(' ', '_')}_{number}.png"
            pixels = read_image(record.image, value_range)
            found = detections.get(case.image_id)
            _draw(case, record, pixels, found, errors, dataset.skeleton).save(path)
            pictures.append(Picture(path, _caption(case, record, errors.classes)))
    return pictures


def _draw(
    case: Case,
    record: Record,
    pixels: np.ndarray,
    detections: Detections | None,
    errors: DetectionErrors,
    skeleton: Skeleton | None,
) -> Image.Image:
    """Return both panels of a case."""
    with_masks = errors.kind == "mask"
    shown = [record.boxes[case.object]] if case.object >= 0 else []
    if detections is not None and case.detection >= 0:
        detections = detections.take(np.array([case.detection]))
        shown.append(detections.boxes[0])
    elif detections is not None:
        detections = detections.above(errors.min_score)
    window = _window(np.array(shown), record)
    left, top, right, bottom = window
    crop = np.ascontiguousarray(pixels[top:bottom, left:right])
    zoom = math.ceil(MIN_PANEL / max(crop.shape[:2]))
    truth = _crop_record(record, window, with_masks)
    panels = [visualize.draw(crop, truth, classes=errors.classes, skeleton=skeleton, zoom=zoom)]
    if detections is None:
        nothing = truth.select(np.zeros(len(truth), bool))
        panels.append(visualize.draw(crop, nothing, zoom=zoom))
    else:
        detections = _crop_detections(detections, window, with_masks)
        panels.append(visualize.draw(crop, detections, min_score=0, zoom=zoom))
    return visualize.grid(panels, columns=2)


def _window(boxes: np.ndarray, record: Record) -> tuple[int, int, int, int]:
    """Return the corners `xyxy` in whole pixels of the crop around boxes."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    half = max(float((high - low).max()) * (0.5 + MARGIN), MIN_CROP / 2)
    centre, size = (low + high) / 2, np.array([record.width, record.height])
    left, top = np.clip(np.floor(centre - half), 0, size - 1).astype(int).tolist()
    right, bottom = np.clip(np.ceil(centre + half), [left + 1, top + 1], size).astype(int).tolist()
    return left, top, right, bottom


def _crop_record(record: Record, window: tuple[int, int, int, int], with_masks: bool) -> Record:
    """Return the objects that reach into a window, in its pixels."""
    left, top, right, bottom = window
    boxes = np.clip(record.boxes - [left, top] * 2, 0, [right - left, bottom - top] * 2)
    record = replace(
        record,
        boxes=boxes,
        height=bottom - top,
        width=right - left,
        segmentations=_crop_masks(record, window) if with_masks else None,
        keypoints=_moved_keypoints(record.keypoints, left, top),
    )
    return record.select((boxes[:, 2:] > boxes[:, :2]).all(axis=1))


def _crop_masks(record: Record, window: tuple[int, int, int, int]) -> tuple | None:
    if record.segmentations is None:
        return None
    left, top, right, bottom = window
    masks: list[dict | None] = []
    for segmentation in record.segmentations:
        if segmentation is None:
            masks.append(None)
            continue
        mask = decode_mask(segmentation, record.height, record.width)[top:bottom, left:right]
        masks.append(run_length.encode(np.asfortranarray(mask, np.uint8)))
    return tuple(masks)


def _crop_detections(
    detections: Detections, window: tuple[int, int, int, int], with_masks: bool
) -> Detections:
    """Return the detections that reach into a window, in its pixels; boxes may extend beyond it."""
    left, top, right, bottom = window
    boxes = (detections.boxes - [left, top] * 2).astype(np.float32)
    size = bottom - top, right - left
    masks = detections.masks if with_masks else None
    detections = replace(
        detections,
        boxes=boxes,
        image_size=size,
        masks=masks,
        keypoints=_moved_keypoints(detections.keypoints, left, top),
    )
    inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < size[::-1]).all(axis=1)
    return detections.take(np.flatnonzero(inside))


def _moved_keypoints(keypoints: np.ndarray | None, left: int, top: int) -> np.ndarray | None:
    """Return keypoints `(n, P, 3)` in the pixels of a window."""
    return None if keypoints is None else keypoints - np.array([left, top, 0], np.float32)


def _caption(case: Case, record: Record, classes: Sequence[str]) -> str:
    name, file = classes[case.label], Path(record.path).name
    if case.kind == MISSED:
        return f"{MISSED}: {name}, {file}"
    overlap = ""
    if case.object >= 0:
        overlap = f", IoU {case.overlap:.2f} with {classes[record.labels[case.object]]}"
    return f"{case.kind}: {name} {case.score:.2f}{overlap}, {file}"
