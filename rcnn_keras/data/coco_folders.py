"""Where the parts of a COCO dataset lie: its JSON file in a folder, its images near the file."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from rcnn_keras.data.image_files import (
    NameIndex,
    files_below,
    folders_in,
    is_image_name,
    is_system_name,
    name_parts,
    shown,
    split_of,
)
from rcnn_keras.data.problems import ProblemLog
from rcnn_keras.data.validation import Entry

TRIED = 50  # names of images that are looked for in each folder
MOST_FOLDERS = 1000  # looked at near a file
MOST_COMPARED = 100  # missing names that are compared with all there are
ANNOTATION_FOLDERS = ("", "annotations", "annotation", "annots", "labels")
ANNOTATION_FOLDER = re.compile("ann|label|json|coco|gt|ground")  # how its name begins


def coco_files(folder: str | PathLike) -> list[Path]:
    """Return the JSON files of a folder, or of the first one below it that annotations lie in."""
    for name in ANNOTATION_FOLDERS:
        files = [p for p in sorted(Path(folder, name).glob("*")) if p.suffix.lower() == ".json"]
        files = [path for path in files if not is_system_name(path.name)]
        if files:
            return files
    return []


def is_coco(folder: str | PathLike) -> bool:
    """Return whether a folder has COCO files and no XML files, so that it is none of Pascal VOC."""
    has_xml = any(file.lower().endswith(".xml") for file in files_below(folder))
    return not has_xml and bool(_files_near(folder))


def only_coco_file(path: str | PathLike, log: ProblemLog) -> str | None:
    """Return a JSON file itself, or the only one of a folder; else None, noted in the log."""
    if not os.path.isdir(path):
        return os.fspath(path)
    files = _files_near(path)
    if len(files) == 1:
        return str(files[0])
    there = f"there are: {', '.join(map(str, files))}" if files else "there is none in this folder"
    log.fatal(path, "", "", "", f"is a folder; name one COCO JSON file: {there}")
    return None


def _files_near(folder: str | PathLike) -> list[Path]:
    """Return the JSON files of a folder, or else of the folders in it, as of Roboflow's splits."""
    below = (path for path in sorted(Path(folder).iterdir()) if not is_system_name(path.name))
    return coco_files(folder) or [f for path in below if path.is_dir() for f in coco_files(path)]


def find_images(
    file: str, images: str | PathLike | None, entries: Sequence[Entry], log: ProblemLog
) -> list[Entry]:
    """Put each image's whole path in place of its name; return the entries whose image is there.

    Args:
        file: the JSON file.
        images: the folder of the images; None looks for it near the file.
        entries: `path` is the name that the JSON file has.
        log: gets the names that were repaired, and what is missing: one line if that is all.
    """
    names = [entry.path for entry in entries]
    folder = os.fspath(images) if images is not None else _image_folder(file, names, log)
    if folder is None:
        return []
    if not os.path.isdir(folder):
        hint = _hint(file, folder, names)
        log.fatal(folder, "", "images", Path(folder), f"no such folder{hint}")
        return []
    stated = [os.path.join(folder, name) for name in names]
    there = [os.path.isfile(path) for path in stated]
    index = NameIndex([] if all(there) else filter(is_image_name, files_below(folder)), folder)
    paths = [
        path if is_there else _only_fit(index, name, folder)
        for name, path, is_there in zip(names, stated, there, strict=True)
    ]
    if len(names) > 1 and not any(paths):
        has = f"it has {shown(index.names)}" if index.names else "it has no image"
        message = f"none of the {len(names)} images is in this folder, not {names[0]}, say; {has}"
        log.fatal(file, "", "images", Path(folder), message + _hint(file, folder, names))
        return []
    owners: dict[str | None, list[str]] = defaultdict(list)
    for entry, name, path in zip(entries, names, paths, strict=True):
        if name not in owners[path]:
            owners[path].append(name)
        entry.path = path or os.path.join(folder, name)
    found = []
    for entry, name, path, is_there in zip(entries, names, paths, there, strict=True):
        if path is None:
            near = index.near(name) if len(owners[None]) <= MOST_COMPARED else ""
            reason = f"no such file; {near}" if near else "no such file"
            log.fatal(file, entry.id, "file_name", Path(entry.path), reason)
        elif not is_there and len(owners[path]) > 1:
            message = f"several names fit {path} alone: {shown(owners[path])}"
            log.fatal(file, entry.id, "file_name", name, message)
        else:
            found.append(entry)
            if not is_there:
                value = f"{name} -> {os.path.relpath(path, folder)}"
                log.repaired(file, entry.id, "file_name", value, "file name spelled as on disk")
    return found


def _only_fit(index: NameIndex, name: str, folder: str) -> str | None:
    files = index.find(name).files
    return os.path.join(folder, files[0]) if len(files) == 1 else None


def near_folders(path: str) -> list[str]:
    """Return the folder of a file and those in it, two levels deep, nearest first.

    Of a folder for annotations alone, or for a split, also those beside it.
    """
    folder = os.path.abspath(os.path.dirname(path) or ".")
    name = os.path.basename(folder).lower()
    starts = [folder]
    if ANNOTATION_FOLDER.match(name) or split_of(name) is not None:
        starts.append(os.path.dirname(folder))
    near: dict[str, str] = {}  # by what links point to
    for start in starts:
        children = _readable_folders_in(start)
        near.setdefault(os.path.realpath(start), start)
        below = [folder for child in children for folder in _readable_folders_in(child)]
        for child in [*children, *below]:
            if len(near) < MOST_FOLDERS:
                near.setdefault(os.path.realpath(child), child)
    return list(near.values())


def _readable_folders_in(folder: str) -> list[str]:
    try:
        return folders_in(folder)
    except OSError:  # a neighbour that may not be read holds no images for us
        return []


def _image_folder(file: str, names: Sequence[str], log: ProblemLog) -> str | None:
    """Return the folder that holds most of the images; of the usual places the first."""
    folder = os.path.dirname(file) or "."
    usual = [folder, os.path.join(folder, "images")]
    fits = _fitting(usual, names)
    if fits:
        return fits[0]
    near = near_folders(file)
    fits = _fitting(near, names) or _fitting(near, names, spelled=False)
    splits = {split_of(word) for word in re.split(r"[\W_]+", Path(file).stem)} - {None}
    fits = [place for place in fits if not splits or split_of(Path(place).name) in (None, *splits)]
    own = [place for place in fits if split_of(Path(place).name) in splits]
    fits = own or fits
    if len(fits) > 1:
        message = "images of these names lie in several folders, say which with images="
        log.fatal(file, "", "images", "none", f"{message}: {', '.join(fits)}")
        return None
    return fits[0] if fits else folder


def _fitting(folders: Sequence[str], names: Sequence[str], *, spelled: bool = True) -> list[str]:
    """Return the folders that hold most of some of the names, in their order; [] for none."""
    names = names[:: -(-len(names) // TRIED) or 1]
    counts = {folder: _count(folder, names, spelled) for folder in folders}
    most = max(counts.values(), default=0)
    return [folder for folder, count in counts.items() if count == most > 0]


def _count(folder: str, names: Sequence[str], spelled: bool) -> int:
    """Return how many names are of files in a folder."""
    if spelled:
        forms = ({name, "/".join(name_parts(name))} - {""} for name in names)
        return sum(any(os.path.isfile(os.path.join(folder, f)) for f in form) for form in forms)
    try:
        index = NameIndex(filter(is_image_name, os.listdir(folder)), folder)
    except OSError:
        return 0
    return sum(len(index.find(name).files) == 1 for name in names)


def _hint(file: str, folder: str, names: Sequence[str]) -> str:
    """Return where the images are instead of a folder, in words; "" if that is not known."""
    near = dict.fromkeys([*near_folders(file), *near_folders(folder)])
    near.pop(os.path.abspath(folder), None)
    fits = _fitting([*near], names) or _fitting([*near], names, spelled=False)
    return f"; they are in {shown(fits)}: name it with images=" if fits else ""
