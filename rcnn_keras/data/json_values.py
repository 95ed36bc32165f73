"""Values of JSON files in the types that other tools give them: numbers as text, above all."""

import re
from collections.abc import Sequence
from typing import Any

from rcnn_keras.data.problems import ProblemLog, as_json

MISSING = "missing"  # how a message shows the value of a key that is not there
FROM_TEXT = "number read from text"
WHOLE = re.compile(r"\s*[+-]?[0-9]{1,20}\s*")
DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
EXACT = 2**53  # up to which a float holds every whole number


def shown(item: dict[str, Any], key: str) -> str:
    """Return what stands under a key, as the file has it."""
    return as_json(item[key]) if key in item else MISSING


def is_number(value: Any) -> bool:
    """Return whether a value is a JSON number, which true and false are not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any) -> int | float | None:
    """Return a JSON number as it is and one in a text as a number, None for anything else."""
    if isinstance(value, str):
        if WHOLE.fullmatch(value):
            return int(value)
        return float(value) if DECIMAL.fullmatch(value) else None
    return value if is_number(value) else None


def whole_number(value: Any) -> int | None:
    """Return the 64-bit whole number that a value or a text is (1, 1.0, "1"), or None."""
    found = number(value)
    if isinstance(found, float):
        return int(found) if found.is_integer() and abs(found) < EXACT else None
    return found if found is not None and abs(found) < 2**63 else None


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
