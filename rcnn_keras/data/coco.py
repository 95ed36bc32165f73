"""COCO JSON files (https://cocodataset.org/#format-data): reading and checking them."""

import gc
import json
import os
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

from rcnn_keras.data.coco_folders import find_images, only_coco_file
from rcnn_keras.data.dataset import DetectionDataset, check_known, check_names
from rcnn_keras.data.masks import PolygonBuffer
from rcnn_keras.data.problems import Problem, ProblemLog
from rcnn_keras.data.validation import (
    Entry,
    Object,
    build_dataset,
    check_entries,
    warn_repaired,
)

LISTS = ("images", "annotations", "categories")
VACANT = "N/A"  # begins the names of a model's outputs that stand for no category


def load_coco(
    path: str | PathLike,
    images: str | PathLike | None = None,
    *,
    classes: Iterable[str] | None = None,
) -> DetectionDataset:
    """Return the dataset of a COCO JSON file, checked as a whole before anything is done with it.

    Label i is the category with the i-th smallest id, whatever the ids are. Boxes `[x, y, w, h]`
    become `xyxy` in pixels of the upright image, clipped to it. Boxes without area or outside
    their image are dropped; images without objects, crowd regions and segmentations are kept. Of
    an object whose segmentation is malformed the box stays, without a segmentation.

    Args:
        path: the JSON file, or a folder with one alone, as Roboflow's `_annotations.coco.json`.
        images: the folder its `file_name`s are relative to; by default that of the JSON file,
            `images` inside it, or the only folder near it that has them. A name that is spelled
            otherwise on disk (separators, letter case, Unicode form, folders left out) is repaired
            if one file alone fits.
        classes: these classes only, in this order. Those named "N/A .." need not be in the file;
            models of torchvision have them for numbers that no category of COCO has. They are
            classes without objects, the i-th of all with category id i where the file leaves
            that one free.

    Raises:
        DatasetError: if the file or an image cannot be used; lists everything that is wrong.
        ValueError: for a name in `classes` that is no category; names the nearest one.

    Warns:
        UserWarning: once, with the counts of what was repaired; `dataset.problems` lists it.
    """
    log = ProblemLog()
    entries, categories = _parse(path, images, log)
    log.raise_fatal()
    if classes is not None:
        classes = check_names(classes)
        categories = _with_vacant(categories, classes)
        check_known(classes, categories.values())
    dataset = build_dataset(
        entries,
        list(categories.values()),
        log,
        category_ids=list(categories),
        name=Path(path).stem,
    )
    if classes is not None:
        dataset = dataset.with_classes(classes)
    warn_repaired(dataset, f"rcnn data check {os.fspath(path)}")
    return dataset


def _with_vacant(categories: dict[int, str], classes: Iterable[str]) -> dict[int, str]:
    """Add the wanted names of numbers that stand for nothing; see `load_coco`."""
    known = set(categories.values())
    added: dict[int, str] = {}
    for number, name in enumerate(classes, start=1):
        if name.startswith(VACANT) and name not in known:
            last = max((*categories, *added, number))
            added[number if number not in (categories | added) else last + 1] = name
    return categories | added


def check_coco(
    path: str | PathLike, images: str | PathLike | None = None, *, decode: bool = True
) -> list[Problem]:
    """Return every problem of a COCO JSON file and its images, fatal and repaired ones.

    Args:
        path: as in `load_coco`.
        images: as in `load_coco`.
        decode: decode every image, which finds damage that `load_coco` cannot see; else look
            only where it looks.
    """
    log = ProblemLog()
    entries, _ = _parse(path, images, log)
    check_entries(entries, log, decode=decode)
    return log.problems


def _parse(
    path: str | PathLike, images: str | PathLike | None, log: ProblemLog
) -> tuple[list[Entry], dict[int, str]]:
    """Return what the file states: its images with their objects, and names by category id."""
    file = only_coco_file(path, log)
    content = None if file is None else _read_lists(file, log)
    if file is None or content is None:
        return [], {}
    categories = _categories(file, content["categories"], log)
    entries = _images(file, content["images"], log)
    _annotations(file, content["annotations"], entries, categories, log)
    named = [entry for entry in entries.values() if entry.path]
    return find_images(file, images, named, log), categories


def _read_lists(file: str, log: ProblemLog) -> dict[str, list] | None:
    """Return the three lists of the file, polygons packed, or None if it is no COCO JSON."""
    buffer = PolygonBuffer()

    def packed(item: dict[str, Any]) -> dict[str, Any]:
        if "segmentation" in item:
            item["segmentation"] = buffer.add(item["segmentation"])
        return item

    try:
        with _no_collection():
            content = json.loads(_read_text(file), object_hook=packed)
    except OSError as error:
        log.fatal(file, "", "", "", f"cannot be read: {error.strerror}")
        return None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        log.fatal(file, "", "", "", f"is not JSON: {error.msg} at {where}")
        return None
    except UnicodeDecodeError as error:
        log.fatal(file, "", "", "", f"is not JSON: {error}")
        return None
    if not isinstance(content, dict):
        log.fatal(file, "", "", "", f"is a JSON {type(content).__name__}, not an object")
        return None
    bad = [key for key in LISTS if not isinstance(content.get(key), list)]
    for key in bad:
        value = content.get(key, "missing")
        log.fatal(file, "", key, value, "a COCO file has a list here")
    return None if bad else content


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python from looking for cycles, which parsed JSON has none of, among its millions."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _read_text(file: str) -> str:
    """Return the text of a JSON file; `json.loads` would keep the bytes beside it."""
    content = Path(file).read_bytes()
    return content.decode(json.detect_encoding(content), "surrogatepass")


def _categories(file: str, items: list, log: ProblemLog) -> dict[int, str]:
    """Return the category names by id, smallest id first."""
    if not items:
        log.fatal(file, "", "categories", items, "there is no category")
    categories: dict[int, str] = {}
    for index, item in enumerate(items):
        id = _id(file, "category", index, item, categories, log)
        if id is None:
            continue
        name = item.get("name", "missing")
        if "name" not in item or not isinstance(name, str) or not name:
            log.fatal(file, f"category {id}", "name", name, "is not a name")
        elif name in categories.values():
            log.fatal(file, f"category {id}", "name", name, "another category has this name")
        categories[id] = str(name)
    return dict(sorted(categories.items()))


def _images(file: str, items: list, log: ProblemLog) -> dict[int, Entry]:
    """Return the images by id; their paths are still relative to the folder of images."""
    if not items:
        log.fatal(file, "", "images", items, "there is no image")
    entries: dict[int, Entry] = {}
    for index, item in enumerate(items):
        id = _id(file, "image", index, item, entries, log)
        if id is None:
            continue
        where = f"image {id}"
        name = item.get("file_name", "missing")
        if "file_name" not in item or not isinstance(name, str) or not name:
            log.fatal(file, where, "file_name", name, "is not a file name")
            name = ""
        size: tuple[int, int] | None = None
        if item.get("height") is not None and item.get("width") is not None:
            size = (item["height"], item["width"])
            for key in ("height", "width"):
                value = item[key]
                if not (_is_number(value) and value >= 1 and value % 1 == 0):
                    log.fatal(file, where, key, value, "is not a number of pixels")
                    size = None
        entries[id] = Entry(id, file, where, name, size)
    return entries


def _annotations(
    file: str,
    items: list,
    entries: dict[int, Entry],
    categories: dict[int, str],
    log: ProblemLog,
) -> None:
    """Add the objects to the entries of their images; they leave `items` one by one."""
    labels = {id: label for label, id in enumerate(categories)}
    seen: dict[int, None] = {}
    known: dict[str, Container[int]] = {"image_id": entries, "category_id": labels}
    for index in range(len(items)):
        item, items[index] = items[index], None
        id = _id(file, "annotation", index, item, seen, log)
        if id is None:
            continue
        seen[id] = None
        where, sound = f"annotation {id}", True
        for key, ids in known.items():
            value = item.get(key, "missing")
            if not _is_id(value) or value not in ids:
                log.fatal(file, where, key, value, f"no {key.removesuffix('_id')} has this id")
                sound = False
        crowd = item.get("iscrowd", 0)
        if crowd not in (0, 1):
            log.fatal(file, where, "iscrowd", crowd, "is neither 0 nor 1")
            sound = False
        box = _box(file, where, item.get("bbox", "missing"), log)
        if not sound or box is None:
            continue
        area = item.get("area")
        usable = _is_number(area) and _is_finite(area) and area > 0
        entries[item["image_id"]].objects.append(
            Object(
                where,
                "bbox",
                item["bbox"],
                box,
                labels[item["category_id"]],
                bool(crowd),
                item.get("segmentation") or None,
                float(area) if usable else None,
                difficult=crowd == 1 and item.get("difficult") == 1,
            )
        )


def _box(
    file: str, where: str, bbox: Any, log: ProblemLog
) -> tuple[float, float, float, float] | None:
    """Return `[x, y, width, height]` as `xyxy`, None if that is not what it is."""
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(map(_is_number, bbox)):
        log.fatal(file, where, "bbox", bbox, "is not four numbers x, y, width, height")
    elif not all(map(_is_finite, bbox)):
        log.fatal(file, where, "bbox", bbox, "is not finite")
    elif bbox[2] < 0 or bbox[3] < 0:
        log.fatal(file, where, "bbox", bbox, "has a negative width or height")
    else:
        x, y, width, height = bbox
        return x, y, x + width, y + height
    return None


def _id(file: str, kind: str, index: int, item: Any, seen: dict, log: ProblemLog) -> int | None:
    """Return the id of an image, annotation or category, None if it has none of its own."""
    if not isinstance(item, dict):
        log.fatal(file, f"{kind} at index {index}", "", "", f"is not an object: {item!r:.60}")
        return None
    id = item.get("id", "missing")
    if not _is_id(id):
        log.fatal(file, f"{kind} at index {index}", "id", id, "is not a 64-bit integer")
        return None
    if id in seen:
        log.fatal(file, f"{kind} {id}", "id", id, f"more than one {kind} has this id")
        return None
    return id


def _is_id(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: float) -> bool:
    return abs(value) < 1e30  # and so in float32
