"""Pictures of the worst cases: what a detector is surest of and wrong, and what it misses.

A picture is two panels cut out of the image: the ground truth, and what was found there.
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
from rcnn_keras.data.masks import decode_mask
from rcnn_keras.evaluation.errors import FALSE_POSITIVES, MISSED, Case, DetectionErrors

MARGIN = 0.6  # of the longer side of what is shown, on all sides

LEAST = 48  # pixels that a cut-out has at least, where the image has them

WIDE = 240  # pixels to which small cut-outs are enlarged at least


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
) -> list[Picture]:
    """Draw the false positives of the highest scores, by kind, and the largest missed objects.

    A false positive is drawn alone on the right; beside a missed object all detections of the
    errors' `min_score` are. Masks are drawn if the errors are told by masks.

    Args:
        folder: where the PNG files `error_<kind>_<number>.png` are written; made if missing.
        errors: of these detections on this dataset.
        dataset: images and ground truth.
        detections: by image id, those that the errors were told of.
        count: how many of each kind at the most.
        kinds: which kinds, in which order.

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
            _draw(case, record, detections.get(case.image_id), errors).save(path)
            pictures.append(Picture(path, _caption(case, record, errors.classes)))
    return pictures


def _draw(
    case: Case, record: Record, found: Detections | None, errors: DetectionErrors
) -> Image.Image:
    """Return both panels of a case."""
    with_masks = errors.kind == "mask"
    shown = [record.boxes[case.object]] if case.object >= 0 else []
    if found is not None and case.detection >= 0:
        found = _select(found, np.array([case.detection]))
        shown.append(found.boxes[0])
    elif found is not None:
        found = found.above(errors.min_score)
    window = _window(np.array(shown), record)
    left, top, right, bottom = window
    pixels = read_image(record.image)
    cut = np.ascontiguousarray(pixels[top:bottom, left:right])
    zoom = math.ceil(WIDE / max(cut.shape[:2]))
    truth = _cut_record(record, window, with_masks)
    panels = [visualize.draw(cut, truth, classes=errors.classes, zoom=zoom)]
    if found is None:
        nothing = truth.select(np.zeros(len(truth), bool))
        panels.append(visualize.draw(cut, nothing, zoom=zoom))
    else:
        found = _cut_detections(found, window, with_masks)
        panels.append(visualize.draw(cut, found, min_score=0, zoom=zoom))
    return visualize.grid(panels, columns=2)


def _window(boxes: np.ndarray, record: Record) -> tuple[int, int, int, int]:
    """Return the corners `xyxy` in whole pixels of what to cut out around boxes."""
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    half = max(float((high - low).max()) * (0.5 + MARGIN), LEAST / 2)
    centre, size = (low + high) / 2, np.array([record.width, record.height])
    left, top = np.clip(np.floor(centre - half), 0, size - 1).astype(int).tolist()
    right, bottom = np.clip(np.ceil(centre + half), [left + 1, top + 1], size).astype(int).tolist()
    return left, top, right, bottom


def _cut_record(record: Record, window: tuple[int, int, int, int], with_masks: bool) -> Record:
    """Return the objects that reach into a window, in its pixels."""
    left, top, right, bottom = window
    boxes = np.clip(record.boxes - [left, top] * 2, 0, [right - left, bottom - top] * 2)
    record = replace(
        record,
        boxes=boxes,
        height=bottom - top,
        width=right - left,
        segmentations=_cut_masks(record, window) if with_masks else None,
    )
    return record.select((boxes[:, 2:] > boxes[:, :2]).all(axis=1))


def _cut_masks(record: Record, window: tuple[int, int, int, int]) -> tuple | None:
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


def _cut_detections(
    found: Detections, window: tuple[int, int, int, int], with_masks: bool
) -> Detections:
    """Return the detections that reach into a window, in its pixels; boxes go on outside it."""
    left, top, right, bottom = window
    boxes = (found.boxes - [left, top] * 2).astype(np.float32)
    size = bottom - top, right - left
    found = replace(found, boxes=boxes, image_size=size, masks=found.masks if with_masks else None)
    inside = (boxes[:, 2:] > 0).all(axis=1) & (boxes[:, :2] < size[::-1]).all(axis=1)
    return _select(found, np.flatnonzero(inside))


def _select(found: Detections, index: np.ndarray) -> Detections:
    return replace(
        found,
        boxes=found.boxes[index],
        scores=found.scores[index],
        labels=found.labels[index],
        masks=None if found.masks is None else found.masks[index],
    )


def _caption(case: Case, record: Record, classes: Sequence[str]) -> str:
    name, file = classes[case.label], Path(record.path).name
    if case.kind == MISSED:
        return f"{MISSED}: {name}, {file}"
    overlap = ""
    if case.object >= 0:
        overlap = f", IoU {case.overlap:.2f} with {classes[record.labels[case.object]]}"
    return f"{case.kind}: {name} {case.score:.2f}{overlap}, {file}"
