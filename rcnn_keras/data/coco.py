"""COCO JSON files (https://cocodataset.org/#format-data): reading and checking them."""

import gc
import json
import os
from collections.abc import Collection, Container, Iterable, Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.coco_folders import find_images, only_coco_file
from rcnn_keras.data.coco_json import Categories, Ids, read_categories, read_skeleton, shown
from rcnn_keras.data.dataset import DetectionDataset, check_known, check_names
from rcnn_keras.data.entries import Entry, Object
from rcnn_keras.data.keypoints import (
    HIDDEN,
    NOT_LABELLED,
    VISIBLE,
    Skeleton,
    num_labelled,
    numbered_skeleton,
)
from rcnn_keras.data.masks import PolygonBuffer, as_polygons, as_run_lengths
from rcnn_keras.data.object_rules import Crowd, WithoutMask, check_rules
from rcnn_keras.data.problems import Problem, ProblemLog, as_json
from rcnn_keras.data.validation import (
    build_dataset,
    check_entries,
    warn_repaired,
)
from rcnn_keras.data.values import FROM_TEXT, number, truth, whole_number

LISTS = ("images", "annotations", "categories")
VACANT = "N/A"  # begins the names of a model's outputs that stand for no category


def load_coco(
    path: str | PathLike,
    images: str | PathLike | None = None,
    *,
    classes: Iterable[str] | None = None,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> DetectionDataset:
    """Return the dataset of a COCO JSON file, checked as a whole before anything is done with it.

    Label i is the category with the i-th smallest id, whatever the ids are. Boxes `[x, y, w, h]`
    become `xyxy` in pixels of the upright image, clipped to it. Boxes without area or outside
    their image are dropped; images without objects, crowd regions and segmentations are kept. Of
    an object whose segmentation is malformed the box stays, without a segmentation; where one
    polygon of several is malformed, the others stay.

    What other tools write differently is read, and counted: numbers as text, ids that are file
    names, flat polygons, categories listed twice or of one name. Categories without objects that
    are the root of a hierarchy or stand for the background are not classes, unless `classes` has
    them. A file that is listed under several ids is one image.

    Keypoints are read as they are stated, their coordinates in the pixels of the boxes, the names
    and the skeleton from the categories (`dataset.skeleton`); left and right change places in a
    mirrored image where names differ in these words alone. One outside its image counts as not
    labelled. Categories of different keypoints are read without them, unless `classes` leaves one.

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
        crowd: "ignore" keeps crowd regions (`iscrowd`) apart: training leaves them out, scores
            ignore them. "objects" reads them as ordinary objects, for files of tools that mark
            every mask as crowd.
        without_mask: what becomes of objects, other than crowd regions, that have no usable
            segmentation. "keep": they have a box alone, and whatever needs masks raises and names
            them. "drop": they are left out. "box": their mask is their box, filled.

    Raises:
        DatasetError: if the file or an image cannot be used; lists everything that is wrong.
        ValueError: for a name in `classes` that is not a category, with the nearest one; or another
            word for `crowd` or `without_mask`.

    Warns:
        UserWarning: once, with the counts of what was repaired and with what is suspicious, such as
            objects that are nearly all crowd; `dataset.problems` lists it.
    """
    check_rules(crowd, without_mask)
    log = ProblemLog()
    if classes is not None:
        classes = check_names(classes)
    entries, categories, skeleton = _parse(path, images, log, classes or ())
    log.raise_fatal()
    if classes is not None:
        categories = _with_vacant(categories, classes)
        check_known(classes, categories.values())
    dataset = build_dataset(
        entries,
        list(categories.values()),
        log,
        category_ids=list(categories),
        name=Path(path).stem,
        wanted=classes,
        skeleton=skeleton,
        crowd=crowd,
        without_mask=without_mask,
    )
    warn_repaired(dataset, f"rcnn data check {os.fspath(path)}")
    return dataset


def _with_vacant(categories: dict[int, str], classes: Iterable[str]) -> dict[int, str]:
    """Add the wanted names of numbers that stand for nothing; see `load_coco`."""
    known = set(categories.values())
    added: dict[int, str] = {}
    for place, name in enumerate(classes, start=1):
        if name.startswith(VACANT) and name not in known:
            last = max((*categories, *added, place))
            added[place if place not in (categories | added) else last + 1] = name
    return categories | added


def check_coco(
    path: str | PathLike,
    images: str | PathLike | None = None,
    *,
    decode: bool = True,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> list[Problem]:
    """Return every problem of a COCO JSON file and its images: fatal, repaired and suspicious ones.

    Args:
        path: as in `load_coco`.
        images: as in `load_coco`.
        decode: decode every image, which finds damage that `load_coco` cannot see; else look
            only where it looks.
        crowd: as in `load_coco`.
        without_mask: likewise.
    """
    check_rules(crowd, without_mask)
    log = ProblemLog()
    entries, categories, _ = _parse(path, images, log)
    check_entries(
        entries,
        list(categories.values()),
        log,
        decode=decode,
        crowd=crowd,
        without_mask=without_mask,
    )
    return log.problems


def _parse(
    path: str | PathLike,
    images: str | PathLike | None,
    log: ProblemLog,
    wanted: Collection[str] = (),
) -> tuple[list[Entry], dict[int, str], Skeleton | None]:
    """Return what the file states: images with their objects, names by category id, keypoints."""
    file = only_coco_file(path, log)
    content = None if file is None else _read_lists(file, log)
    if file is None or content is None:
        return [], {}, None
    annotations = content["annotations"]
    categories = read_categories(file, content["categories"], annotations, log, wanted)
    entries, ids = _images(file, content["images"], log)
    skeleton, others = read_skeleton(file, content["categories"], categories, log, wanted)
    if skeleton is None and not any(_states(item, "keypoints") for item in content["categories"]):
        skeleton = _unnamed_keypoints(file, annotations, log)
    _annotations(file, annotations, entries, ids, categories, skeleton, others, log)
    named = [entry for entry in entries.values() if entry.path]
    return find_images(file, images, named, log), categories.names, skeleton


def _states(item: Any, key: str) -> bool:
    """Return whether an item of the file has something under a key."""
    return isinstance(item, dict) and bool(item.get(key))


def _unnamed_keypoints(file: str, annotations: list, log: ProblemLog) -> Skeleton | None:
    """Return numbered keypoints where objects have some and no category names them."""
    stated = next((a["keypoints"] for a in annotations if _states(a, "keypoints")), None)
    if not isinstance(stated, list) or len(stated) < 3:
        return None
    message = "keypoints that no category names numbered"
    log.repaired(file, "", "keypoints", f"{len(stated) // 3} of each object", message)
    return numbered_skeleton(len(stated) // 3)


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
    except ValueError as error:  # not UTF-8, or a number of thousands of digits
        log.fatal(file, "", "", "", f"is not JSON: {error}")
        return None
    if not isinstance(content, dict):
        log.fatal(file, "", "", "", f"is a JSON {type(content).__name__}, not an object")
        return None
    bad = [key for key in LISTS if not isinstance(content.get(key), list)]
    for key in bad:
        log.fatal(file, "", key, shown(content, key), "a COCO file has a list here")
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


def _images(file: str, items: list, log: ProblemLog) -> tuple[dict[int, Entry], Ids]:
    """Return the images by id; their paths are still relative to the folder of images."""
    if not items:
        log.fatal(file, "", "images", "[]", "there is no image")
    ids = Ids(file, "image", items, log)
    entries: dict[int, Entry] = {}
    for index, item in enumerate(items):
        id = ids.of(index, item)
        if id is None:
            continue
        if id in entries:
            ids.repeated(id, item)
            continue
        where = f"image {id}"
        name = item.get("file_name")
        if not isinstance(name, str) or not name:
            log.fatal(file, where, "file_name", shown(item, "file_name"), "is not a file name")
            name = ""
        height, width = (_side(file, where, key, item, log) for key in ("height", "width"))
        size = (height, width) if height and width else None
        entries[id] = Entry(id, file, where, name, size)
    return entries, ids


def _side(file: str, where: str, key: str, item: dict[str, Any], log: ProblemLog) -> int | None:
    """Return the height or width of an image; None or 0 if the file does not state it."""
    value = item.get(key)
    if value is None:
        return None
    side = whole_number(value)
    if side is None or side < 0:
        log.fatal(file, where, key, shown(item, key), "is not a number of pixels")
        return None
    if isinstance(value, str):
        log.repaired(file, where, key, as_json(value), FROM_TEXT)
    return side


def _annotations(
    file: str,
    items: list,
    entries: dict[int, Entry],
    images: Ids,
    categories: Categories,
    skeleton: Skeleton | None,
    unread: Container[int],
    log: ProblemLog,
) -> None:
    """Add the objects to the entries of their images; they leave `items` one by one.

    Objects of categories in `unread` have other keypoints than those of `skeleton`.
    """
    labels = categories.labels()
    seen: dict[int, None] = {}
    ids = Ids(file, "annotation", items, log)
    known: dict[str, tuple[Ids, Container[int]]] = {
        "image_id": (images, entries),
        "category_id": (categories.ids, labels),
    }
    for index in range(len(items)):
        item, items[index] = items[index], None
        id = ids.of(index, item)
        if id is None:
            continue
        if id in seen:
            ids.repeated(id, item)
            continue
        seen[id] = None
        where, sound = f"annotation {id}", True
        found: dict[str, int] = {}
        for key, (others, there) in known.items():
            other = others.read(item, key, where)
            if other is None or other not in there:
                message = f"no {key.removesuffix('_id')} has this id"
                log.fatal(file, where, key, shown(item, key), message)
                sound = False
            else:
                found[key] = other
        crowd = _crowd(file, where, item, log)
        box = _box(file, where, item, log)
        if not sound or crowd is None or box is None:
            continue
        stated = item.get("area")
        area = number(stated)
        if area is None and stated not in (None, ""):
            message = "area that is no number left out"
            log.repaired(file, where, "area", as_json(stated), message)
        elif isinstance(stated, str) and stated:
            log.repaired(file, where, "area", as_json(stated), FROM_TEXT)
        usable = area is not None and _is_finite(area) and area > 0
        segmentation = item.get("segmentation") or None
        if isinstance(segmentation, list):
            segmentation = _polygons(file, where, segmentation, log)
        elif isinstance(segmentation, dict):
            segmentation = _run_lengths(file, where, segmentation, log)
        keypoints = None
        if skeleton is not None and found["category_id"] not in unread:
            keypoints = _keypoints(file, where, item, skeleton, log)
        entries[found["image_id"]].objects.append(
            Object(
                where,
                "bbox",
                item["bbox"],
                box,
                labels[found["category_id"]],
                crowd,
                segmentation,
                float(area) if area is not None and usable else None,
                difficult=crowd and truth(item.get("difficult")) is True,
                keypoints=keypoints,
            )
        )


def _crowd(file: str, where: str, item: dict[str, Any], log: ProblemLog) -> bool | None:
    """Return whether an object is a crowd region, None if the file says neither yes nor no."""
    stated = item.get("iscrowd")
    if stated is None:
        return False
    crowd = truth(stated)
    if crowd is None:
        log.fatal(file, where, "iscrowd", as_json(stated), "is neither 0 nor 1")
    elif isinstance(stated, str):
        log.repaired(file, where, "iscrowd", as_json(stated), FROM_TEXT)
    return crowd


def _box(
    file: str, where: str, item: dict[str, Any], log: ProblemLog
) -> tuple[float, float, float, float] | None:
    """Return `[x, y, width, height]` as `xyxy`, None if that is not what it is."""
    bbox = item.get("bbox")
    numbers = [number(value) for value in bbox] if isinstance(bbox, list) else []
    sides = [value for value in numbers if value is not None]
    problem = ""
    if len(numbers) != 4 or len(sides) != 4:
        problem = "is not four numbers x, y, width, height"
    elif not all(map(_is_finite, sides)):
        problem = "is not finite"
    elif sides[2] < 0 or sides[3] < 0:
        problem = "has a negative width or height"
    if problem:
        log.fatal(file, where, "bbox", shown(item, "bbox"), problem)
        return None
    if any(isinstance(value, str) for value in item["bbox"]):
        log.repaired(file, where, "bbox", as_json(bbox), FROM_TEXT)
    x, y, width, height = sides
    return x, y, x + width, y + height


def _polygons(file: str, where: str, stated: list, log: ProblemLog) -> list:
    """Return polygons as COCO writes them, if other tools' way to write them is recognised."""
    polygons, repairs = as_polygons(stated)
    for message in repairs:
        log.repaired(file, where, "segmentation", as_json(stated), message)
    return polygons


def _run_lengths(file: str, where: str, stated: dict[str, Any], log: ProblemLog) -> dict[str, Any]:
    """Return run lengths in numbers, if they are written as text."""
    numbers = as_run_lengths(stated)
    if numbers != stated:
        log.repaired(file, where, "segmentation", stated, FROM_TEXT)
    return numbers


def _keypoints(
    file: str, where: str, item: dict[str, Any], skeleton: Skeleton, log: ProblemLog
) -> np.ndarray | None:
    """Return the keypoints of an object, `(P, 3)`, None if it has none or they are malformed."""
    stated = item.get("keypoints")
    if stated is None or stated == []:
        return None
    values = [number(value) for value in stated] if isinstance(stated, list) else []
    numbers = [value for value in values if value is not None]
    count = len(skeleton)
    if len(values) != 3 * count or len(numbers) != 3 * count or not all(map(_is_finite, numbers)):
        have = f", and has {len(values)}" if isinstance(stated, list) else ""
        message = f"is not 3 x {count} numbers, x, y and visibility of {count} keypoints{have}"
        log.fatal(file, where, "keypoints", shown(item, "keypoints"), message)
        return None
    if any(isinstance(value, str) for value in stated):
        log.repaired(file, where, "keypoints", as_json(stated), FROM_TEXT)
    keypoints = np.array(numbers, np.float64).reshape(count, 3)
    wrong = ~np.isin(keypoints[:, 2], (NOT_LABELLED, HIDDEN, VISIBLE))
    if wrong.any():
        p = int(wrong.argmax())
        value = as_json(stated[3 * p : 3 * p + 3])
        message = (
            f"{skeleton.names[p]}: a visibility is 0 (not labelled), 1 (hidden) or 2 (in sight)"
        )
        log.fatal(file, where, f"keypoints.{3 * p + 2}", value, message)
        return None
    labelled = int(num_labelled(keypoints))
    if item.get("num_keypoints") is not None and number(item["num_keypoints"]) != labelled:
        message = "num_keypoints counted from the keypoints, with which it does not agree"
        value = f"{shown(item, 'num_keypoints')} for {labelled} labelled"
        log.repaired(file, where, "num_keypoints", value, message)
    return keypoints


def _is_finite(value: float) -> bool:
    return abs(value) < 1e30  # and so in float32
