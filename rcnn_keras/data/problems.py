"""What is wrong with an annotation file: reported before any work starts, all at once."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

SHOWN = 20
SUSPICIOUS_SHOWN = 5

# What a repaired problem says about one case, and how the summary says it about several.
REPAIRS = {
    "box clipped to its image": "boxes clipped to their image",
    "box without area dropped": "boxes without area dropped",
    "box outside its image dropped": "boxes outside their image dropped",
    "object of a class not asked for dropped": "objects of classes not asked for dropped",
    "size missing, taken from the image": "missing sizes taken from the image",
    "boxes turned upright with their image": "images whose boxes were turned upright with them",
    "file name spelled as on disk": "file names spelled as on disk",
    "encoding not as declared": "files in another encoding than they declare",
    "no lists of splits, all images read": "folders without lists of splits, all images read",
    "image listed twice, read once": "images listed twice, read once",
    "dataset without any object": "datasets without any object",
    "malformed segmentation dropped, its box kept": "malformed segmentations dropped, boxes kept",
    "segmentation in fractions dropped, its box kept": (
        "segmentations in fractions dropped, boxes kept"
    ),
    "malformed polygon dropped, the others kept": "malformed polygons dropped, the others kept",
    "flat list of coordinates read as a polygon": "flat lists of coordinates read as polygons",
    "list of points read as polygons": "lists of points read as polygons",
    "number read from text": "numbers read from text",
    "id that is no number replaced by one": "ids that are no numbers replaced by some",
    "area that is no number left out": "areas that are no numbers left out",
    "class name spelled with other spaces or characters": (
        "class names spelled with other spaces or characters"
    ),
    "class name read from a number": "class names read from numbers",
    "point or line left out": "points and lines left out",
    "polygon of fewer than three points left out": "polygons of fewer than three points left out",
    "category listed twice, read once": "categories listed twice, read once",
    "category joined with another of its name": "categories joined with others of their name",
    "root category without objects left out": "root categories without objects left out",
    "background category without objects left out": (
        "background categories without objects left out"
    ),
    "image of two ids read once, with the objects of both": (
        "images of two ids read once, with the objects of both"
    ),
    "num_keypoints counted from the keypoints, with which it does not agree": (
        "values of num_keypoints counted from the keypoints, with which they do not agree"
    ),
    "keypoint outside its image left out": "keypoints outside their image left out",
    "keypoints that no category names numbered": "files whose keypoints no category names numbered",
    "malformed skeleton left out": "malformed skeletons left out",
    "crowd region read as an ordinary object": "crowd regions read as ordinary objects",
    "object without a mask left out": "objects without a mask left out",
    "box filled for an object without a mask": "boxes filled for objects without a mask",
}


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an annotation file or an image.

    Attributes:
        file: the file that says it.
        id: what it is about: an image, annotation or category id, or an object's index.
        field: the name of the field in the file.
        value: what stands there.
        message: what is wrong; for a repaired problem, what was done.
        fatal: whether the dataset cannot be used as it is.
        suspicious: whether it was read as it stands and is probably not what was meant; neither
            fatal nor repaired.
    """

    file: str
    id: str
    field: str
    value: str
    message: str
    fatal: bool
    suspicious: bool = False

    def __str__(self) -> str:
        where = f"{self.file}: {self.id}: " if self.id else f"{self.file}: "
        what = f"{self.field} = {self.value}: " if self.field else ""
        return where + what + self.message


class DatasetError(ValueError):
    """The dataset cannot be used; the message lists the first fatal problems, `problems` all."""

    def __init__(self, problems: Sequence[Problem]):
        self.problems = tuple(problems)
        fatal = [problem for problem in self.problems if problem.fatal]
        lines = [str(problem) for problem in fatal[:SHOWN]]
        if len(fatal) > SHOWN:
            lines.append(f"... and {len(fatal) - SHOWN} more")
        noun = "problem" if len(fatal) == 1 else "problems"
        super().__init__("\n  ".join([f"{len(fatal)} {noun} in the dataset:", *lines]))


class ProblemLog:
    """Collects the problems found while one dataset is read."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def fatal(self, file: object, id: str, field: str, value: object, message: str) -> None:
        """Note something that makes the dataset unusable."""
        self.problems.append(Problem(str(file), id, field, shorten(value), message, True))

    def repaired(self, file: object, id: str, field: str, value: object, message: str) -> None:
        """Note something that was put right; `message` is a key of `REPAIRS`."""
        assert message in REPAIRS, message
        self.problems.append(Problem(str(file), id, field, shorten(value), message, False))

    def suspicious(self, file: object, id: str, field: str, value: object, message: str) -> None:
        """Note something that is read as it stands, but is probably not what was meant."""
        self.problems.append(Problem(str(file), id, field, shorten(value), message, False, True))

    def raise_fatal(self) -> None:
        """Raise `DatasetError` if a fatal problem was noted."""
        if any(problem.fatal for problem in self.problems):
            raise DatasetError(self.problems)


def summarise(problems: Iterable[Problem]) -> str:
    """Return the repaired problems as one line: "3 boxes clipped to their image, ..."."""
    repaired = (problem for problem in problems if not problem.fatal and not problem.suspicious)
    counts = Counter(problem.message for problem in repaired)
    return ", ".join(
        f"{count} {message if count == 1 else REPAIRS[message]}"
        for message, count in counts.items()
    )


def describe_problems(problems: Sequence[Problem], hint: str) -> str:
    """Return what a warning says of repaired and suspicious problems; nothing if there are none.

    Args:
        problems: of a dataset that can be used.
        hint: the command that lists them.
    """
    repaired = summarise(problems)
    suspicious = [str(problem) for problem in problems if problem.suspicious]
    lines = [f"{repaired} ({hint} lists them)"] if repaired else []
    lines += suspicious[:SUSPICIOUS_SHOWN]
    if len(suspicious) > SUSPICIOUS_SHOWN:
        more = len(suspicious) - SUSPICIOUS_SHOWN
        lines.append(f"... and {more} more like these ({hint} lists them)")
    return "\n  ".join(lines)


def shorten(value: object, length: int = 80) -> str:
    """Return `value` as text of at most `length` characters.

    Text is left as it is and a Path whole; anything else is written as JSON has it.
    """
    if isinstance(value, PurePath):
        return str(value)
    text = value if isinstance(value, str) else as_json(value)
    return text if len(text) <= length else text[: length - 3] + "..."


def as_json(value: object) -> str:
    """Return a value as a JSON file has it: `"0"`, `null`, `true`."""
    return json.dumps(value, ensure_ascii=False, default=repr)
