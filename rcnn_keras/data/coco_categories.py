"""The categories of a COCO file: which of them are classes, under which name and number."""

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rcnn_keras.data.json_values import Ids, is_number, shown
from rcnn_keras.data.problems import ProblemLog, as_json

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
        name = _name(file, id, item, log)
        if id not in categories.names:
            categories.names[id], parents[id] = name, item.get("supercategory")
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


def _name(file: str, id: int, item: dict[str, Any], log: ProblemLog) -> str:
    """Return the name of a category."""
    name, where = item.get("name"), f"category {id}"
    if is_number(name):
        log.repaired(file, where, "name", as_json(name), "class name read from a number")
    elif not isinstance(name, str) or not name:
        log.fatal(file, where, "name", shown(item, "name"), "is not a name")
    return str(name)


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
