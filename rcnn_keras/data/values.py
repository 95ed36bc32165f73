"""Values as annotation files state them: numbers and marks that may be text, and class names."""

import re
import unicodedata
from collections.abc import Collection
from typing import Any

FROM_TEXT = "number read from text"  # a repair, as `problems.REPAIRS` has it
RESPELLED = "class name spelled with other spaces or characters"  # likewise
WHOLE = re.compile(r"\s*[+-]?[0-9]{1,20}\s*")
DECIMAL = re.compile(r"\s*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*")
EXACT = 2**53  # up to which a float holds every whole number
TRUE = ("true", "yes", "y", "t", "on")
FALSE = ("", "false", "no", "n", "f", "off", "none", "unspecified")


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


def truth(value: Any) -> bool | None:
    """Return whether a mark is set: true, 1, 1.0, or one of them or "yes" as text; None if unclear.

    A mark that is empty is not set.
    """
    if isinstance(value, str) and (word := value.strip().lower()) in TRUE + FALSE:
        return word in TRUE
    found = value if isinstance(value, bool) else number(value)
    return bool(found) if found in (0, 1) else None


def class_name(text: str, wanted: Collection[str] = ()) -> str:
    """Return a class name without needless spaces, its characters composed (Unicode's NFC).

    So that `"red cell "` and `"red  cell"`, or two ways to store an accent, are one class. A name
    that is `wanted` as it stands stays so.
    """
    return text if text in wanted else unicodedata.normalize("NFC", " ".join(text.split()))
