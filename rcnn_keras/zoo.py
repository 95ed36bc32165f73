"""The small trained detectors that come with the package: one folder each, found by its name.

They are in `saved_models/` of the repository, and in `rcnn_keras/saved_models/` of an installed
package. `convert.saved_detectors` describes the files of a folder; its README.md states what the
model was trained on and its scores.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FOLDER = "saved_models"
MODEL, WEIGHTS, CARD = "model.json", "weights.safetensors", "README.md"


@dataclass(frozen=True)
class ShippedDetector:
    """A trained detector that comes with the package.

    Attributes:
        folder: of its files.
        top1: None; only classifiers have an ImageNet accuracy.
    """

    folder: Path
    top1 = None

    @property
    def name(self) -> str:
        """Its name in `from_preset`."""
        return self.folder.name

    @property
    def weights(self) -> Path:
        """The file of its weights."""
        return self.folder / WEIGHTS

    @property
    def megabytes(self) -> int:
        """Size of its weights file."""
        return round(self.weights.stat().st_size / 1e6)

    @cached_property
    def content(self) -> dict[str, Any]:
        """Content of model.json."""
        return json.loads((self.folder / MODEL).read_text("utf-8"))

    @property
    def num_classes(self) -> int:
        """Number of its classes."""
        return len(self.content["config"]["classes"])

    @property
    def box_ap(self) -> float | None:
        """COCO AP of boxes in percent, on the images that its README.md names."""
        return self._percent("AP")

    @property
    def mask_ap(self) -> float | None:
        """COCO AP of masks in percent, None for a detector without masks."""
        return self._percent("mask_AP")

    @property
    def licence(self) -> str:
        """Licence of the data that it was trained on."""
        return self.content["licence"]

    def _percent(self, score: str) -> float | None:
        value = self.content["scores"].get(score)
        return None if value is None else 100 * value


def saved_models() -> dict[str, ShippedDetector]:
    """Return the detectors that come with the package by name; none if their folder is missing."""
    package = Path(__file__).resolve().parent
    for root in (package / FOLDER, package.parent / FOLDER):
        if root.is_dir():
            folders = sorted(path.parent for path in root.glob(f"*/{MODEL}"))
            return {folder.name: ShippedDetector(folder) for folder in folders}
    return {}
