"""The small trained models that come with the package: a folder each, found by its name.

They lie in `saved_models/` of the repository, and in an installed package in
`rcnn_keras/saved_models/`. What a folder holds, `convert.packed` says; its README.md says what the
model was trained on and how well it does.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FOLDER = "saved_models"
MODEL, WEIGHTS, CARD = "model.json", "weights.safetensors", "README.md"


@dataclass(frozen=True)
class SavedModel:
    """A trained model that comes with the package.

    Attributes:
        folder: where its files are.
        top1: None, as it is a detector.
    """

    folder: Path
    top1 = None

    @property
    def name(self) -> str:
        """By which `from_preset` knows it."""
        return self.folder.name

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return self.folder / WEIGHTS

    @property
    def megabytes(self) -> int:
        """Size of its weights."""
        return round(self.weights.stat().st_size / 1e6)

    @cached_property
    def content(self) -> dict[str, Any]:
        """What model.json says."""
        return json.loads((self.folder / MODEL).read_text("utf-8"))

    @property
    def classes(self) -> int:
        """Outputs of the detector."""
        return len(self.content["config"]["classes"])

    @property
    def box_ap(self) -> float | None:
        """COCO's AP of boxes in percent, on the images that the card names."""
        return self._percent("AP")

    @property
    def mask_ap(self) -> float | None:
        """The same of masks."""
        return self._percent("mask_AP")

    @property
    def licence(self) -> str:
        """Of the data that it was trained on."""
        return self.content["licence"]

    def _percent(self, score: str) -> float | None:
        value = self.content["scores"].get(score)
        return None if value is None else 100 * value


def saved_models() -> dict[str, SavedModel]:
    """Return the models that come with the package by name; none if the folder is not there."""
    package = Path(__file__).resolve().parent
    for root in (package / FOLDER, package.parent / FOLDER):
        if root.is_dir():
            found = sorted(path.parent for path in root.glob(f"*/{MODEL}"))
            return {folder.name: SavedModel(folder) for folder in found}
    return {}
