"""The detectors and weights that `from_preset` knows by name: published and shipped ones.

torchvision publishes weights at fixed addresses. Small detectors ship with the package, in
`saved_models/` of the repository and in `rcnn_keras/saved_models/` of an installed package: a
folder each, see `convert.saved_detectors`, with a README.md on its data and its scores. Neither
needs TensorFlow to be listed.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

SERVER = "https://download.pytorch.org/models/"


@dataclass(frozen=True)
class Preset:
    """Published weights.

    Attributes:
        name: by which `from_preset` knows them.
        network: torchvision's name of the detector, or of the classifier whose backbone they hold.
        url: of the file.
        megabytes: size of the file.
        num_classes: number of the detector's classes; 0 for a backbone.
        box_ap: COCO's AP of boxes on val2017 in percent, as torchvision's authors report it.
        mask_ap: the same of masks.
        keypoint_ap: the same of persons' keypoints, in which case `box_ap` is of persons alone.
        top1: a classifier's accuracy on ImageNet in percent, likewise.
        licence: of the file.
    """

    name: str
    network: str
    url: str
    megabytes: int
    num_classes: int = 0
    box_ap: float | None = None
    mask_ap: float | None = None
    keypoint_ap: float | None = None
    top1: float | None = None
    licence: str = "BSD-3-Clause"

    @property
    def file_name(self) -> str:
        """Name of the published file."""
        return self.url.rpartition("/")[-1]

    @property
    def sha256(self) -> str:
        """First eight hexadecimal digits of the file's SHA-256."""
        return Path(self.file_name).stem.rpartition("-")[-1]

    @property
    def on_backbone(self) -> dict[str, Any]:
        """Arguments of a detector on a classifier's backbone."""
        return {"backbone": f"{self.network}_fpn", "norm": "frozen_batch"}


def _detector(
    network: str,
    file: str,
    megabytes: int,
    box_ap: float,
    mask_ap: float | None = None,
    keypoint_ap: float | None = None,
) -> Preset:
    url = f"{SERVER}{network}{file}.pth"
    num_classes = 90 if keypoint_ap is None else 1
    scores = box_ap, mask_ap, keypoint_ap
    return Preset(f"{network}_coco", network, url, megabytes, num_classes, *scores)


def _backbone(network: str, file: str, megabytes: int, top1: float, recipe: str = "") -> Preset:
    url = f"{SERVER}{network}{file}.pth"
    return Preset(f"{network}_imagenet{recipe}", network, url, megabytes, top1=top1)


PRESETS = {
    preset.name: preset
    for preset in (
        _detector("fasterrcnn_resnet50_fpn", "_coco-258fb6c6", 160, 37.0),
        _detector("fasterrcnn_resnet50_fpn_v2", "_coco-dd69338a", 167, 46.7),
        _detector("fasterrcnn_mobilenet_v3_large_fpn", "-fb6a3cc7", 74, 32.8),
        _detector("fasterrcnn_mobilenet_v3_large_320_fpn", "-907ea3f9", 74, 22.8),
        _detector("keypointrcnn_resnet50_fpn", "_coco-fc266e95", 226, 54.6, keypoint_ap=65.0),
        _detector("maskrcnn_resnet50_fpn", "_coco-bf2d0c1e", 170, 37.9, 34.6),
        _detector("maskrcnn_resnet50_fpn_v2", "_coco-73cbd019", 177, 47.4, 41.8),
        _backbone("resnet18", "-f37072fd", 45, 69.758),
        _backbone("resnet34", "-b627a593", 83, 73.314),
        _backbone("resnet50", "-0676ba61", 98, 76.130),
        _backbone("resnet50", "-11ad3fa6", 98, 80.858, "_v2"),
        _backbone("resnet101", "-63fe2227", 171, 77.374),
        _backbone("resnet101", "-cd907fc2", 171, 81.886, "_v2"),
        _backbone("mobilenet_v3_large", "-8738ca79", 21, 74.042),
        _backbone("mobilenet_v3_large", "-5c1a4163", 21, 75.274, "_v2"),
    )
}


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
    def keypoint_ap(self) -> float | None:
        """COCO AP of keypoints in percent, None for a detector without keypoints."""
        return self._percent("keypoint_AP")

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
