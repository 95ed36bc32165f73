"""What a COCO file states: numbers and ids in the types of other tools, and its categories."""

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rcnn_keras.data.keypoints import Pairs, Skeleton, flip_pairs_of
from rcnn_keras.data.problems import ProblemLog, as_json
from rcnn_keras.data.values import FROM_TEXT, RESPELLED, class_name, is_number, whole_number

MISSING = "missing"  # how a message shows the value of a key that is not there


def shown(item: dict[str, Any], key: str) -> str:
    """Return what stands under a key, as the file has it."""
    return as_json(item[key]) if key in item else MISSING


class Ids:
    """The ids of the images, annotations or categories of a COCO file, as whole numbers.

    A text that is not a number, such as a file name, gets a number after the largest in the list.

    Args:
        file: the COCO file.
        kind: "image", "annotation" or "category".
        items: the list of the file.
        log: where problems are noted.
    """

    def __init__(self, file: str, kind: str, items: Sequence[Any], log: ProblemLog):
        self.file, self.kind, self.log = file, kind, log
        stated = [item.get("id") for item in items if isinstance(item, dict)]
        texts = [id for id in stated if isinstance(id, str) and id and whole_number(id) is None]
        self.of_texts: dict[str, int] = {}
        if texts:
            last = max((n for id in stated if (n := whole_number(id)) is not None), default=0)
            self.of_texts = {
                text: max(last, 0) + place
                for place, text in enumerate(dict.fromkeys(texts), start=1)
            }
        self.given = set(self.of_texts.values())

    def of(self, index: int, item: Any) -> int | None:
        """Return the id of the item at `index`; None, and a fatal problem, if it has none."""
        where = f"{self.kind} at index {index}"
        if not isinstance(item, dict):
            self.log.fatal(self.file, where, "", "", f"is not an object: {as_json(item):.60}")
            return None
        id = self.read(item, "id", where)
        if id is None:
            self.log.fatal(self.file, where, "id", shown(item, "id"), "is not a 64-bit integer")
        return id

    def read(self, item: dict[str, Any], key: str, where: str) -> int | None:
        """Return the id under a key, None if it is none; texts are noted as repaired.

        A number that stands for a text is not an id of the file's.
        """
        value = item.get(key)
        if type(value) is int and not self.given:  # nearly always, and there are a million of them
            return value if abs(value) < 2**63 else None
        id = whole_number(value)
        if id in self.given:
            return None
        if isinstance(value, str):
            message = FROM_TEXT if id is not None else "id that is no number replaced by one"
            id = self.of_texts.get(value) if id is None else id
            if id is not None:
                self.log.repaired(self.file, where, key, as_json(value), message)
        return id

    def repeated(self, id: int, item: dict[str, Any]) -> None:
        """Note an id that another item has."""
        message = f"more than one {self.kind} has this id"
        self.log.fatal(self.file, f"{self.kind} {id}", "id", shown(item, "id"), message)


BACKGROUND = ("background", "bg")


@dataclass
class Categories:
    """The classes of a file.

    Attributes:
        ids: how the file's ids are read.
        names: by category id, smallest id first.
        joined: the id in `names` that stands for another category of the same name.
    """

    ids: Ids
    names: dict[int, str] = field(default_factory=dict)
    joined: dict[int, int] = field(default_factory=dict)

    def labels(self) -> dict[int, int]:
        """Return the label of every category id, of joined ones too."""
        labels = {id: label for label, id in enumerate(self.names)}
        joined = {id: labels[kept] for id, kept in self.joined.items() if kept in labels}
        return labels | joined


def read_categories(
    file: str,
    items: Sequence[Any],
    annotations: Iterable[Any],
    log: ProblemLog,
    wanted: Collection[str] = (),
) -> Categories:
    """Return the categories that are classes.

    One that is listed twice is read once, those of one name are joined. The root of a hierarchy
    and one for the background are left out, unless they have objects or are `wanted`.
    """
    if not items:
        log.fatal(file, "", "categories", "[]", "there is no category")
    categories = Categories(Ids(file, "category", items, log))
    parents: dict[int, Any] = {}
    for index, item in enumerate(items):
        id = categories.ids.of(index, item)
        if id is None:
            continue
        name = _name(file, id, item, wanted, log)
        if id not in categories.names:
            categories.names[id], parents[id] = name, _parent(item, wanted)
        elif name == categories.names[id]:
            message = "category listed twice, read once"
            log.repaired(file, f"category {id}", "name", as_json(name), message)
        else:
            categories.ids.repeated(id, item)
    categories.names = dict(sorted(categories.names.items()))
    with_objects = _with_objects(categories, annotations)
    _join(file, categories, parents, with_objects, log)
    _leave_out(file, categories, parents, with_objects, wanted, log)
    return categories


def read_skeleton(
    file: str,
    items: Sequence[Any],
    categories: Categories,
    log: ProblemLog,
    wanted: Collection[str] = (),
) -> tuple[Skeleton | None, set[int]]:
    """Return the keypoints of the categories, of those that are `wanted` if some are.

    None if no category has any, or if they have different ones, as no model has heat maps for both.

    Returns:
        The keypoints, and the ids of categories that have other ones.
    """
    skeletons: dict[str, Skeleton] = {}
    quiet = copy.copy(categories.ids)
    quiet.log = ProblemLog()  # ids were noted when the categories were read
    others: set[int] = set()
    for item in items:
        id = quiet.read(item, "id", "") if isinstance(item, dict) else None
        name = categories.names.get(categories.joined.get(id, id)) if id is not None else None
        if id is None or name is None or not item.get("keypoints"):
            continue
        if wanted and name not in wanted:
            others.add(id)
        elif (found := _skeleton(file, f"category {id}", item, log)) is not None:
            skeletons[name] = found
    different = {skeleton.names for skeleton in skeletons.values()}
    if len(different) > 1:
        value = ", ".join(f"{len(s)} of {as_json(name)}" for name, s in skeletons.items())
        message = (
            "are not the same for all categories, so none are read; those of some are with "
            f"classes=[{next(iter(skeletons))!r}]"
        )
        log.suspicious(file, "", "keypoints", value, message)
        return None, others
    return next(iter(skeletons.values()), None), others


def _skeleton(file: str, where: str, item: dict[str, Any], log: ProblemLog) -> Skeleton | None:
    """Return the keypoints of a category; None, and a fatal problem, if they are no names."""
    names = item["keypoints"]
    is_sound = isinstance(names, list) and all(isinstance(name, str) for name in names)
    if not is_sound or len(set(names)) != len(names):
        log.fatal(file, where, "keypoints", as_json(names), "is not a list of different names")
        return None
    edges = _edges(file, where, "skeleton", item, len(names), log)
    if "flip_pairs" not in item:
        return Skeleton(tuple(names), flip_pairs_of(names), edges)
    try:
        pairs = _edges(file, where, "flip_pairs", item, len(names), log)
        return Skeleton(tuple(names), pairs, edges)
    except ValueError as error:
        log.fatal(file, where, "flip_pairs", shown(item, "flip_pairs"), str(error))
        return None


def _edges(
    file: str, where: str, key: str, item: dict[str, Any], count: int, log: ProblemLog
) -> Pairs:
    """Return pairs of keypoints, which a file counts from 1; none if they are no such pairs."""
    stated = item.get(key) or []
    pairs = stated if isinstance(stated, list) else [stated]
    sound = []
    for pair in pairs:
        numbers = [whole_number(n) for n in pair] if isinstance(pair, list) else []
        inside = [n - 1 for n in numbers if n is not None and 1 <= n <= count]
        if len(numbers) == len(inside) == 2 and inside[0] != inside[1]:
            sound.append((inside[0], inside[1]))
    if len(sound) == len(pairs):
        return tuple(sound)
    log.repaired(file, where, key, as_json(stated), "malformed skeleton left out")
    return ()


def _name(
    file: str, id: int, item: dict[str, Any], wanted: Collection[str], log: ProblemLog
) -> str:
    """Return the name of a category."""
    stated, where = item.get("name"), f"category {id}"
    if is_number(stated):
        log.repaired(file, where, "name", as_json(stated), "class name read from a number")
        return str(stated)
    name = class_name(stated, wanted) if isinstance(stated, str) else ""
    if not name:
        log.fatal(file, where, "name", shown(item, "name"), "is not a name")
    elif name != stated:
        log.repaired(file, where, "name", f"{as_json(stated)} -> {as_json(name)}", RESPELLED)
    return name or str(stated)


def _parent(item: dict[str, Any], wanted: Collection[str]) -> Any:
    """Return the name of the category above, spelled as that of a category is."""
    stated = item.get("supercategory")
    return class_name(stated, wanted) if isinstance(stated, str) else stated


def _with_objects(categories: Categories, annotations: Iterable[Any]) -> set[int]:
    """Return the ids of the categories that have an annotation."""
    quiet = copy.copy(categories.ids)
    quiet.log = ProblemLog()  # what is wrong is noted when objects are read
    found = (quiet.read(a, "category_id", "") for a in annotations if isinstance(a, dict))
    return {id for id in found if id is not None}


def _join(
    file: str,
    categories: Categories,
    parents: dict[int, Any],
    with_objects: set[int],
    log: ProblemLog,
) -> None:
    """Join categories of one name; the first with objects stays, or else the first but a root."""
    same: dict[str, list[int]] = {}
    for id, name in categories.names.items():
        same.setdefault(name, []).append(id)
    for name, ids in same.items():
        kept = min(ids, key=lambda id: (id not in with_objects, not _has_parent(parents[id]), id))
        for id in ids:
            if id != kept:
                del categories.names[id]
                categories.joined[id] = kept
                message = "category joined with another of its name"
                log.repaired(file, f"category {id}", "name", as_json(name), message)


def _leave_out(
    file: str,
    categories: Categories,
    parents: dict[int, Any],
    with_objects: set[int],
    wanted: Collection[str],
    log: ProblemLog,
) -> None:
    """Leave out what is not a class of objects."""
    of_others = {
        parent
        for id, parent in parents.items()
        if _has_parent(parent) and parent != categories.names.get(id)
    }
    for id, name in list(categories.names.items()):
        if id in with_objects or name in wanted or len(categories.names) == 1:
            continue
        kind = ""
        if name.strip("_ ").lower() in BACKGROUND:
            kind = "background"
        elif name in of_others and not _has_parent(parents[id]):
            kind = "root"
        if kind:
            del categories.names[id]
            message = f"{kind} category without objects left out"
            log.repaired(file, f"category {id}", "name", as_json(name), message)


def _has_parent(supercategory: Any) -> bool:
    return isinstance(supercategory, str) and supercategory.lower() not in ("", "none")
