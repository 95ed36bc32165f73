"""Where the parts of a Pascal VOC dataset lie: XML files, images, and the lists of its splits.

The devkit has `Annotations`, `JPEGImages` and `ImageSets/Main/<split>.txt`. Other tools have other
names for them, a folder for each split, or all files in one.
"""

import codecs
import os
import re
from pathlib import Path
from typing import NamedTuple

from rcnn_keras.data.image_files import (
    NameIndex,
    files_below,
    folders_in,
    is_image_name,
    is_system_name,
    shown,
    split_of,
)
from rcnn_keras.data.problems import ProblemLog

MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # begins as UTF-16's does
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# In single bytes, so that one of two or four bytes is not meant.
DECLARED = re.compile(rb"<\?xml[^>]*encoding\s*=\s*[\"'](?!utf-?(?:16|32))([\w.-]+)", re.IGNORECASE)


def decode_text(content: bytes) -> tuple[str, str]:
    """Return the text of a file and the encoding that it was read in.

    That is the one of its byte order mark, or that an XML file declares, or else UTF-8; where the
    bytes are none of it, Windows' of Western Europe, which holds all of Latin-1. Text of two bytes
    a character shows by the zeros beside its first one.
    """
    declared = DECLARED.match(content.lstrip())
    marked = [encoding for mark, encoding in MARKS.items() if content.startswith(mark)]
    if not marked and b"\0" in content[:2]:
        marked = ["utf-16-be" if content[:1] == b"\0" else "utf-16-le"]
    encodings = [*marked, *([declared[1].decode("ascii")] if declared else []), "utf-8", "cp1252"]
    for encoding in encodings:
        try:
            return content.decode(encoding), encoding
        except (UnicodeError, LookupError):  # LookupError: there is no such encoding
            continue
    return content.decode("latin-1"), "latin-1"  # which has a character for each byte


ANNOTATIONS = ("annotations", "annotation", "annots", "annot", "anns", "xmls", "xml", "labels")
IMAGES = ("jpegimages", "images", "image", "imgs", "img", "photos")
MASKS = ("segmentationclass", "segmentationobject", "masks")  # as PNGs named as the images are
USUAL_SPLITS = ("train", "val", "trainval", "test")
TRIED = 20  # XML files whose images are looked for
# Lists such as aeroplane_train.txt say -1, 0 or 1 after each name.
PRESENCE = re.compile(r"\s+(-1|0|1)$")
PAIR = re.compile(r".*\.\w+\s+(.+\.xml)$", re.IGNORECASE)  # an image and its XML file in one line


class VocFolder(NamedTuple):
    """One split of a Pascal VOC dataset on disk.

    Attributes:
        annotations: the folder of the XML files.
        files: all XML files of the dataset, relative to it.
        chosen: those of the split.
        images: the images that belong to them, by their names without endings.
        image_folder: where they lie.
    """

    annotations: str
    files: list[str]
    chosen: list[str]
    images: NameIndex
    image_folder: str


def find_voc(root: str, split: str | None, log: ProblemLog) -> VocFolder | None:
    """Return the parts of one split; None, noted in the log, if there is not one reading of them.

    Args:
        root: the dataset, or a folder above it that has no other.
        split: None stands for train where there are splits, and for everything where there are
            none.
        log: gets what is missing, and what was repaired.
    """
    base = _base(root, split, log)
    if base is None:
        return None
    annotations = _annotation_folder(base)
    files = _xml_files(annotations)
    if not files:
        log.fatal(annotations, "", "", "", "there is no XML file in this folder")
        return None
    lists = _lists(base)
    if lists is None:
        chosen = _unlisted(base, annotations, files, split, log)
    else:
        chosen = _listed(base, annotations, files, lists, split, log)
    return VocFolder(annotations, files, chosen, *_images(base, annotations, chosen))


def voc_splits(root: str) -> list[str | None]:
    """Return the splits of usual names that a folder has; [None] if it has none."""
    found: list[str | None] = []
    for split in USUAL_SPLITS:
        base = _base(root, split, ProblemLog())
        lists = None if base is None else _lists(base)
        if base is None:
            continue
        names = lists or [os.path.basename(base), *_splits(_xml_files(_annotation_folder(base)))]
        found += [split] if split in names or split in map(split_of, names) else []
    return found or [None]


def _base(root: str, split: str | None, log: ProblemLog) -> str | None:
    """Return the folder of a dataset: `root`, the only one in it, or that of the split."""
    if _has_annotations(root):
        return root
    children = folders_in(root)
    inside = list(filter(_has_annotations, children))
    if not inside:  # as VOCdevkit/VOC2007 is
        inside = [f for child in children for f in folders_in(child) if _has_annotations(f)]
    splits = {folder: split_of(os.path.basename(folder)) for folder in inside}
    fits = [f for f, its in splits.items() if its == (split_of(split or "train") or "none")]
    fits = fits or [folder for folder, its in splits.items() if its is None]
    if len(fits) == 1:
        (only,) = fits
        is_for_xml = not any(map(is_image_name, files_below(only))) and splits[only] is None
        return os.path.dirname(only) if is_for_xml and _has_xml(only) else only
    if inside:
        asked = "no split was asked for" if split is None else f"split {split}"
        message = f"there are several datasets in this folder, {asked}; name one: "
        log.fatal(root, "", "", "", message + ", ".join(inside))
    else:
        there = shown(sorted(os.listdir(root))) or "nothing"
        log.fatal(root, "", "", "", f"there is no XML file in this folder; there is: {there}")
    return None


def _annotation_folder(base: str) -> str:
    """Return the folder of a dataset that has its XML files."""
    named = _named(base, ANNOTATIONS)
    if named is not None and (_xml_files(named) or not _has_xml(base)):
        return named
    others = list(filter(_has_xml, folders_in(base)))
    return others[0] if len(others) == 1 and not _has_xml(base) else base


def _images(base: str, annotations: str, files: list[str]) -> tuple[NameIndex, str]:
    """Return the images of a dataset, and the folder that has those of the XML files."""
    named = _named(base, IMAGES)
    others = [f for f in folders_in(base) if os.path.basename(f).lower() not in MASKS]
    places = dict.fromkeys([*([named] if named else []), annotations, *others, base])
    first: tuple[NameIndex, str] | None = None
    for place in places:
        images = [
            file
            for file in filter(is_image_name, files_below(place))
            if not any(part.lower() in MASKS for part in file.split("/")[:-1])
        ]
        index = NameIndex(images, place, without_endings=True)
        if any(index.find(os.path.splitext(file)[0]).files for file in files[:TRIED]):
            return index, place
        first = first or (index, place)
    return first if named and first else (index, place)


def _lists(base: str) -> dict[str, Path] | None:
    """Return the lists of a dataset by the names of their splits, None if there are none."""
    sets = _named(base, ("imagesets",))
    main = sets and _named(sets, ("main",))
    if main or sets:
        folder = Path(main or sets or "")
        found = {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() == ".txt"}
        if found or main:
            return found
    beside = (Path(base, name) for name in sorted(os.listdir(base)))
    lists = {p.stem: p for p in beside if p.suffix.lower() == ".txt" and _is_split(p.stem)}
    return lists or None


def _listed(
    base: str,
    annotations: str,
    files: list[str],
    lists: dict[str, Path],
    split: str | None,
    log: ProblemLog,
) -> list[str]:
    """Return the XML files that the list of a split names."""
    wanted = split or "train"
    alike = [name for name in lists if name.casefold() == wanted.casefold()]
    alike = alike or [
        n for n in lists if split_of(n) is not None and split_of(n) == split_of(wanted)
    ]
    if split is None and not alike:
        alike = list(lists)
    if wanted in lists or len(alike) == 1:
        return _read_list(lists[wanted if wanted in lists else alike[0]], annotations, files, log)
    file = Path(base, "ImageSets", "Main", f"{wanted}.txt")
    file = next(iter(lists.values())).with_name(file.name) if lists else file
    known = ", ".join(sorted(lists))
    log.fatal(file, "", "split", wanted, f"no such list of images; there are: {known}")
    return []


def _read_list(file: Path, annotations: str, files: list[str], log: ProblemLog) -> list[str]:
    """Return the XML files that a list names."""
    text, _ = decode_text(file.read_bytes())
    lines = {i: line.strip() for i, line in enumerate(text.splitlines(), start=1)}
    names = {i: PAIR.sub(r"\1", PRESENCE.sub("", line)) for i, line in lines.items() if line}
    if not names:
        log.fatal(file, "", "", "", "there is no image in this list")
    index = NameIndex(files, without_endings=True)
    found: dict[str, None] = {}
    missing: dict[str, None] = {}
    for number, name in names.items():
        match = index.find(name)
        if not match.files and (is_image_name(name) or _is_xml(name)):
            match = index.find(os.path.splitext(name)[0])
        if len(match.files) != 1:
            missing[name] = None
            continue
        (only,) = match.files
        if only in found:
            log.repaired(file, f"line {number}", "", "", "image listed twice, read once")
        elif not match.as_spelled:
            value = f"{name} -> {only}"
            log.repaired(file, f"line {number}", "", value, "file name spelled as on disk")
        found[only] = None
    if len(missing) == len(names) > 1:
        message = f"none of the {len(names)} images listed has an XML file in {annotations}"
        log.fatal(
            file, "", "", "", f"{message}, which has {shown(files)}, not {next(iter(missing))}"
        )
        return []
    for name in missing:
        near = index.near(name)
        message = "cannot be read: No such file" + (f"; {near}" if near else "")
        log.fatal(os.path.join(annotations, f"{name}.xml"), "", "", "", message)
    return list(found)


def _unlisted(
    base: str, annotations: str, files: list[str], split: str | None, log: ProblemLog
) -> list[str]:
    """Return the XML files of a split that no list is of: those in its folder, or all."""
    wanted = split or "train"
    folders = _splits(files)
    own = split_of(os.path.basename(os.path.abspath(base)))
    if folders:
        chosen = [file for file in files if split_of(file.split("/")[0]) == split_of(wanted)]
        if chosen:
            return chosen
    elif split is None or (own is not None and own == split_of(split)):
        return files
    elif split == "train" and own is None:
        log.repaired(base, "", "split", split, "no lists of splits, all images read")
        return files
    file = Path(base, "ImageSets", "Main", f"{wanted}.txt")
    if folders or own:
        message = (
            f"there are no lists of images, and the folder is of {shown(folders or [own or ''])}"
        )
    else:
        message = (
            f"no such list of images, and no other: all {len(files)} XML files in {annotations} "
            f"would be of every split. Write one, a name a line, or ask for no split to read all"
        )
    log.fatal(file, "", "split", wanted, message)
    return []


def _splits(files: list[str]) -> list[str]:
    """Return the splits that have folders of their own among these files."""
    found = (split_of(file.split("/")[0]) for file in files if "/" in file)
    return list(dict.fromkeys(split for split in found if split is not None))


def _has_annotations(folder: str) -> bool:
    named = _named(folder, ANNOTATIONS)
    return _has_xml(folder) or (named is not None and bool(_xml_files(named)))


def _has_xml(folder: str) -> bool:
    return any(_is_xml(name) for name in os.listdir(folder))


def _xml_files(folder: str) -> list[str]:
    return list(filter(_is_xml, files_below(folder)))


def _is_xml(name: str) -> bool:
    return name.lower().endswith(".xml") and not is_system_name(name)


def _is_split(name: str) -> bool:
    return name.lower() in USUAL_SPLITS or split_of(name) is not None


def _named(folder: str, names: tuple[str, ...]) -> str | None:
    """Return the folder in a folder that has the first of these names, in whichever letter case."""
    there = {os.path.basename(path).lower(): path for path in folders_in(folder)}
    return next((there[name] for name in names if name in there), None)
