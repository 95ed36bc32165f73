"""Pascal VOC annotations (VOC devkit, 2007 to 2012): one XML file an image."""

import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path

from rcnn_keras.data.dataset import DetectionDataset, check_names
from rcnn_keras.data.entries import Entry, Object
from rcnn_keras.data.images import IMAGE_ENDINGS
from rcnn_keras.data.object_rules import Crowd, WithoutMask, check_rules
from rcnn_keras.data.problems import Problem, ProblemLog
from rcnn_keras.data.validation import (
    build_dataset,
    check_entries,
    existing_folder,
    warn_repaired,
)

CORNERS = ("xmin", "ymin", "xmax", "ymax")
# Lists such as aeroplane_train.txt say -1, 0 or 1 after each name.
PRESENCE = re.compile(r"\s+(-1|0|1)$")


def load_voc(
    root: str | PathLike,
    split: str = "train",
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
        root: a folder with `Annotations`, `JPEGImages` and `ImageSets/Main/<split>.txt`; or, if it
            has no `ImageSets`, one whose XML files, in `Annotations` or beside the images, are all
            read whatever the split.
        split: name of the list of images.
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
        name=f"{Path(root).name} {split}",
        crowd=crowd,
        without_mask=without_mask,
    )
    warn_repaired(dataset, f"rcnn data check {os.fspath(root)}")
    return dataset


def check_voc(
    root: str | PathLike,
    split: str = "train",
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
    root: str, split: str, classes: Iterable[str] | None, log: ProblemLog
) -> tuple[list[Entry], tuple[str, ...]]:
    """Return the images of the split with their objects, and the class names."""
    wanted = None if classes is None else check_names(classes)
    annotations = os.path.join(root, "Annotations")
    annotations = annotations if os.path.isdir(annotations) else root
    if not existing_folder(root, "root", log):
        return [], ()
    in_folder = sorted(name for name in os.listdir(annotations) if name.endswith(".xml"))
    listed = _split_names(root, split, log)
    if listed is None:
        listed = [name.removesuffix(".xml") for name in in_folder]
        if not listed:
            log.fatal(annotations, "", "", "", "there is no XML file in this folder")
    trees: dict[str, ET.Element] = {}
    for name in listed:
        tree = _read_tree(os.path.join(annotations, f"{name}.xml"), log)
        if tree is not None:
            trees[name] = tree
    names = _class_names(trees, annotations, in_folder) if wanted is None else wanted
    images = _ImageFolder(root)
    entries = []
    for number, (name, tree) in enumerate(trees.items(), start=1):
        file = os.path.join(annotations, f"{name}.xml")
        path = images.find(name, tree.findtext("filename", ""))
        entry = Entry(number, file, "", path, _size(file, tree, log))
        entry.objects = _objects(file, tree, names, log)
        entries.append(entry)
    return entries, names


def _split_names(root: str, split: str, log: ProblemLog) -> list[str] | None:
    """Return the names in the list of the split, None if the folder has no such lists."""
    lists = Path(root, "ImageSets", "Main")
    if not lists.is_dir():
        return None
    file = lists / f"{split}.txt"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in lists.glob("*.txt")))
        log.fatal(file, "", "split", split, f"no such list of images; there are: {known}")
        return []
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    names: dict[str, None] = {}
    for number, line in enumerate(lines, start=1):
        name = PRESENCE.sub("", line)
        if name in names:
            log.repaired(file, f"line {number}", "", "", "image listed twice, read once")
        elif name:
            names[name] = None
    if not names:
        log.fatal(file, "", "", "", "there is no image in this list")
    return list(names)


def _read_tree(file: str, log: ProblemLog) -> ET.Element | None:
    """Return the `annotation` element of an XML file."""
    try:
        tree = ET.parse(file).getroot()
    except OSError as error:
        log.fatal(file, "", "", "", f"cannot be read: {error.strerror}")
        return None
    except (ET.ParseError, ValueError) as error:  # ValueError: an encoding that does not exist
        log.fatal(file, "", "", "", f"is not XML: {error}")
        return None
    if tree.tag != "annotation":
        log.fatal(file, "", "", "", f"is <{tree.tag}>, not a VOC <annotation>")
        return None
    return tree


def _class_names(
    trees: dict[str, ET.Element], annotations: str, in_folder: Sequence[str]
) -> tuple[str, ...]:
    """Return the names of all classes in the folder; `trees` are the XML files read already."""
    found = set().union(*map(_object_names, trees.values()))
    quiet = ProblemLog()  # what is wrong in another split is told when that one is read
    for name in in_folder:
        if name.removesuffix(".xml") not in trees:
            other = _read_tree(os.path.join(annotations, name), quiet)
            found |= set() if other is None else _object_names(other)
    return tuple(sorted(found))


def _object_names(tree: ET.Element) -> set[str]:
    return {name for o in tree.findall("object") if (name := o.findtext("name", "").strip())}


class _ImageFolder:
    """Finds the image of an annotation: the file of the same stem, else the one that it names."""

    def __init__(self, root: str):
        folder = os.path.join(root, "JPEGImages")
        self.folder = folder if os.path.isdir(folder) else root
        self.files = set(os.listdir(self.folder))
        self.by_stem: dict[str, str] = {}
        for file in sorted(self.files):
            stem, ending = os.path.splitext(file)
            if ending.lower() in IMAGE_ENDINGS:
                self.by_stem.setdefault(stem, file)

    def find(self, stem: str, filename: str) -> str:
        """Return the path of the image; if there is none, the one it should have."""
        same_stem = os.path.splitext(filename)[0] == stem
        if filename in self.files and (same_stem or stem not in self.by_stem):
            return os.path.join(self.folder, filename)
        return os.path.join(self.folder, self.by_stem.get(stem, filename or f"{stem}.jpg"))


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
        name = item.findtext("name", "").strip()
        corners = _corners(file, where, item, log)
        if not name:
            log.fatal(file, where, "name", "missing", "the object has no class")
        elif name not in names:
            log.repaired(file, where, "name", name, "object of a class not asked for dropped")
        elif corners is not None:
            difficult = item.findtext("difficult", "0").strip() == "1"
            crowd, label = difficult, names.index(name)
            stated = Object(where, "bndbox", corners, corners, label, crowd, difficult=difficult)
            objects.append(stated)
    return objects


def _corners(
    file: str, where: str, item: ET.Element, log: ProblemLog
) -> tuple[float, float, float, float] | None:
    """Return the corners `xyxy` of an object, None if they are no box."""
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


def _number(text: str) -> float | None:
    """Return the number that a text says, None if it is none that float32 holds."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e30 else None
