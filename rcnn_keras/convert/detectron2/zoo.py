"""The configurations of Detectron2's model zoo, by name: what each changes of the defaults."""

from typing import Any

from rcnn_keras.convert.detectron2.settings import BASES

RESNEXT_STD = [57.375, 57.12, 58.395]  # BGR, with which Caffe2's ResNeXt was trained

NETWORKS: dict[str, dict[str, Any]] = {
    "R_50": {"MODEL.RESNETS.DEPTH": 50},
    "R_101": {"MODEL.RESNETS.DEPTH": 101},
    "X_101_32x8d": {
        "MODEL.RESNETS.DEPTH": 101,
        "MODEL.RESNETS.NUM_GROUPS": 32,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 8,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.PIXEL_STD": RESNEXT_STD,
    },
}

KEYPOINTS = {
    "MODEL.KEYPOINT_ON": True,
    "MODEL.ROI_HEADS.NUM_CLASSES": 1,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.5,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1500,
}

CASCADE = {
    "MODEL.MASK_ON": True,
    "MODEL.ROI_HEADS.NAME": "CascadeROIHeads",
    "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
}

GROUP_NORM = {"MODEL.RESNETS.NORM": "GN", "MODEL.RESNETS.STRIDE_IN_1X1": False}

SYNC_NORM = {"MODEL.RESNETS.NORM": "SyncBN"}

DETECTRON1 = {  # its losses, and its samples in RoIAlign
    "INPUT.MIN_SIZE_TRAIN": [800],
    "MODEL.RPN.SMOOTH_L1_BETA": 0.1111,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1.0,
} | {
    f"MODEL.ROI_{head}_HEAD.POOLER_{key}": value
    for head in ("BOX", "MASK", "KEYPOINT")
    for key, value in (("TYPE", "ROIAlign"), ("SAMPLING_RATIO", 2))
}

CITYSCAPES = {
    "MODEL.ROI_HEADS.NUM_CLASSES": 8,
    "INPUT.MIN_SIZE_TRAIN": [800, 832, 864, 896, 928, 960, 992, 1024],
    "INPUT.MIN_SIZE_TEST": 1024,
    "INPUT.MAX_SIZE_TEST": 2048,
}

VOC = {
    "MODEL.ROI_HEADS.NUM_CLASSES": 20,
    "INPUT.MIN_SIZE_TRAIN": list(range(480, 801, 32)),
}


def _lvis(classes: int) -> dict[str, Any]:
    return {
        "MODEL.ROI_HEADS.NUM_CLASSES": classes,
        "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0001,
        "TEST.DETECTIONS_PER_IMAGE": 300,
    }


def _zoo() -> dict[str, dict[str, Any]]:
    """Return the keys that each configuration sets, its bases' included."""
    mask, coco = {"MODEL.MASK_ON": True}, {"MODEL.ROI_HEADS.NUM_CLASSES": 80}
    zoo = {}
    for network, own in NETWORKS.items():
        families = ("FPN",) if network.startswith("X") else ("C4", "DC5", "FPN")
        for family in families:
            base = BASES[family.lower()] | own
            for schedule in ("1x", "3x") if network == "R_50" else ("3x",):
                end = f"{network}_{family}_{schedule}"
                zoo[f"COCO-Detection/faster_rcnn_{end}"] = base | coco
                zoo[f"COCO-InstanceSegmentation/mask_rcnn_{end}"] = base | coco | mask
                if family == "FPN":
                    zoo[f"COCO-Keypoints/keypoint_rcnn_{end}"] = base | KEYPOINTS
        base = BASES["fpn"] | own | mask
        for version, classes in (("v0.5", 1230), ("v1", 1203)):
            name = f"LVIS{version}-InstanceSegmentation/mask_rcnn_{network}_FPN_1x"
            zoo[name] = base | _lvis(classes)
    fpn = BASES["fpn"] | NETWORKS["R_50"]
    scratch = {"MODEL.BACKBONE.FREEZE_AT": 0}
    agnostic = {
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": True,
        "MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK": True,
    }
    return zoo | {
        "Cityscapes/mask_rcnn_R_50_FPN": fpn | mask | CITYSCAPES,
        "PascalVOC-Detection/faster_rcnn_R_50_C4": BASES["c4"] | NETWORKS["R_50"] | VOC,
        "PascalVOC-Detection/faster_rcnn_R_50_FPN": fpn | VOC,
        "Misc/cascade_mask_rcnn_R_50_FPN_1x": fpn | coco | CASCADE,
        "Misc/cascade_mask_rcnn_R_50_FPN_3x": fpn | coco | CASCADE,
        "Misc/mask_rcnn_R_50_FPN_1x_cls_agnostic": fpn | mask | coco | agnostic,
        "Misc/mask_rcnn_R_50_FPN_3x_gn": fpn | mask | coco | GROUP_NORM,
        "Misc/mask_rcnn_R_50_FPN_3x_syncbn": fpn | mask | coco | SYNC_NORM,
        "Misc/scratch_mask_rcnn_R_50_FPN_3x_gn": fpn | mask | coco | GROUP_NORM | scratch,
        "Misc/scratch_mask_rcnn_R_50_FPN_9x_gn": fpn | mask | coco | GROUP_NORM | scratch,
        "Misc/scratch_mask_rcnn_R_50_FPN_9x_syncbn": fpn
        | mask
        | coco
        | SYNC_NORM
        | scratch
        | {"MODEL.RESNETS.STRIDE_IN_1X1": False, "MODEL.PIXEL_STD": RESNEXT_STD},
        "Detectron1-Comparisons/faster_rcnn_R_50_FPN_noaug_1x": fpn | coco | DETECTRON1,
        "Detectron1-Comparisons/mask_rcnn_R_50_FPN_noaug_1x": fpn | coco | mask | DETECTRON1,
        "Detectron1-Comparisons/keypoint_rcnn_R_50_FPN_1x": fpn
        | KEYPOINTS
        | DETECTRON1
        | {"INPUT.MIN_SIZE_TRAIN": BASES["fpn"]["INPUT.MIN_SIZE_TRAIN"]},
    }


ZOO = _zoo()

_VOC_NAMES = """
aeroplane, bicycle, bird, boat, bottle, bus, car, cat, chair, cow, diningtable, dog, horse,
motorbike, person, pottedplant, sheep, sofa, train, tvmonitor
"""

_CITYSCAPES_NAMES = "person, rider, car, truck, bus, train, motorcycle, bicycle"


def class_names(config: str | None) -> tuple[str, ...]:
    """Return the names of the classes of a zoo's configuration, () where they are not known."""
    folder = (config or "").partition("/")[0]
    names = {"PascalVOC-Detection": _VOC_NAMES, "Cityscapes": _CITYSCAPES_NAMES}.get(folder, "")
    return tuple(name.strip() for name in names.split(",") if name.strip())
