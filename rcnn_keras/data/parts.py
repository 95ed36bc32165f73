"""A folder of finished parts of a long work, beside a header that says what they are parts of."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rcnn_keras.data.written_aside import written_aside

HEADER = "header.json"


class Parts:
    """Where the parts are kept until all are there. Each is written aside and renamed.

    Args:
        folder: made if it is missing.
        header: how the parts come about, as JSON can hold it.
        what: the parts, for messages: "proposals".

    Raises:
        ValueError: the folder holds parts of another header, or something else.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any], what: str):
        self.folder, self.header = folder, json.loads(json.dumps(dict(header)))
        file = folder / HEADER
        if file.exists():
            found = json.loads(file.read_text("utf-8"))
            check_same_header(folder, found, self.header, what)
        elif any(not path.name.startswith(".") for path in folder.glob("*")):
            raise ValueError(f"{folder} is in the way: it holds no parts of {what}")
        else:
            with written_aside(file) as aside:
                aside.write_text(json.dumps(self.header, sort_keys=True), "utf-8")

    def path(self, name: str) -> Path:
        """Return where the part of this name is, or will be."""
        return self.folder / name

    def __contains__(self, name: str) -> bool:
        """Return whether the part of this name is there."""
        return self.path(name).exists()


def remove_parts(folder: Path) -> None:
    """Remove the folder of a finished work, if it is still there."""
    if (folder / HEADER).exists():
        shutil.rmtree(folder)


def check_same_header(
    path: Path, found: Mapping[str, Any], expected: Mapping[str, Any], what: str
) -> None:
    """Raise ValueError, naming `path`, for what was made in another way."""
    keys = sorted({*found, *expected})
    differ = [
        f"{key} is {found.get(key)!r}, not {expected.get(key)!r}"
        for key in keys
        if found.get(key) != expected.get(key)
    ]
    if differ:
        raise ValueError(
            f"{path} holds other {what} than those asked for: {'; '.join(differ)}. Remove it, or "
            f"name another"
        )
