"""The small JSON files of a comparison, each written aside and renamed."""

import json
from pathlib import Path
from typing import Any

from rcnn_keras.data.written_aside import written_aside


def write_json(path: Path, values: Any) -> None:
    """Write a file, which appears when it is whole; its folder is made if missing."""
    with written_aside(path) as aside:
        aside.write_text(json.dumps(values, indent=2) + "\n", "utf-8")


def read_json(path: Path) -> Any:
    """Return what a file holds, None if there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else None
