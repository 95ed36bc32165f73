"""Annotations of the VGG Image Annotator (VIA) 1 and 2: JSON, project files and CSV.

A file has an entry for each image, with its regions: a shape in pixels and attributes that the
annotator named, of which one says the class.
"""

import csv
import io
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rcnn_keras.data.coco_folders import find_images
from rcnn_keras.data.dataset import DetectionDataset, check_known, check_names
from rcnn_keras.data.entries import Entry, Object
from rcnn_keras.data.image_files import is_system_name
from rcnn_keras.data.images import ImageError, image_header
from rcnn_keras.data.object_rules import Crowd, WithoutMask, check_rules
from rcnn_keras.data.problems import Problem, ProblemLog, as_json
from rcnn_keras.data.validation import build_dataset, check_entries, warn_repaired
from rcnn_keras.data.values import FROM_TEXT, RESPELLED, class_name, is_number, number

ENDINGS = (".json", ".csv")
MARKS = re.compile(
    rb'"_via_img_metadata"|"_via_settings"|\\?"(?:shape_attributes|region_attributes|file_attributes)'
    rb'\\?"|#?"?filename"?,"?file_size"?,'
)
MARKED_WITHIN = 1 << 20  # bytes in which a file shows what it is
COLUMNS = ("filename", "region_shape_attributes", "region_attributes")
SINGLE_CLASS = "object"  # of regions without attributes
WITHOUT_AREA = ("point", "polyline", "line")
CHORD = 1.0  # pixels between the points of an ellipse's polygon
FEWEST_POINTS, MOST_POINTS = 24, 720

Polygon = list[list[float]]
Box = tuple[float, float, float, float]


class Region(NamedTuple):
    """A region as a file has it: its place in its image, and two mappings of attributes."""

    where: str
    shape: Any
    attributes: Any


def load_via(
    path: str | PathLike,
    images: str | PathLike | None = None,
    *,
    attribute: str | None = None,
    classes: Iterable[str] | None = None,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> DetectionDataset:
    """Return the dataset of a file of VIA, checked as a whole before anything is done with it.

    Polygons, circles and ellipses are objects with a mask; rectangles have a box alone, see
    `without_mask`. Points and lines have no area and are left out, with a count. Sizes are read
    from the images.

    Args:
        path: JSON that VIA 1 or 2 exported, a project that VIA 2 saved, or CSV; or a folder with
            one of them alone, such as `via_region_data.json`.
        images: the folder of the images; by default found as `load_coco` does.
        attribute: the region attribute that says the class, needed where there are several.
            Where there is none, all regions are of one class, `"object"` or the only one of
            `classes`.
        classes: these classes only, in this order. By default all that the regions say, sorted.
        crowd: as in `load_coco`; a VIA file has no crowd regions.
        without_mask: as in `load_coco`.

    Raises:
        DatasetError: if the file or an image cannot be used; lists everything that is wrong.
        ValueError: for a name in `classes` that no region has, with the nearest one; or another
            word for `crowd` or `without_mask`.

    Warns:
        UserWarning: once, with the counts of what was repaired or left out; `dataset.problems`
            lists it.
    """
    check_rules(crowd, without_mask)
    log = ProblemLog()
    wanted = None if classes is None else check_names(classes)
    entries, names = _parse(path, images, attribute, wanted, log)
    log.raise_fatal()
    if wanted is not None:
        check_known(wanted, names)
    dataset = build_dataset(
        entries,
        names,
        log,
        name=Path(path).stem,
        wanted=wanted,
        crowd=crowd,
        without_mask=without_mask,
    )
    warn_repaired(dataset, f"rcnn data check {os.fspath(path)}")
    return dataset


def check_via(
    path: str | PathLike,
    images: str | PathLike | None = None,
    *,
    attribute: str | None = None,
    decode: bool = True,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> list[Problem]:
    """Return every problem of a file of VIA and its images: fatal, repaired and suspicious ones.

    Args:
        path: as in `load_via`.
        images: likewise.
        attribute: likewise.
        decode: decode every image, which finds damage that `load_via` cannot see.
        crowd: as in `load_via`.
        without_mask: likewise.
    """
    check_rules(crowd, without_mask)
    log = ProblemLog()
    entries, names = _parse(path, images, attribute, None, log)
    check_entries(entries, names, log, decode=decode, crowd=crowd, without_mask=without_mask)
    return log.problems


def is_via(path: str | PathLike) -> bool:
    """Return whether this is a file of VIA, or a folder with one alone."""
    path = Path(path)
    if path.is_dir():
        return len(_files_in(path)) == 1
    if path.suffix.lower() not in ENDINGS or not path.is_file():
        return False
    with open(path, "rb") as file:
        return bool(MARKS.search(file.read(MARKED_WITHIN)))


def _files_in(folder: Path) -> list[Path]:
    files = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in ENDINGS and p.is_file()]
    return [path for path in files if not is_system_name(path.name) and is_via(path)]


def _parse(
    path: str | PathLike,
    images: str | PathLike | None,
    attribute: str | None,
    wanted: Sequence[str] | None,
    log: ProblemLog,
) -> tuple[list[Entry], Sequence[str]]:
    """Return what the file states: its images with their objects, and the class names."""
    file = _only_file(path, log)
    regions = None if file is None else _read(file, log)
    if file is None or regions is None:
        return [], ()
    if not regions:
        log.fatal(file, "", "", "", "there is no image")
    chosen = _attribute(file, regions, attribute, log)
    names = _Classes(file, chosen, wanted, log)
    entries = []
    for place, (image, its) in enumerate(regions.items(), start=1):
        entry = Entry(place, file, image, image, None)
        entry.objects = [o for region in its if (o := _object(file, image, region, names, log))]
        entries.append(entry)
    ordered = sorted(names.found) if wanted is None else [*wanted]
    ordered += sorted(names.found - set(ordered))
    for entry in entries:
        for item in entry.objects:
            item.label = ordered.index(names.names[item.label])
    found = find_images(file, images, entries, log)
    for entry in found:
        with suppress(ImageError):  # which is reported where the images are looked at
            entry.size = image_header(entry.path)
    return found, ordered


def _only_file(path: str | PathLike, log: ProblemLog) -> str | None:
    if not os.path.isdir(path):
        return os.fspath(path)
    files = _files_in(Path(path))
    if len(files) == 1:
        return str(files[0])
    there = f"there are: {', '.join(map(str, files))}" if files else "there is none in this folder"
    log.fatal(path, "", "", "", f"is a folder; name one file of VIA: {there}")
    return None


def _read(file: str, log: ProblemLog) -> dict[str, list[Region]] | None:
    """Return the regions of each image by its name, None if the file is none of VIA."""
    try:
        content = Path(file).read_bytes().decode("utf-8-sig")
    except OSError as error:
        log.fatal(file, "", "", "", f"cannot be read: {error.strerror}")
        return None
    except UnicodeDecodeError as error:
        log.fatal(file, "", "", "", f"is not UTF-8: {error}")
        return None
    if Path(file).suffix.lower() == ".csv":
        return _read_csv(file, content, log)
    try:
        entries = json.loads(content)
    except ValueError as error:
        log.fatal(file, "", "", "", f"is not JSON: {error}")
        return None
    return _read_json(file, entries, log)


def _read_json(file: str, content: Any, log: ProblemLog) -> dict[str, list[Region]] | None:
    if isinstance(content, dict) and "_via_img_metadata" in content:
        content = content["_via_img_metadata"]
    if isinstance(content, dict) and isinstance(content.get("metadata"), dict):
        message = "is a project of VIA 3, which is not read; export regions from VIA 1 or 2"
        log.fatal(file, "", "metadata", "", message)
        return None
    if not isinstance(content, dict) or not all(isinstance(e, dict) for e in content.values()):
        log.fatal(file, "", "", "", "is not of VIA: an object with an object for each image")
        return None
    regions: dict[str, list[Region]] = {}
    for key, entry in content.items():
        name = entry.get("filename")
        if not isinstance(name, str) or not name:
            log.fatal(file, f"image {key}", "filename", as_json(name), "is not a file name")
            continue
        its = entry.get("regions", {})
        if not isinstance(its, dict | list):
            log.fatal(file, name, "regions", as_json(its), "is neither an object nor a list")
            continue
        numbered = its.items() if isinstance(its, dict) else enumerate(its)
        found = regions.setdefault(name, [])
        for place, region in numbered:
            where = f"region {place}"
            if not isinstance(region, dict):
                log.fatal(file, f"{name}: {where}", "", "", f"is not an object: {as_json(region)}")
                continue
            shape, attributes = region.get("shape_attributes"), region.get("region_attributes")
            found.append(Region(where, shape, {} if attributes is None else attributes))
    return regions


def _read_csv(file: str, content: str, log: ProblemLog) -> dict[str, list[Region]] | None:
    rows = csv.DictReader(io.StringIO(content))
    rows.fieldnames = [name.strip().lstrip("#") for name in rows.fieldnames or ()]
    if missing := [name for name in COLUMNS if name not in rows.fieldnames]:
        log.fatal(file, "", "", "", f"is no CSV of VIA: it has no column {', '.join(missing)}")
        return None
    regions: dict[str, list[Region]] = {}
    for line, row in enumerate(rows, start=2):
        name = row["filename"]
        if not name:
            log.fatal(file, f"line {line}", "filename", "", "is not a file name")
            continue
        found = regions.setdefault(name, [])
        parts = {}
        for key in COLUMNS[1:]:
            try:
                parts[key] = json.loads(row[key] or "{}")
            except ValueError as error:
                log.fatal(file, f"line {line}, {name}", key, row[key], f"is not JSON: {error}")
        if len(parts) == 2 and parts[COLUMNS[1]] != {}:  # of an image without regions
            where = f"region {row.get('region_id') or len(found)}"
            found.append(Region(where, parts[COLUMNS[1]], parts[COLUMNS[2]]))
    return regions


def _attribute(
    file: str, regions: dict[str, list[Region]], attribute: str | None, log: ProblemLog
) -> str | None:
    """Return the attribute that says the class, None if there is none at all."""
    values: dict[str, list[str]] = defaultdict(list)
    for region in (region for its in regions.values() for region in its):
        if isinstance(region.attributes, dict):
            for name, value in region.attributes.items():
                if value not in ("", None, {}):
                    values[name].append(as_json(value))
    if attribute is not None:
        if attribute not in values:
            known = f"there are {', '.join(values)}" if values else "no region has attributes"
            log.fatal(file, "", "region_attributes", attribute, f"no region has this; {known}")
        return attribute
    if len(values) > 1:
        shown = "; ".join(f"{n} ({', '.join(sorted(set(v))[:3])}, ..)" for n, v in values.items())
        message = f"several attributes: attribute= says which one is the class: {shown}"
        log.fatal(file, "", "region_attributes", as_json([*values]), message)
    return next(iter(values), None)


class _Classes:
    """The classes of a file's regions, numbered as they come."""

    def __init__(
        self, file: str, attribute: str | None, wanted: Sequence[str] | None, log: ProblemLog
    ) -> None:
        self.file, self.attribute, self.log = file, attribute, log
        self.wanted = tuple(wanted or ())
        self.names: list[str] = []

    @property
    def found(self) -> set[str]:
        return set(self.names)

    def label(self, where: str, attributes: Any) -> int | None:
        """Return the number of a region's class; None, and a fatal problem, if it has none."""
        name = self._name(where, attributes)
        if name is None:
            return None
        if name not in self.names:
            self.names.append(name)
        return self.names.index(name)

    def _name(self, where: str, attributes: Any) -> str | None:
        if self.attribute is None:
            return self.wanted[0] if len(self.wanted) == 1 else SINGLE_CLASS
        field = f"region_attributes.{self.attribute}"
        value = attributes.get(self.attribute) if isinstance(attributes, dict) else None
        if isinstance(value, dict):  # a checkbox: the options that are set
            chosen = [option for option, is_set in value.items() if is_set]
            if len(chosen) != 1:
                message = "several are set, where one class is needed" if chosen else "is not set"
                self.log.fatal(self.file, where, field, as_json(value), message)
                return None
            value = chosen[0]
        if is_number(value):
            self.log.repaired(
                self.file, where, field, as_json(value), "class name read from a number"
            )
            return str(value)
        name = class_name(value, self.wanted) if isinstance(value, str) else ""
        if not name:
            shown = as_json(value) if value is not None else "missing"
            self.log.fatal(self.file, where, field, shown, "the region has no class")
            return None
        if name != value:
            shown = f"{as_json(value)} -> {as_json(name)}"
            self.log.repaired(self.file, where, field, shown, RESPELLED)
        return name


def _object(
    file: str, image: str, region: Region, classes: _Classes, log: ProblemLog
) -> Object | None:
    """Return a region as an object; None if it is left out, or has something fatal."""
    where, shape = f"{image}: {region.where}", region.shape
    if not isinstance(shape, dict) or not isinstance(shape.get("name"), str):
        log.fatal(file, where, "shape_attributes", as_json(shape), "has no shape with a name")
        return None
    kind = shape["name"].lower()
    if kind in WITHOUT_AREA:
        log.repaired(file, where, "shape_attributes.name", kind, "point or line left out")
        return None
    if kind not in SHAPES:
        log.fatal(
            file,
            where,
            "shape_attributes.name",
            kind,
            f"must be {', '.join(SHAPES)}, {', '.join(WITHOUT_AREA)}",
        )
        return None
    numbers = _Numbers(file, where, shape, log)
    found = SHAPES[kind](numbers)
    label = classes.label(where, region.attributes)
    if found is None or label is None:
        return None
    box, polygon = found
    return Object(region.where, "shape_attributes", shape, box, label, False, polygon)


class _Numbers:
    """The numbers of a shape, read with what is wrong with them."""

    def __init__(self, file: str, where: str, shape: dict[str, Any], log: ProblemLog) -> None:
        self.file, self.where, self.shape, self.log = file, where, shape, log

    def get(self, key: str, least: float = -math.inf, default: float | None = None) -> float | None:
        """Return the number under a key, at least so large; None, and a fatal problem, if not."""
        stated = self.shape.get(key, default)
        value = number(stated)
        if value is None or not math.isfinite(value) or value < least:
            shown = as_json(stated) if key in self.shape else "missing"
            rule = "is not a finite number" + ("" if least < -1 else f" of at least {least:g}")
            self.log.fatal(self.file, self.where, f"shape_attributes.{key}", shown, rule)
            return None
        if isinstance(stated, str):
            self.log.repaired(
                self.file, self.where, f"shape_attributes.{key}", as_json(stated), FROM_TEXT
            )
        return float(value)

    def all(self, *keys: tuple[str, float]) -> list[float] | None:
        """Return the numbers under keys, each with the least that it may be; None if one is bad."""
        values = [self.get(key, least) for key, least in keys]
        return None if None in values else values  # type: ignore[return-value]

    def points(self) -> np.ndarray | None:
        """Return the points `(n, 2)` of a polygon; None, and a problem, if they are none."""
        columns = []
        for key in ("all_points_x", "all_points_y"):
            stated = self.shape.get(key)
            values = [number(v) for v in stated] if isinstance(stated, list) else [None]
            if not all(v is not None and math.isfinite(v) for v in values):
                shown = as_json(stated) if key in self.shape else "missing"
                field = f"shape_attributes.{key}"
                self.log.fatal(self.file, self.where, field, shown, "is not a list of numbers")
                return None
            columns.append(values)
        if len(columns[0]) != len(columns[1]):
            message = f"{len(columns[0])} values of x for {len(columns[1])} of y"
            field = "shape_attributes.all_points_y"
            self.log.fatal(self.file, self.where, field, as_json(columns[1]), message)
            return None
        points = np.array(columns, np.float64).T
        if len(np.unique(points, axis=0)) < 3:
            self.log.repaired(
                self.file,
                self.where,
                "shape_attributes",
                as_json(self.shape),
                "polygon of fewer than three points left out",
            )
            return None
        return points


def _rectangle(numbers: _Numbers) -> tuple[Box, None] | None:
    sides = numbers.all(("x", -math.inf), ("y", -math.inf), ("width", 0.0), ("height", 0.0))
    if sides is None:
        return None
    x, y, width, height = sides
    return (x, y, x + width, y + height), None


def _polygon(numbers: _Numbers) -> tuple[Box, Polygon] | None:
    points = numbers.points()
    return None if points is None else _outlined(points)


def _circle(numbers: _Numbers) -> tuple[Box, Polygon] | None:
    found = numbers.all(("cx", -math.inf), ("cy", -math.inf), ("r", 0.0))
    return None if found is None else _ellipse_of(found[0], found[1], found[2], found[2], 0.0)


def _ellipse(numbers: _Numbers) -> tuple[Box, Polygon] | None:
    found = numbers.all(("cx", -math.inf), ("cy", -math.inf), ("rx", 0.0), ("ry", 0.0))
    turned = numbers.get("theta", default=0.0)
    if found is None or turned is None:
        return None
    return _ellipse_of(found[0], found[1], found[2], found[3], turned)


def _ellipse_of(cx: float, cy: float, rx: float, ry: float, theta: float) -> tuple[Box, Polygon]:
    """Return the box and a polygon of an ellipse turned by `theta`, in radians clockwise."""
    count = math.ceil(2 * math.pi * max(rx, ry) / CHORD)
    angles = np.linspace(0, 2 * math.pi, min(max(count, FEWEST_POINTS), MOST_POINTS), False)
    x, y = rx * np.cos(angles), ry * np.sin(angles)
    cos, sin = math.cos(theta), math.sin(theta)
    points = np.stack([cx + x * cos - y * sin, cy + x * sin + y * cos], axis=1)
    half = math.hypot(rx * cos, ry * sin), math.hypot(rx * sin, ry * cos)
    _, polygon = _outlined(points)
    return (cx - half[0], cy - half[1], cx + half[0], cy + half[1]), polygon


def _outlined(points: np.ndarray) -> tuple[Box, Polygon]:
    low, high = points.min(axis=0), points.max(axis=0)
    x1, y1, x2, y2 = map(float, (*low, *high))
    return (x1, y1, x2, y2), [points.ravel().tolist()]


SHAPES = {"rect": _rectangle, "polygon": _polygon, "circle": _circle, "ellipse": _ellipse}
