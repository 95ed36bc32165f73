"""The table of torchvision's published weights; `presets` fetches them and makes models of them."""

from dataclasses import dataclass
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
        classes: outputs of the detector; 0 for a backbone alone.
        box_ap: COCO's AP of boxes on val2017 in percent, as torchvision's authors report it.
        mask_ap: the same of masks.
        top1: a classifier's accuracy on ImageNet in percent, likewise.
        licence: of the file.
    """

    name: str
    network: str
    url: str
    megabytes: int
    classes: int = 0
    box_ap: float | None = None
    mask_ap: float | None = None
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


def _detector(network, file, megabytes, box_ap, mask_ap=None):
    url = f"{SERVER}{network}{file}.pth"
    return Preset(f"{network}_coco", network, url, megabytes, 90, box_ap, mask_ap)


def _backbone(network, file, megabytes, top1, recipe=""):
    url = f"{SERVER}{network}{file}.pth"
    return Preset(f"{network}_imagenet{recipe}", network, url, megabytes, top1=top1)


PRESETS = {
    preset.name: preset
    for preset in (
        _detector("fasterrcnn_resnet50_fpn", "_coco-258fb6c6", 160, 37.0),
        _detector("fasterrcnn_resnet50_fpn_v2", "_coco-dd69338a", 167, 46.7),
        _detector("fasterrcnn_mobilenet_v3_large_fpn", "-fb6a3cc7", 74, 32.8),
        _detector("fasterrcnn_mobilenet_v3_large_320_fpn", "-907ea3f9", 74, 22.8),
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
