"""The detectors and weights that `from_preset` knows by name: published and shipped ones.

torchvision and Detectron2 publish weights at fixed addresses. Small detectors ship with the
package, in `saved_models/` of the repository and in `rcnn_keras/saved_models/` of an installed
package: a folder each, see `convert.saved_detectors`, with a README.md on its data and its scores.
None needs TensorFlow to be listed.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

SERVER = "https://download.pytorch.org/models/"

DETECTRON2 = "https://dl.fbaipublicfiles.com/detectron2/"


@dataclass(frozen=True)
class Preset:
    """Published weights.

    Attributes:
        name: by which `from_preset` knows them.
        network: torchvision's name of the detector, or of the classifier whose backbone they hold;
            or the name of the configuration in Detectron2's zoo.
        url: of the file.
        megabytes: size of the file.
        num_classes: number of the detector's classes; 0 for a backbone.
        box_ap: COCO's AP of boxes on val2017 in percent, as the authors report it; of detectors of
            LVIS, Cityscapes and Pascal VOC, AP on those data sets.
        mask_ap: the same of masks.
        keypoint_ap: the same of persons' keypoints, in which case `box_ap` is of persons alone.
        top1: a classifier's accuracy on ImageNet in percent, likewise.
        licence: of the file.
        project: that published it, `"torchvision"` or `"detectron2"`.
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
    project: str = "torchvision"

    @property
    def file_name(self) -> str:
        """Name of the published file."""
        return self.url.rpartition("/")[-1]

    @property
    def digest(self) -> str:
        """First hexadecimal digits of the file's hash, with which its name ends."""
        return Path(self.file_name).stem.replace("_", "-").rpartition("-")[-1]

    @property
    def hashes(self) -> tuple[str, ...]:
        """Names of the hashes that `digest` may be of.

        Detectron2's page calls it MD5; SHA-256, with which PyTorch names files, is accepted too.
        """
        return ("sha256",) if self.project == "torchvision" else ("md5", "sha256")

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


def _zoo(
    config: str,
    file: str,
    megabytes: int,
    box_ap: float | None,
    mask_ap: float | None = None,
    num_classes: int = 80,
    keypoint_ap: float | None = None,
) -> Preset:
    data, _, network = config.partition("/")
    start = {"Cityscapes": "cityscapes_", "PascalVOC-Detection": "voc_"}.get(data, "")
    return Preset(
        f"detectron2_{'lvis_' if data.startswith('LVIS') else start}{network}",
        config,
        f"{DETECTRON2}{config}/{file}.pkl",
        megabytes,
        num_classes,
        box_ap,
        mask_ap,
        keypoint_ap,
        licence="CC-BY-SA-3.0",
        project="detectron2",
    )


def _zoo_keypoints(
    network: str, file: str, megabytes: int, ap: float, keypoint_ap: float
) -> Preset:
    config = f"COCO-Keypoints/keypoint_rcnn_{network}"
    return _zoo(config, file, megabytes, ap, num_classes=1, keypoint_ap=keypoint_ap)


_FASTER, _MASK = "COCO-Detection/faster_rcnn_", "COCO-InstanceSegmentation/mask_rcnn_"

_LVIS = "LVISv0.5-InstanceSegmentation/mask_rcnn_"

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
        _zoo(f"{_FASTER}R_50_C4_1x", "137257644/model_final_721ade", 136, 35.7),
        _zoo(f"{_FASTER}R_50_DC5_1x", "137847829/model_final_51d356", 663, 37.3),
        _zoo(f"{_FASTER}R_50_FPN_1x", "137257794/model_final_b275ba", 167, 37.9),
        _zoo(f"{_FASTER}R_50_C4_3x", "137849393/model_final_f97cb7", 136, 38.4),
        _zoo(f"{_FASTER}R_50_DC5_3x", "137849425/model_final_68d202", 663, 39.0),
        _zoo(f"{_FASTER}R_50_FPN_3x", "137849458/model_final_280758", 167, 40.2),
        _zoo(f"{_FASTER}R_101_C4_3x", "138204752/model_final_298dad", 212, 41.1),
        _zoo(f"{_FASTER}R_101_DC5_3x", "138204841/model_final_3e0943", 739, 40.6),
        _zoo(f"{_FASTER}R_101_FPN_3x", "137851257/model_final_f6e8b1", 243, 42.0),
        _zoo(f"{_FASTER}X_101_32x8d_FPN_3x", "139173657/model_final_68b088", 421, 43.0),
        _zoo(f"{_MASK}R_50_C4_1x", "137259246/model_final_9243eb", 144, 36.8, 32.2),
        _zoo(f"{_MASK}R_50_DC5_1x", "137260150/model_final_4f86c3", 690, 38.3, 34.2),
        _zoo(f"{_MASK}R_50_FPN_1x", "137260431/model_final_a54504", 178, 38.6, 35.2),
        _zoo(f"{_MASK}R_50_C4_3x", "137849525/model_final_4ce675", 144, 39.8, 34.4),
        _zoo(f"{_MASK}R_50_DC5_3x", "137849551/model_final_84107b", 690, 40.0, 35.9),
        _zoo(f"{_MASK}R_50_FPN_3x", "137849600/model_final_f10217", 178, 41.0, 37.2),
        _zoo(f"{_MASK}R_101_C4_3x", "138363239/model_final_a2914c", 220, 42.6, 36.7),
        _zoo(f"{_MASK}R_101_DC5_3x", "138363294/model_final_0464b7", 766, 41.9, 37.3),
        _zoo(f"{_MASK}R_101_FPN_3x", "138205316/model_final_a3ec72", 254, 42.9, 38.6),
        _zoo(f"{_MASK}X_101_32x8d_FPN_3x", "139653917/model_final_2d9806", 431, 44.3, 39.5),
        _zoo(f"{_LVIS}R_50_FPN_1x", "144219072/model_final_571f7c", 203, 23.6, 24.4, 1230),
        _zoo(f"{_LVIS}R_101_FPN_1x", "144219035/model_final_824ab5", 279, 25.6, 25.9, 1230),
        _zoo(f"{_LVIS}X_101_32x8d_FPN_1x", "144219108/model_final_5e3439", 456, 26.7, 27.1, 1230),
        _zoo("Cityscapes/mask_rcnn_R_50_FPN", "142423278/model_final_af9cf5", 176, None, 36.5, 8),
        _zoo(
            "PascalVOC-Detection/faster_rcnn_R_50_C4",
            "142202221/model_final_b1acc2",
            133,
            51.9,
            num_classes=20,
        ),
        _zoo_keypoints("R_50_FPN_1x", "137261548/model_final_04e291", 237, 53.6, 64.0),
        _zoo_keypoints("R_50_FPN_3x", "137849621/model_final_a6e10b", 237, 55.4, 65.5),
        _zoo_keypoints("R_101_FPN_3x", "138363331/model_final_997cc7", 313, 56.4, 66.1),
        _zoo_keypoints("X_101_32x8d_FPN_3x", "139686956/model_final_5ad38f", 490, 57.3, 66.0),
        _zoo("Misc/cascade_mask_rcnn_R_50_FPN_1x", "138602847/model_final_e9d89b", 288, 42.1, 36.4),
        _zoo("Misc/cascade_mask_rcnn_R_50_FPN_3x", "144998488/model_final_480dd8", 288, 44.3, 38.5),
        _zoo("Misc/mask_rcnn_R_50_FPN_3x_gn", "138602888/model_final_dc5d9e", 183, 42.6, 38.6),
        _zoo(
            "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn",
            "138602908/model_final_01ca85",
            183,
            39.9,
            36.6,
        ),
        _zoo("Misc/mask_rcnn_R_50_FPN_3x_syncbn", "169527823/model_final_3b3c51", 183, 41.9, 37.8),
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
