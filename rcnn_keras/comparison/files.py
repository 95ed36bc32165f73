"""The small JSON files of a comparison, each written aside and renamed."""

import json
from pathlib import Path
from typing import Any


def write_json(path: Path, values: Any) -> None:
    """Write a file, which appears when it is whole; its folder is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    aside.write_text(json.dumps(values, indent=2) + "\n", "utf-8")
    aside.replace(path)


def read_json(path: Path) -> Any:
    """Return what a file holds, None if there is none."""
    return json.loads(path.read_text("utf-8")) if path.exists() else None
