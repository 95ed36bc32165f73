"""From annotations as a file states them to records: what the COCO and VOC readers share.

A reader parses its files into `Entry`s and notes what is wrong with them in a `ProblemLog`; here
the images are looked at, and what can be repaired is repaired.
"""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.entries import Entry, Object, join_repeated
from rcnn_keras.data.images import (
    EXCHANGES_SIDES,
    ImageError,
    ImageHeader,
    read_header,
    read_image,
    turn_boxes,
    turn_keypoints,
    turn_segmentation,
)
from rcnn_keras.data.keypoints import NOT_LABELLED, Skeleton, points_inside
from rcnn_keras.data.masks import (
    MOST_OUTSIDE,
    Polygons,
    Segmentations,
    is_empty,
    malformed,
    sound_polygon,
)
from rcnn_keras.data.object_rules import (
    UNIT,
    Crowd,
    WithoutMask,
    apply_rules,
    find_fractions,
    find_suspicious,
    in_fractions,
)
from rcnn_keras.data.problems import Problem, ProblemLog, describe_problems

# A box less wide or high than this many pixels has no area.
MIN_SIDE = 1e-3

# Polygons of a greater area (in square pixels, by Gauss' formula) lie on no line, however long.
SURE_AREA = 1.0

AT_ONCE = 64  # images whose headers a thread reads in one go

# Published boxes are rounded to two decimals: so far over the border is not a fault of the labels.
ROUNDING = 0.01


def build_dataset(
    entries: Sequence[Entry],
    classes: Sequence[str],
    log: ProblemLog,
    *,
    category_ids: Sequence[int] | None = None,
    name: str = "",
    wanted: Sequence[str] | None = None,
    skeleton: Skeleton | None = None,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> DetectionDataset:
    """Return the dataset of the entries, of the classes that are `wanted` alone.

    Raises:
        DatasetError: if anything fatal is in the log, or is wrong with an image.
    """
    entries = _compared(entries, log)
    log.raise_fatal()  # before the images are opened, which takes longest
    records = _records(entries, log)
    log.raise_fatal()
    records = [apply_rules(record, log, crowd, without_mask) for record in records]
    dataset = DetectionDataset(
        records, classes, category_ids=category_ids, name=name, skeleton=skeleton
    )
    if wanted is not None:
        dataset = dataset.with_classes(wanted)
    if entries:
        find_suspicious(dataset, dataset.classes, _source(entries), log)
    dataset.problems = tuple(log.problems)
    return dataset


def warn_repaired(dataset: DetectionDataset, hint: str) -> None:
    """Say in one warning what is repaired and suspicious in a dataset, for the reader's caller."""
    if text := describe_problems(dataset.problems, hint):
        warnings.warn(f"{dataset.name}: {text}" if dataset.name else text, stacklevel=3)


def check_entries(
    entries: Sequence[Entry],
    classes: Sequence[str],
    log: ProblemLog,
    *,
    decode: bool = False,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> None:
    """Note every problem of the entries and of their images."""
    records = _records(_compared(entries, log), log, decode=decode)
    records = [apply_rules(record, log, crowd, without_mask) for record in records]
    if records:
        find_suspicious(records, classes, _source(entries), log)


def _source(entries: Sequence[Entry]) -> str:
    """Return the file that states all the entries, or the folder of their files."""
    file = entries[0].file
    return file if file == entries[-1].file else os.path.dirname(file)


def _compared(entries: Sequence[Entry], log: ProblemLog) -> Sequence[Entry]:
    """Return the entries without repetition; note what is wrong with all of them together."""
    entries = join_repeated(entries, log)
    find_fractions(entries, log)
    return entries


def _records(entries: Sequence[Entry], log: ProblemLog, *, decode: bool = False) -> list[Record]:
    """Return the records of all images that can be read, and note every problem on the way.

    Entries lose their objects as they become records: both would not fit beside each other.
    """
    without = not any(entry.objects for entry in entries)
    records = []
    paths = [[e.path for e in entries[i : i + AT_ONCE]] for i in range(0, len(entries), AT_ONCE)]
    with ThreadPoolExecutor() as pool:
        headers = chain.from_iterable(pool.map(partial(_headers, decode=decode), paths))
        for entry, header in zip(entries, headers, strict=True):
            if isinstance(header, ImageError):
                log.fatal(entry.file, entry.id, "file_name", Path(entry.path), header.reason)
            elif _size_fits(entry, header, log):
                records.append(_record(entry, header, log))
            entry.objects = []
    if entries and without:
        log.repaired(_source(entries), "", "", "", "dataset without any object")
    return records


def undecodable(paths: Sequence[str]) -> list[Problem]:
    """Decode image files, and return a problem for each that is damaged."""
    with ThreadPoolExecutor() as pool:
        reasons = pool.map(_damage, paths)
        found = zip(paths, reasons, strict=True)
        return [Problem(path, "", "", "", reason, True) for path, reason in found if reason]


def _damage(path: str) -> str | None:
    try:
        read_image(path)
    except ImageError as error:
        return error.reason
    return None


def _headers(paths: Sequence[str], decode: bool) -> list[ImageHeader | ImageError]:
    return [_header(path, decode) for path in paths]


def _header(path: str, decode: bool) -> ImageHeader | ImageError:
    try:
        if decode:
            read_image(path)
        return read_header(path)
    except ImageError as error:
        return error  # goes to the log with all the others


def _size_fits(entry: Entry, header: ImageHeader, log: ProblemLog) -> bool:
    """Return whether the stated size is the image's, upright or as it is stored."""
    upright, stored = (header.height, header.width), (header.width, header.height)
    if entry.size is None:
        log.repaired(entry.file, entry.id, "size", "none", "size missing, taken from the image")
    elif entry.size == stored != upright and header.orientation in EXCHANGES_SIDES:
        value = f"{entry.size[1]}x{entry.size[0]}, EXIF orientation {header.orientation}"
        log.repaired(entry.file, entry.id, "size", value, "boxes turned upright with their image")
    elif entry.size != upright:
        value = f"{entry.size[1]}x{entry.size[0]}"
        message = f"{entry.path} is {header.width}x{header.height} pixels (width x height)"
        log.fatal(entry.file, entry.id, "size", value, message)
        return False
    return True


def _record(entry: Entry, header: ImageHeader, log: ProblemLog) -> Record:
    """Return the record of an image: boxes upright, clipped, and none without area."""
    height, width, orientation = header
    objects = entry.objects
    boxes = np.array([o.box for o in objects], np.float64).reshape(-1, 4)
    stated_size = entry.size or (height, width)
    segmentations = [_sound_segmentation(entry, o, stated_size, log) for o in objects]
    points = [o.keypoints for o in objects]
    if entry.size not in (None, (height, width)):
        boxes = turn_boxes(boxes, orientation, height, width)
        points = [
            None if p is None else turn_keypoints(p, orientation, height, width) for p in points
        ]
        stored = Segmentations(segmentations)
        segmentations = [turn_segmentation(s, orientation, height, width) for s in stored]
    clipped = np.clip(boxes, 0, [width, height, width, height]).astype(np.float32)
    has_area = _has_area(boxes.astype(np.float32))
    inside = _has_area(clipped)
    overshoot = np.abs(clipped - boxes).max(axis=1, initial=0) > ROUNDING
    for i in np.flatnonzero(~inside | overshoot):
        if not has_area[i]:
            message = "box without area dropped"
        elif not inside[i]:
            message = "box outside its image dropped"
        else:
            message = "box clipped to its image"
        log.repaired(entry.file, objects[i].id, objects[i].field, objects[i].value, message)
    sides = clipped[:, 2:].astype(np.float64) - clipped[:, :2]
    difficult = [o.difficult for o in objects]
    areas = [a if (a := o.area) is not None else sides[i].prod() for i, o in enumerate(objects)]
    record = Record(
        image_id=entry.image_id,
        path=entry.path,
        height=height,
        width=width,
        boxes=clipped,
        labels=np.array([o.label for o in objects], np.int32),
        crowd=np.array([o.crowd for o in objects], bool),
        segmentations=Segmentations(segmentations) if any(segmentations) else None,
        areas=np.array(areas) if any(o.area is not None for o in objects) else None,
        difficult=np.array(difficult) if any(difficult) else None,
        keypoints=_keypoints(entry, points, (height, width), log),
    )
    return record if inside.all() else record.select(inside)


def _sound_segmentation(entry: Entry, item: Object, size: tuple[int, int], log: ProblemLog) -> Any:
    """Return the segmentation of an object, or what is sound of it; None if nothing is."""
    stated = item.segmentation
    if isinstance(stated, Polygons):
        # Polygons that are in question are looked at one by one; nearly none are.
        if UNIT < stated.reach() <= MOST_OUTSIDE * max(size) and stated.least_area() > SURE_AREA:
            return stated
        stated = [[int(v) if v.is_integer() else v for v in p] for p in stated.lists()]
    if in_fractions(item):
        message = "segmentation in fractions dropped, its box kept"
        log.repaired(entry.file, item.id, "segmentation", stated, message)
        return None
    if isinstance(stated, list):
        bad = [i for i, polygon in enumerate(stated) if not sound_polygon(polygon, size)]
        if len(bad) < len(stated):
            for i in bad:
                message = "malformed polygon dropped, the others kept"
                log.repaired(entry.file, item.id, f"segmentation.{i}", stated[i], message)
            return [polygon for i, polygon in enumerate(stated) if i not in bad]
        problem = (f"segmentation.{bad[0]}", stated[bad[0]]) if bad else None
    else:
        problem = None if stated is None else malformed(stated, size)
        if stated is not None and problem is None and is_empty(stated):
            problem = "segmentation.counts", stated["counts"]
    if problem is None:
        return stated
    log.repaired(entry.file, item.id, *problem, "malformed segmentation dropped, its box kept")
    return None


def _keypoints(
    entry: Entry, stated: Sequence[np.ndarray | None], size: tuple[int, int], log: ProblemLog
) -> np.ndarray | None:
    """Return the keypoints of an image's objects, those outside of it not labelled."""
    first = next((keypoints for keypoints in stated if keypoints is not None), None)
    if first is None:
        return None
    keypoints = np.stack([np.zeros_like(first) if k is None else k for k in stated])
    inside = points_inside(keypoints[..., :2], *size, tolerance=ROUNDING)
    for i, p in np.argwhere(~inside & (keypoints[..., 2] > NOT_LABELLED)):
        value = f"{keypoints[i, p].tolist()} in {size[1]}x{size[0]}"
        message = "keypoint outside its image left out"
        log.repaired(entry.file, entry.objects[i].id, f"keypoints.{3 * p}", value, message)
    return np.where(inside[..., None], keypoints, 0)


def _has_area(boxes: np.ndarray) -> np.ndarray:
    """Return which of `(n, 4)` boxes are at least `MIN_SIDE` wide and high."""
    return (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE).all(axis=1)


def existing_folder(folder: str, field: str, log: ProblemLog) -> bool:
    """Return whether a folder exists; note it once, instead of all the files missing in it."""
    if os.path.isdir(folder):
        return True
    log.fatal(folder, "", field, Path(folder), "no such folder")
    return False
