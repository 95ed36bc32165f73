"""The folder in which the proposals of a data set are kept until they are all there."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rcnn_keras.proposals.proposal_file import load_proposals, write_proposals

if TYPE_CHECKING:
    from rcnn_keras.data.records import Record


class Parts:
    """A file of proposals for each image that is done, and the header that they all have.

    Args:
        folder: made if it is missing.
        header: of the proposals, by `make_header`.

    Raises:
        ValueError: the folder holds the parts of other proposals, or something else.
    """

    def __init__(self, folder: Path, header: Mapping[str, Any]):
        self.folder, self.header = folder, header
        manifest = folder / "header.json"
        if manifest.exists():
            check_same_header(folder, json.loads(manifest.read_text("utf-8")), header)
        elif any(not path.name.startswith(".") for path in folder.glob("*")):
            raise ValueError(f"{folder} is in the way: it holds no parts of proposals")
        else:
            from rcnn_keras.data.written_aside import written_aside  # the room brings TensorFlow

            with written_aside(manifest) as aside:
                aside.write_text(json.dumps(dict(header), sort_keys=True), "utf-8")

    def __contains__(self, record: "Record") -> bool:
        """Return whether the proposals of an image are there."""
        return self._path(record).exists()

    def save(self, record: "Record", boxes: np.ndarray) -> None:
        """Keep the proposals of an image."""
        size = {record.image_id: (record.height, record.width)}
        write_proposals(self._path(record), {record.image_id: boxes}, self.header, size)

    def load(self, record: "Record") -> np.ndarray:
        """Return the proposals of an image; ValueError if their file is torn."""
        return load_proposals(self._path(record))[record.image_id]

    def _path(self, record: "Record") -> Path:
        return self.folder / f"{record.image_id}.npz"


def remove_parts(folder: Path) -> None:
    """Remove the folder of a finished file, if it is still there."""
    if (folder / "header.json").exists():
        shutil.rmtree(folder)


def check_same_header(path: Path, found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raise ValueError, naming `path`, for proposals that were made in another way."""
    keys = sorted({*found, *expected})
    differ = [
        f"{key} is {found.get(key)!r}, not {expected.get(key)!r}"
        for key in keys
        if found.get(key) != expected.get(key)
    ]
    if differ:
        raise ValueError(
            f"{path} holds other proposals than those asked for: {'; '.join(differ)}. Remove it, "
            f"or name another file"
        )
