"""Image files in folders: which there are, and which one a name in an annotation file means.

Annotation files travel between systems, and the names in them come back with other separators, in
another Unicode form or letter case, with URL escapes, or below folders that are no longer there.
"""

import difflib
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from PIL import Image

# Pillow knows these by name only: it finds no pixels in them, or needs another program for that.
WITHOUT_PIXELS = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
SYSTEM_NAMES = ("thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin")
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "test": ("test",)}
SPLIT_FOLDER = re.compile(r"([a-z]+?)[_-]?(\d{4})?[_-]?(images?|imgs?)?")
SAME_FORMAT = {".jpeg": ".jpg", ".jpe": ".jpg", ".jfif": ".jpg", ".tiff": ".tif"}
DRIVE = re.compile(r"[A-Za-z]:")
SHOWN = 3  # names in a message


def image_endings() -> frozenset[str]:
    """Return the endings, in lower case, of the files whose pixels Pillow reads on this machine."""
    formats = Image.registered_extensions()
    return frozenset(ending for ending, format in formats.items() if _is_readable(format))


def is_image_name(name: str) -> bool:
    """Return whether a file's name ends as an image's."""
    ending = os.path.splitext(name)[1].lower()  # looked up, as folders have many files
    return _is_readable(Image.registered_extensions().get(ending))


def _is_readable(format: str | None) -> bool:
    return format in Image.OPEN and format not in WITHOUT_PIXELS


def is_system_name(name: str) -> bool:
    """Return whether a system put the file or folder there: .DS_Store, ._a.jpg, Thumbs.db."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


class FolderImages(NamedTuple):
    """The images that lie directly in a folder.

    Attributes:
        images: sorted by name.
        passed_over: what else is there, in words such as "2 system files, 1 file .txt"; "" for
            nothing.
    """

    images: list[Path]
    passed_over: str


def images_in(folder: str | PathLike) -> FolderImages:
    """Return the images of a folder, and in words what was passed over.

    Raises:
        OSError: the folder cannot be read.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    for path in sorted(Path(folder).iterdir()):
        if is_system_name(path.name):
            others["system"] += 1
        elif path.is_dir():
            others["folder"] += 1
        elif is_image_name(path.name):
            images.append(path)
        else:
            others[path.suffix] += 1
    return FolderImages(images, ", ".join(_counted(kind, n) for kind, n in others.items()))


def _counted(kind: str, count: int) -> str:
    s = "s" if count > 1 else ""
    if kind in ("system", "folder"):
        return f"{count} sub-folder{s}" if kind == "folder" else f"{count} system file{s}"
    return f"{count} file{s} {kind or 'without an ending'}"


def files_below(folder: str | PathLike) -> list[str]:
    """Return all files below a folder but the system's, relative to it with `/`, sorted."""
    folder, files = os.fspath(folder), []
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_system_name(name)]
        below = "" if top == folder else os.path.relpath(top, folder).replace(os.sep, "/") + "/"
        files += [below + name for name in names if not is_system_name(name)]
    return sorted(files)


def folders_in(folder: str) -> list[str]:
    """Return the folders in a folder but the system's, sorted by name.

    Raises:
        OSError: the folder cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(e.path for e in entries if e.is_dir() and not is_system_name(e.name))


def split_of(name: str) -> str | None:
    """Return which part of a dataset a folder is by its name, such as `valid` or `train2017`."""
    found = SPLIT_FOLDER.fullmatch(name.lower())
    splits = [split for split, names in SPLITS.items() if found and found[1] in names]
    return splits[0] if splits else None


class Match(NamedTuple):
    """What fits a name best: no file, one, or several that fit alike; and whether as spelled."""

    files: tuple[str, ...]
    as_spelled: bool


class NameIndex:
    """Finds files by the names that annotation files have for them; the one rule for all readers.

    A file fits if its path below the folder ends with the name, or the name with that path: the
    rest are folders that one of them does not have. Names are compared as they are spelled, then
    in one Unicode form, without URL escapes, in one letter case, and with .jpeg as .jpg; the first
    comparison that any file passes decides, and of several files the one with most folders in
    common. A name without the ending of an image is compared with files without theirs at last.

    Args:
        names: of the files, relative to the folder with `/`.
        folder: a name whose own folder is that of another split, train or val, does not fit.
        without_endings: the names that are looked for have no endings.
    """

    def __init__(
        self, names: Iterable[str], folder: str | PathLike = "", *, without_endings: bool = False
    ):
        self.names = list(names)
        self.without_endings = without_endings
        self.split = _split_of_path(os.path.abspath(folder)) if folder else None
        self._tables: dict[int, dict[str, list[tuple[tuple[str, ...], str]]]] = {}

    def find(self, name: str) -> Match:
        """Return what fits a name best."""
        parts = name_parts(name)
        for level, spelling in enumerate(SPELLINGS) if parts else ():
            wanted = tuple(map(spelling, parts))
            fitting = defaultdict(list)
            for have, file in self._table(level).get(wanted[-1], ()):
                shared = min(len(have), len(wanted))
                left = parts[: len(wanted) - shared]
                if have[-shared:] == wanted[-shared:] and not self._is_of_another_split(left):
                    fitting[shared, len(have) <= len(wanted)].append(file)
            if fitting:
                return Match(tuple(fitting[max(fitting)]), level == 0)
        if self.without_endings or is_image_name(name):
            return Match((), False)
        return self._of_stems.find(name)._replace(as_spelled=False)

    @cached_property
    def _of_stems(self) -> "NameIndex":
        """The same files, for names that have lost their endings."""
        stems = NameIndex(self.names, without_endings=True)
        stems.split = self.split
        return stems

    def near(self, name: str) -> str:
        """Return in words what there is instead of a file: files of its name, or nearly so."""
        match = self.find(name).files
        if match:
            return "several files fit: " + shown(match)
        parts = name_parts(name)
        last = SPELLINGS[-1](parts[-1]) if parts else ""
        same = [file for _, file in self._table(len(SPELLINGS) - 1).get(last, ())]
        if same:
            return "of this name, but in another folder: " + shown(same)
        wanted = parts[-1] if parts else name
        if self.without_endings or not is_image_name(wanted):
            bases = {os.path.splitext(file.rsplit("/", 1)[-1])[0]: file for file in self.names}
        else:
            bases = {file.rsplit("/", 1)[-1]: file for file in self.names}
        near = difflib.get_close_matches(wanted, bases, n=1)
        return f"of nearly this name: {bases[near[0]]}" if near else ""

    def _table(self, level: int) -> dict[str, list[tuple[tuple[str, ...], str]]]:
        """Return the files by the last part of their names, in one of the spellings."""
        if level not in self._tables:
            table: dict[str, list[tuple[tuple[str, ...], str]]] = defaultdict(list)
            for file in self.names:
                name = os.path.splitext(file)[0] if self.without_endings else file
                parts = tuple(map(SPELLINGS[level], name.split("/")))
                table[parts[-1]].append((parts, file))
            self._tables[level] = dict(table)
        return self._tables[level]

    def _is_of_another_split(self, folders: list[str]) -> bool:
        stated = _split_of_path("/".join(folders))
        return None not in (stated, self.split) and stated != self.split


def name_parts(name: str) -> list[str]:
    """Return the folders and the file of a name, whichever system wrote it, without drive or dots.

    What stands before `..` is left out too.
    """
    if "://" in name:
        name = name.split("://", 1)[1].split("?")[0]
    parts = [part for part in re.split(r"[\\/]+", name.strip()) if part not in ("", ".")]
    if ".." in parts:
        parts = parts[len(parts) - parts[::-1].index("..") :]
    return parts[1:] if parts and DRIVE.fullmatch(parts[0]) else parts


def shown(names: Iterable[str]) -> str:
    """Return names for a message, the first few of many."""
    names = list(names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _split_of_path(path: str) -> str | None:
    """Return the split that the last folder of a path, or the one above `images`, is named for."""
    for part in [*reversed(re.split(r"[\\/]+", path))][:2]:
        if (split := split_of(part)) is not None:
            return split
    return None


def _one_form(part: str) -> str:
    return unicodedata.normalize("NFC", part)


def _without_escapes(part: str) -> str:
    return _one_form(unquote(part)).strip()


def _one_case(part: str) -> str:
    return _one_form(_without_escapes(part).casefold())


def _one_ending(part: str) -> str:
    stem, ending = os.path.splitext(_one_case(part))
    return stem + SAME_FORMAT.get(ending, ending)


SPELLINGS: tuple[Callable[[str], str], ...] = (
    str,
    _one_form,
    _without_escapes,
    _one_case,
    _one_ending,
)
