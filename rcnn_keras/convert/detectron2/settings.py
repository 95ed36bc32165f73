"""Detectron2's configuration keys, by their dotted names, and what follows from them here.

| here | Detectron2 |
| --- | --- |
| arguments of the constructor | `MODEL`, `INPUT`, `TEST.DETECTIONS_PER_IMAGE` |
| not read: it is of a training run | `SOLVER`, `DATASETS`, `DATALOADER` and the rest |
"""

import difflib
from collections.abc import Mapping
from typing import Any

from rcnn_keras.convert.detectron2.architecture import Architecture

Settings = Mapping[str, Any]

# The keys that decide the model or how images reach it, with Detectron2's defaults.
DEFAULTS: dict[str, Any] = {
    "INPUT.FORMAT": "BGR",
    "INPUT.MAX_SIZE_TEST": 1333,
    "INPUT.MIN_SIZE_TEST": 800,
    "INPUT.MIN_SIZE_TRAIN": [800],
    "INPUT.MIN_SIZE_TRAIN_SAMPLING": "choice",
    "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32, 64, 128, 256, 512]],
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS": [
        [10.0, 10.0, 5.0, 5.0],
        [20.0, 20.0, 10.0, 10.0],
        [30.0, 30.0, 15.0, 15.0],
    ],
    "MODEL.ROI_BOX_CASCADE_HEAD.IOUS": [0.5, 0.6, 0.7],
    "MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS": [10.0, 10.0, 5.0, 5.0],
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 0.0,
    "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 512,
    "MODEL.ROI_HEADS.IOU_THRESHOLDS": [0.5],
    "MODEL.ROI_HEADS.NMS_THRESH_TEST": 0.5,
    "MODEL.ROI_HEADS.POSITIVE_FRACTION": 0.25,
    "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.05,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_KEYPOINT_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 0,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlignV2",
    "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 256,
    "MODEL.RPN.BOUNDARY_THRESH": -1,
    "MODEL.RPN.IOU_THRESHOLDS": [0.3, 0.7],
    "MODEL.RPN.NMS_THRESH": 0.7,
    "MODEL.RPN.POSITIVE_FRACTION": 0.5,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 6000,
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 12000,
    "MODEL.RPN.SMOOTH_L1_BETA": 0.0,
    "TEST.DETECTIONS_PER_IMAGE": 100,
}

_OF_BASES = {"INPUT.MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800]}

# What the zoo's Base-RCNN-FPN.yaml and its two sisters change.
BASES: dict[str, dict[str, Any]] = {
    "c4": _OF_BASES,
    "dc5": _OF_BASES,
    "fpn": _OF_BASES
    | {
        "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
        "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
        "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
        "MODEL.RPN.POST_NMS_TOPK_TRAIN": 1000,
    },
}

# Arguments that have the value of one key.
ARGUMENTS = {
    "max_size": "INPUT.MAX_SIZE_TEST",
    "stride_in_1x1": "MODEL.RESNETS.STRIDE_IN_1X1",
    "rpn_pre_nms_top_n_train": "MODEL.RPN.PRE_NMS_TOPK_TRAIN",
    "rpn_pre_nms_top_n_test": "MODEL.RPN.PRE_NMS_TOPK_TEST",
    "rpn_post_nms_top_n_train": "MODEL.RPN.POST_NMS_TOPK_TRAIN",
    "rpn_post_nms_top_n_test": "MODEL.RPN.POST_NMS_TOPK_TEST",
    "rpn_nms_thresh": "MODEL.RPN.NMS_THRESH",
    "rpn_batch_size_per_image": "MODEL.RPN.BATCH_SIZE_PER_IMAGE",
    "rpn_positive_fraction": "MODEL.RPN.POSITIVE_FRACTION",
    "rpn_smooth_l1_beta": "MODEL.RPN.SMOOTH_L1_BETA",
    "roi_sampling_ratio": "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO",
    "box_score_thresh": "MODEL.ROI_HEADS.SCORE_THRESH_TEST",
    "box_nms_thresh": "MODEL.ROI_HEADS.NMS_THRESH_TEST",
    "box_batch_size_per_image": "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE",
    "box_positive_fraction": "MODEL.ROI_HEADS.POSITIVE_FRACTION",
    "box_smooth_l1_beta": "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA",
    "box_detections_per_img": "TEST.DETECTIONS_PER_IMAGE",
}

# Keys of which only some values have a counterpart here.
ONLY: dict[str, tuple[Any, ...]] = {
    "INPUT.FORMAT": ("BGR", "RGB"),
    "MODEL.ANCHOR_GENERATOR.NAME": ("DefaultAnchorGenerator",),
    "MODEL.ANCHOR_GENERATOR.OFFSET": (0,),
    "MODEL.BACKBONE.NAME": ("build_resnet_backbone", "build_resnet_fpn_backbone"),
    "MODEL.FPN.FUSE_TYPE": ("sum",),
    "MODEL.META_ARCHITECTURE": ("GeneralizedRCNN",),
    "MODEL.PROPOSAL_GENERATOR.MIN_SIZE": (0,),
    "MODEL.PROPOSAL_GENERATOR.NAME": ("RPN",),
    "MODEL.ROI_BOX_HEAD.NAME": ("", "FastRCNNConvFCHead"),
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": ("ROIAlign", "ROIAlignV2"),
    "MODEL.ROI_HEADS.NAME": ("StandardROIHeads", "Res5ROIHeads", "CascadeROIHeads"),
    "MODEL.RPN.BBOX_REG_WEIGHTS": ([1, 1, 1, 1],),
    "MODEL.RPN.BOUNDARY_THRESH": (-1, 0),
    "MODEL.RPN.HEAD_NAME": ("StandardRPNHead",),
}

# Keys of which other values change the training alone, which is then not Detectron2's.
IN_TRAINING: dict[str, tuple[Any, ...]] = {
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_TYPE": ("smooth_l1",),
    "MODEL.ROI_BOX_HEAD.BBOX_REG_LOSS_WEIGHT": (1,),
    "MODEL.ROI_BOX_HEAD.TRAIN_ON_PRED_BOXES": (False,),
    "MODEL.ROI_HEADS.IOU_LABELS": ([0, 1],),
    "MODEL.ROI_HEADS.PROPOSAL_APPEND_GT": (True,),
    "MODEL.RPN.BBOX_REG_LOSS_TYPE": ("smooth_l1",),
    "MODEL.RPN.BBOX_REG_LOSS_WEIGHT": (1,),
    "MODEL.RPN.IOU_LABELS": ([0, -1, 1],),
    "MODEL.RPN.LOSS_WEIGHT": (1,),
}

# What the tensors decide as well, or what nothing here reads.
_OTHERS = """
CUDNN_BENCHMARK FLOAT32_PRECISION GLOBAL.HACK OUTPUT_DIR SEED VERSION VIS_PERIOD INPUT.MASK_FORMAT
INPUT.MAX_SIZE_TRAIN INPUT.RANDOM_FLIP MODEL.DEVICE MODEL.KEYPOINT_ON MODEL.LOAD_PROPOSALS
MODEL.MASK_ON MODEL.WEIGHTS MODEL.ANCHOR_GENERATOR.ANGLES MODEL.FPN.IN_FEATURES MODEL.FPN.NORM
MODEL.FPN.OUT_CHANNELS MODEL.RESNETS.DEFORM_MODULATED MODEL.RESNETS.DEFORM_NUM_GROUPS
MODEL.RESNETS.DEFORM_ON_PER_STAGE MODEL.RESNETS.DEPTH MODEL.RESNETS.NORM MODEL.RESNETS.NUM_GROUPS
MODEL.RESNETS.OUT_FEATURES MODEL.RESNETS.RES2_OUT_CHANNELS MODEL.RESNETS.RES5_DILATION
MODEL.RESNETS.STEM_OUT_CHANNELS MODEL.RESNETS.WIDTH_PER_GROUP MODEL.RPN.CONV_DIMS
MODEL.RPN.IN_FEATURES MODEL.RPN.IGNORE_THRESHOLD MODEL.ROI_HEADS.IN_FEATURES
MODEL.ROI_HEADS.NUM_CLASSES MODEL.ROI_HEADS.IGNORE_THRESHOLD
MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG MODEL.ROI_BOX_HEAD.CONV_DIM MODEL.ROI_BOX_HEAD.FC_DIM
MODEL.ROI_BOX_HEAD.FED_LOSS_FREQ_WEIGHT_POWER MODEL.ROI_BOX_HEAD.FED_LOSS_NUM_CLASSES
MODEL.ROI_BOX_HEAD.NORM MODEL.ROI_BOX_HEAD.NUM_CONV MODEL.ROI_BOX_HEAD.NUM_FC
MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION MODEL.ROI_BOX_HEAD.USE_FED_LOSS
MODEL.ROI_BOX_HEAD.USE_SIGMOID_CE 
MODEL.ROI_MASK_HEAD.CLS_AGNOSTIC_MASK MODEL.ROI_MASK_HEAD.CONV_DIM
MODEL.ROI_MASK_HEAD.NAME MODEL.ROI_MASK_HEAD.NORM MODEL.ROI_MASK_HEAD.NUM_CONV
MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS
MODEL.ROI_KEYPOINT_HEAD.LOSS_WEIGHT MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
MODEL.ROI_KEYPOINT_HEAD.NAME MODEL.ROI_KEYPOINT_HEAD.NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS
MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS MODEL.ROI_KEYPOINT_HEAD.POOLER_RESOLUTION TEST.EVAL_PERIOD
TEST.EXPECTED_RESULTS TEST.KEYPOINT_OKS_SIGMAS
"""

OTHERS = tuple(_OTHERS.split())

SECTIONS = (  # of which nothing is read, whatever their keys
    *("SOLVER.", "DATASETS.", "DATALOADER.", "TEST.AUG.", "TEST.PRECISE_BN.", "INPUT.CROP."),
    *("MODEL.SEM_SEG_HEAD.", "MODEL.PANOPTIC_FPN.", "MODEL.RETINANET."),
)

KNOWN = (*DEFAULTS, *ONLY, *IN_TRAINING, *OTHERS)


def check_settings(settings: Settings) -> None:
    """Raise ValueError, with a line each, for unknown keys and values without a counterpart."""
    errors = []
    for key, value in settings.items():
        if key not in KNOWN and not key.startswith(SECTIONS):
            near = difflib.get_close_matches(key, KNOWN, 1)
            errors.append(f"{key}: unknown key" + (f", did you mean {near[0]}?" if near else ""))
        elif key in ONLY and not _is_one_of(value, ONLY[key]):
            allowed = " or ".join(map(repr, ONLY[key]))
            errors.append(f"{key}: {value!r} has no counterpart here, only {allowed}")
        elif key in DEFAULTS and not _is_like(value, DEFAULTS[key]):
            errors.append(f"{key}: {value!r} is not of the form of {DEFAULTS[key]!r}")
    if errors:
        raise ValueError("\n".join(errors))


def trained_otherwise(settings: Settings) -> list[str]:
    """Return `KEY=value` of each setting that changes the training alone, and is not followed."""
    return [
        f"{key}={value!r}"
        for key, value in settings.items()
        if key in IN_TRAINING and not _is_one_of(value, IN_TRAINING[key])
    ]


def check_against(settings: Settings, architecture: Architecture) -> None:
    """Raise ValueError, with a line each, for settings that contradict the tensors."""
    errors = [
        f"{key} is {settings[key]!r}, and {value!r} by the tensors"
        for key, value in architecture.settings.items()
        if key in settings and settings[key] != value
    ]
    if errors:
        raise ValueError("\n".join(errors))


def arguments_of(settings: Settings, architecture: Architecture) -> dict[str, Any]:
    """Return the constructor's arguments that follow from a configuration.

    Args:
        settings: by dotted keys; those that are missing have Detectron2's defaults.
        architecture: of the weights.

    Raises:
        ValueError: for what has no counterpart here.
    """
    settings = DEFAULTS | dict(settings)
    arguments = {name: settings[key] for name, key in ARGUMENTS.items()}
    rgb = settings["INPUT.FORMAT"] == "RGB"
    low, high = settings["MODEL.RPN.IOU_THRESHOLDS"]
    arguments |= _second_stage(settings, architecture)
    return arguments | {
        "min_size": _min_size(settings),
        "image_mean": _rgb(settings["MODEL.PIXEL_MEAN"], rgb),
        "image_std": _rgb(settings["MODEL.PIXEL_STD"], rgb),
        "frozen_stages": min(settings["MODEL.BACKBONE.FREEZE_AT"], _stages(architecture.family)),
        "anchor_sizes": _anchor_sizes(settings, 5 if architecture.family == "fpn" else 1),
        "aspect_ratios": _aspect_ratios(settings),
        "anchor_rounding": False,
        "rpn_bg_iou_thresh": low,
        "rpn_fg_iou_thresh": high,
        "rpn_ignore_border": settings["MODEL.RPN.BOUNDARY_THRESH"] == 0,
        "roi_aligned": _aligned(settings, architecture),
        "resizing": "detectron2",
        "size_divisor": None if architecture.family == "fpn" else 1,
    }


def _second_stage(settings: Settings, architecture: Architecture) -> dict[str, Any]:
    """Return the arguments of the second stage's samples and deltas."""
    (between,) = settings["MODEL.ROI_HEADS.IOU_THRESHOLDS"]
    if architecture.kind == "cascade_rcnn":
        weights = settings["MODEL.ROI_BOX_CASCADE_HEAD.BBOX_REG_WEIGHTS"]
        return {
            "cascade_fg_iou_thresh": tuple(settings["MODEL.ROI_BOX_CASCADE_HEAD.IOUS"]),
            "cascade_bbox_reg_weights": tuple(map(tuple, weights)),
        }
    return {
        "box_fg_iou_thresh": between,
        "box_bg_iou_thresh": between,
        "bbox_reg_weights": tuple(settings["MODEL.ROI_BOX_HEAD.BBOX_REG_WEIGHTS"]),
    }


def _min_size(settings: Settings) -> int | tuple[int, ...]:
    """Return the sizes that images are trained at, that of detection last; or that alone."""
    test, train = settings["INPUT.MIN_SIZE_TEST"], settings["INPUT.MIN_SIZE_TRAIN"]
    if test == 0:
        raise ValueError("INPUT.MIN_SIZE_TEST: 0, images that keep their size, is not possible")
    train = [train] if isinstance(train, int) else list(train)
    if (
        settings["INPUT.MIN_SIZE_TRAIN_SAMPLING"] != "choice"
        or test not in train
        or train == [test]
    ):
        return test
    return (*(size for size in train if size != test), test)


def _rgb(values: Any, rgb: bool) -> tuple[float, ...]:
    return tuple(map(float, values if rgb else values[::-1]))


def _stages(family: str) -> int:
    return 4 if family == "c4" else 5


def _anchor_sizes(settings: Settings, levels: int) -> tuple[tuple[float, ...], ...]:
    sizes = settings["MODEL.ANCHOR_GENERATOR.SIZES"]
    if len(sizes) not in (1, levels):
        raise ValueError(
            f"MODEL.ANCHOR_GENERATOR.SIZES has {len(sizes)} levels; the detector has {levels}"
        )
    sizes = sizes * levels if len(sizes) == 1 else sizes
    return tuple(tuple(map(float, level)) for level in sizes)


def _aspect_ratios(settings: Settings) -> tuple[float, ...]:
    ratios = [tuple(map(float, r)) for r in settings["MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"]]
    if len(set(ratios)) > 1:
        raise ValueError("MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS differ by level; here they do not")
    return ratios[0]


def _aligned(settings: Settings, architecture: Architecture) -> bool:
    """Return whether RoIs are moved by half a position, which boxes and masks have in common."""
    box = "MODEL.ROI_BOX_HEAD.POOLER_"
    other = {"mask_rcnn": "MASK", "keypoint_rcnn": "KEYPOINT"}.get(architecture.kind)
    if architecture.arguments.get("masks"):
        other = "MASK"
    if other is not None and architecture.family != "c4":
        for key in ("TYPE", "SAMPLING_RATIO"):
            own = f"MODEL.ROI_{other}_HEAD.POOLER_{key}"
            if settings[own] != settings[box + key]:
                raise ValueError(
                    f"{own} is {settings[own]!r} and {box + key} {settings[box + key]!r}; there is "
                    f"one for both"
                )
    return settings[f"{box}TYPE"] == "ROIAlignV2"


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    value = list(value) if isinstance(value, tuple) else value
    return value in allowed


def _is_like(value: Any, default: Any) -> bool:
    """Tell whether a value is of its default's kind: a text, a truth, a number, a list."""
    if isinstance(default, list):
        return (isinstance(value, (list, tuple)) and len(value) > 0) or isinstance(value, int)
    if isinstance(default, str | bool):
        return isinstance(value, type(default))
    return isinstance(value, int | float) and not isinstance(value, bool)
