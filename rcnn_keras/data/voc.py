"""Pascal VOC annotations (VOC devkit, 2007 to 2012): one XML file an image."""

import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from rcnn_keras.data.dataset import DetectionDataset, check_names
from rcnn_keras.data.entries import Entry, Object
from rcnn_keras.data.image_files import NameIndex
from rcnn_keras.data.object_rules import Crowd, WithoutMask, check_rules
from rcnn_keras.data.problems import Problem, ProblemLog
from rcnn_keras.data.validation import (
    build_dataset,
    check_entries,
    existing_folder,
    warn_repaired,
)
from rcnn_keras.data.values import RESPELLED, class_name, truth
from rcnn_keras.data.voc_folders import VocFolder, decode_text, find_voc

CORNERS = ("xmin", "ymin", "xmax", "ymax")


def load_voc(
    root: str | PathLike,
    split: str | None = None,
    *,
    classes: Iterable[str] | None = None,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> DetectionDataset:
    """Return one split of a Pascal VOC folder, checked as a whole before anything is done with it.

    Corners are taken as continuous coordinates as they stand, without the -1 of the VOC devkit;
    objects marked `difficult` become crowd, which training leaves out and scoring ignores, and
    `Record.difficult` says which they are. Boxes are clipped to the image; those without area or
    outside it are dropped.

    Args:
        root: a folder with `Annotations`, `JPEGImages` and `ImageSets/Main/<split>.txt`, or the
            parts under other names that tools have: `annots`, `images`, `train.txt`, folders
            `train` and `valid`, everything in one folder. A folder that has one such folder in it
            stands for it, as `VOCdevkit` does for `VOC2007`.
        split: name of the list of images, or of the split's folder. None stands for `train` where
            there are splits, and for all XML files where there are none.
        classes: these classes only, in this order; the folder need not have objects of each. By
            default all the names in its XML files (of all splits, so that labels agree between
            them), sorted.
        crowd: "objects" reads difficult objects as ordinary ones.
        without_mask: as in `load_coco`; "box" gives every object its filled box as its mask.

    Raises:
        DatasetError: if a file or an image cannot be used; lists everything that is wrong.
        ValueError: if `classes` is a string, or repeats a name; for another word for `crowd` or
            `without_mask`.

    Warns:
        UserWarning: once, with the counts of what was repaired; `dataset.problems` lists it.
    """
    check_rules(crowd, without_mask)
    log = ProblemLog()
    entries, names = _parse(os.fspath(root), split, classes, log)
    dataset = build_dataset(
        entries,
        names,
        log,
        name=f"{Path(root).name} {split or 'train'}",
        crowd=crowd,
        without_mask=without_mask,
    )
    warn_repaired(dataset, f"rcnn data check {os.fspath(root)}")
    return dataset


def check_voc(
    root: str | PathLike,
    split: str | None = None,
    *,
    classes: Iterable[str] | None = None,
    decode: bool = True,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> list[Problem]:
    """Return every problem of a split of a Pascal VOC folder: fatal, repaired and suspicious ones.

    Args:
        root: as in `load_voc`.
        split: likewise.
        classes: likewise; objects of other classes are listed.
        decode: decode every image, which finds damage that `load_voc` cannot see; else look
            only where it looks.
        crowd: as in `load_voc`.
        without_mask: likewise.
    """
    check_rules(crowd, without_mask)
    log = ProblemLog()
    entries, names = _parse(os.fspath(root), split, classes, log)
    check_entries(entries, names, log, decode=decode, crowd=crowd, without_mask=without_mask)
    return log.problems


def _parse(
    root: str, split: str | None, classes: Iterable[str] | None, log: ProblemLog
) -> tuple[list[Entry], tuple[str, ...]]:
    """Return the images of the split with their objects, and the class names."""
    wanted = None if classes is None else check_names(classes)
    folder = find_voc(root, split, log) if existing_folder(root, "root", log) else None
    if folder is None:
        return [], ()
    trees: dict[str, ET.Element] = {}
    for name in folder.chosen:
        tree = _read_tree(os.path.join(folder.annotations, name), log)
        if tree is not None:
            trees[name] = tree
    names = _class_names(trees, folder) if wanted is None else wanted
    entries = []
    for number, (name, tree) in enumerate(trees.items(), start=1):
        file = os.path.join(folder.annotations, name)
        path = _image(file, name, tree.findtext("filename", "").strip(), folder, log)
        size, objects = _size(file, tree, log), _objects(file, tree, names, log)
        if path is not None:
            entries.append(Entry(number, file, "", path, size, objects))
    return entries, names


def _read_tree(file: str, log: ProblemLog) -> ET.Element | None:
    """Return the `annotation` element of an XML file."""
    try:
        content = Path(file).read_bytes()
        tree = ET.fromstring(content)
    except OSError as error:
        log.fatal(file, "", "", "", f"cannot be read: {error.strerror}")
        return None
    except (ET.ParseError, ValueError, LookupError):  # not XML, or not in the encoding it declares
        text, encoding = decode_text(content)
        try:
            tree = ET.fromstring(text.lstrip("\ufeff\0 \t\r\n"))
        except ET.ParseError as error:
            log.fatal(file, "", "", "", f"is not XML: {error}")
            return None
        log.repaired(file, "", "encoding", encoding, "encoding not as declared")
    if tree.tag != "annotation":
        log.fatal(file, "", "", "", f"is <{tree.tag}>, not a VOC <annotation>")
        return None
    return tree


def _class_names(trees: dict[str, ET.Element], folder: VocFolder) -> tuple[str, ...]:
    """Return the names of all classes in the folder; `trees` are the XML files read already."""
    found = set().union(*map(_object_names, trees.values()))
    quiet = ProblemLog()  # what is wrong in another split is reported when that one is read
    for name in folder.files:
        if name not in trees:
            other = _read_tree(os.path.join(folder.annotations, name), quiet)
            found |= set() if other is None else _object_names(other)
    return tuple(sorted(found))


def _object_names(tree: ET.Element) -> set[str]:
    return {name for o in tree.findall("object") if (name := class_name(o.findtext("name", "")))}


def _image(file: str, name: str, filename: str, folder: VocFolder, log: ProblemLog) -> str | None:
    """Return the image of an XML file: that of the same stem, else the one that it names."""
    stem = os.path.splitext(name)[0]
    match = folder.images.find(stem)
    if len(match.files) > 1 and filename:  # as the masks beside images have their stems
        ending = os.path.splitext(filename)[1].lower()
        fits = tuple(f for f in match.files if os.path.splitext(f)[1].lower() == ending)
        match = match._replace(files=fits or match.files)
    if not match.files and filename:
        match = NameIndex(folder.images.names, folder.image_folder).find(filename)
    if len(match.files) == 1:
        if not match.as_spelled:
            value = f"{filename or stem} -> {match.files[0]}"
            log.repaired(file, "", "filename", value, "file name spelled as on disk")
        return os.path.join(folder.image_folder, match.files[0])
    near = folder.images.near(stem)
    stated = Path(folder.image_folder, filename or f"{stem}.jpg")
    reason = f"no such file; {near}" if near else "no such file"
    log.fatal(file, "", "filename", stated, reason)
    return None


def _size(file: str, tree: ET.Element, log: ProblemLog) -> tuple[int, int] | None:
    """Return height and width; None if the file has none, or the 0 of tools that did not know."""
    size = []
    for key in ("height", "width"):
        text = tree.findtext(f"size/{key}", "").strip()
        number = _number(text) if text else 0
        if number is None or number < 0 or number % 1:
            log.fatal(file, "size", key, text, "is not a number of pixels")
            return None
        size.append(int(number))
    return (size[0], size[1]) if all(size) else None


def _objects(file: str, tree: ET.Element, names: tuple[str, ...], log: ProblemLog) -> list[Object]:
    """Return the objects of the classes in `names`."""
    objects = []
    for index, item in enumerate(tree.findall("object")):
        where = f"object {index}"
        stated = item.findtext("name", "").strip()
        name = class_name(stated, names)
        if name != stated:
            log.repaired(file, where, "name", f"{stated} -> {name}", RESPELLED)
        corners = _corners(file, where, item, log)
        if not name:
            log.fatal(file, where, "name", "missing", "the object has no class")
        elif name not in names:
            log.repaired(file, where, "name", name, "object of a class not asked for dropped")
        elif corners is not None:
            difficult = _is_true(file, where, "difficult", item, log)
            crowd, label = difficult, names.index(name)
            objects.append(
                Object(where, "bndbox", corners, corners, label, crowd, difficult=difficult)
            )
    return objects


def _corners(
    file: str, where: str, item: ET.Element, log: ProblemLog
) -> tuple[float, float, float, float] | None:
    """Return the corners `xyxy` of an object, None if they are not a box."""
    box = item.find("bndbox")
    if box is None:
        log.fatal(file, where, "bndbox", "missing", "the object has no box")
        return None
    corners = []
    for key in CORNERS:
        text = box.findtext(key, "missing").strip()
        number = _number(text)
        if number is None:
            log.fatal(file, where, key, text, "is not a finite number")
            return None
        corners.append(number)
    x1, y1, x2, y2 = corners
    if x1 > x2 or y1 > y2:
        low, high = ("xmin", "xmax") if x1 > x2 else ("ymin", "ymax")
        value = f"{x1:g}, {y1:g}, {x2:g}, {y2:g}"
        log.fatal(file, where, "bndbox", value, f"{low} is greater than {high}")
        return None
    return x1, y1, x2, y2


def _is_true(file: str, where: str, key: str, item: ET.Element, log: ProblemLog) -> bool:
    """Return whether a mark such as `difficult` is set, in any of the spellings that tools have."""
    text = item.findtext(key, "").strip()
    mark = truth(text)
    if mark is None:
        log.fatal(file, where, key, text, "is neither 0 nor 1")
    return bool(mark)


def _number(text: str) -> float | None:
    """Return the number that a text says, None if it is none that float32 holds."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e30 else None
