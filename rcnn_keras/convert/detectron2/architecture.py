"""Which detector a state dict of Detectron2 is of, by the names and shapes of its tensors."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rcnn_keras.backbones.resnet import DEPTHS, NETWORKS

State = Mapping[str, np.ndarray]

BOX = "roi_heads.box_head."
PREDICTOR = "roi_heads.box_predictor."
MASK = "roi_heads.mask_head."
KEYPOINT = "roi_heads.keypoint_head."
RPN = "proposal_generator.rpn_head."

# What other models have, and what this package has no layer for.
OTHERS = (
    (r"head\.(cls_subnet|bbox_subnet|cls_score)", "RetinaNet"),
    (r"sem_seg_head\.", "a panoptic or semantic model"),
    (r".*\.conv2_offset", "a model with deformable convolutions"),
    (r"(fcos|proposal_generator\.fcos)", "FCOS"),
    (r"(transformer|detr|class_embed)", "DETR"),
    (r"model\.\d+\.", "a model of Ultralytics"),
    (r"rpn\.head\.", "a detector of torchvision, which convert.torchvision loads"),
    (r"(backbone\.layer\d|rpn_head\.)", "a detector of MMDetection"),
    (r"(features|layer\d)\.", "a classifier of torchvision"),
)

COCO_KEYPOINTS = 17

SUFFIXES = {"fpn": "_fpn", "dc5": "_dc5", "c4": ""}  # of the backbone's name here

# Each mark is the beginning of a tensor's name that no architecture below it has.
MARKS = (
    ("cascade_rcnn", f"{BOX}0."),
    ("keypoint_rcnn", KEYPOINT),
    ("mask_rcnn", MASK),
    ("faster_rcnn", PREDICTOR),
)


@dataclass(frozen=True)
class Architecture:
    """What the tensors say.

    Attributes:
        kind: of `MARKS`.
        family: `"fpn"`, `"dc5"` or `"c4"`.
        num_classes: K.
        arguments: of the constructor.
        prefix: of the backbone's tensors.
        agnostic_boxes: whether one box is predicted for all classes.
        agnostic_masks: whether one mask is.
        tracks_batches: whether batch norm was trained, with step counters.
        settings: keys of Detectron2's configuration that the tensors decide, and their values.
    """

    kind: str
    family: str
    num_classes: int
    arguments: dict[str, Any]
    prefix: str
    agnostic_boxes: bool = False
    agnostic_masks: bool = False
    tracks_batches: bool = False
    settings: dict[str, Any] = field(default_factory=dict)


def architecture_of(state: State) -> Architecture:
    """Return what the tensors of a detector say of it.

    Raises:
        ValueError: for a state dict of something else, which it names; for a network that is not of
            this package; for a tensor without which it cannot be told.
    """
    kind = next((kind for kind, mark in MARKS if _any(state, mark)), None)
    for pattern, other in OTHERS:
        found = next((name for name in state if re.match(pattern, name)), None)
        if found is not None:
            raise ValueError(f"the weights of {other}, by the tensor {found}")
    if kind is None:
        raise ValueError(
            f"no detector of Detectron2: it has no tensor of {PREDICTOR.rstrip('.')}; "
            f"its first is {next(iter(state), None)}"
        )
    if not _any(state, RPN):
        raise ValueError(
            f"Fast R-CNN without an RPN: it has no tensor of {RPN.rstrip('.')}, and takes its "
            f"proposals from a file"
        )
    family = _family(state)
    prefix = "backbone.bottom_up." if family == "fpn" else "backbone."
    network = _Network.of(state, prefix, "roi_heads." if family == "c4" else prefix)
    predictor = f"{PREDICTOR}0." if _any(state, f"{PREDICTOR}0.") else PREDICTOR
    count = _shape(state, f"{predictor}cls_score.weight", 2)[0] - 1
    if count < 1:
        raise ValueError(f"{predictor}cls_score.weight has no class beside the background")
    boxes = _shape(state, f"{predictor}bbox_pred.weight", 2)[0]
    agnostic_masks = False
    if _any(state, MASK):
        agnostic_masks = _shape(state, f"{MASK}predictor.weight", 4)[0] == 1 != count
    settings = {
        "MODEL.ROI_HEADS.NUM_CLASSES": count,
        "MODEL.RESNETS.DEPTH": network.depth,
        "MODEL.RESNETS.NUM_GROUPS": network.groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": network.per_group,
        "MODEL.MASK_ON": _any(state, MASK),
        "MODEL.KEYPOINT_ON": _any(state, KEYPOINT),
        "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG": boxes == 4 and count > 1,
    }
    return Architecture(
        kind,
        family,
        count,
        {
            "backbone": network.name + SUFFIXES[family],
            "backbone_width": network.width,
            "norm": network.norm,
        }
        | _heads(state, family)
        | _branches(state, kind),
        prefix,
        agnostic_boxes=boxes == 4 and count > 1,
        agnostic_masks=agnostic_masks,
        tracks_batches=any(name.endswith("num_batches_tracked") for name in state),
        settings=settings,
    )


NORMS = {"FrozenBN": "frozen_batch", "GN": "group", "SyncBN": "batch"}


def architecture_by(settings: Mapping[str, Any], name: str) -> Architecture:
    """Return the architecture of a configuration of the zoo, of which there is no file yet.

    Args:
        settings: its dotted keys.
        name: its name, which has the family: `..._R_50_FPN_3x`.
    """
    family = next(family for family in ("fpn", "dc5", "c4") if f"_{family.upper()}" in name)
    kind = "mask_rcnn" if settings.get("MODEL.MASK_ON") else "faster_rcnn"
    if settings.get("MODEL.KEYPOINT_ON"):
        kind = "keypoint_rcnn"
    if settings.get("MODEL.ROI_HEADS.NAME") == "CascadeROIHeads":
        kind = "cascade_rcnn"
    groups = settings.get("MODEL.RESNETS.NUM_GROUPS", 1)
    per_group = settings.get("MODEL.RESNETS.WIDTH_PER_GROUP", 64)
    network = _Network(
        settings["MODEL.RESNETS.DEPTH"],
        groups,
        per_group,
        1.0,
        NORMS[settings.get("MODEL.RESNETS.NORM", "FrozenBN")],
    )
    arguments: dict[str, Any] = {"backbone": network.name + SUFFIXES[family], "norm": network.norm}
    if network.norm != "frozen_batch":  # so have the zoo's all heads, with four convolutions
        arguments |= {"head_norm": network.norm, "box_convs": 4}
    if family != "c4":
        arguments["box_units"] = 1024
    if kind == "cascade_rcnn":
        arguments["masks"] = settings.get("MODEL.MASK_ON", False)
    count = settings["MODEL.ROI_HEADS.NUM_CLASSES"]
    return Architecture(kind, family, count, arguments, prefix="backbone.")


def _family(state: State) -> str:
    if _any(state, "backbone.fpn_"):
        return "fpn"
    return "c4" if _any(state, "roi_heads.res5.") else "dc5"


@dataclass(frozen=True)
class _Network:
    """A ResNet or ResNeXt."""

    depth: int
    groups: int
    per_group: int
    width: float
    norm: str | None

    @classmethod
    def of(cls, state: State, prefix: str, last: str) -> "_Network":
        """Return that of the tensors with this prefix, and of the last stage with another."""
        blocks = tuple(
            _numbered(state, f"{last if stage == 5 else prefix}res{stage}.")
            for stage in range(2, 6)
        )
        basic = not any(re.match(rf"{prefix}res2\.\d+\.conv3\.", name) for name in state)
        kind = "basic" if basic else "bottleneck"
        depth = next((d for d, design in DEPTHS.items() if design == (kind, blocks)), None)
        if depth is None:
            raise ValueError(
                f"a ResNet with {', '.join(map(str, blocks))} blocks of res2 to res5; there are "
                f"{', '.join(f'{d}: {b}' for d, (_, b) in DEPTHS.items())}"
            )
        width = _shape(state, f"{prefix}stem.conv1.weight", 4)[0] / 64
        groups, per_group = 1, 64
        if not basic:
            outputs, inputs = _shape(state, f"{prefix}res2.0.conv2.weight", 4)[:2]
            groups = max(outputs // max(inputs, 1), 1)
            if groups > 1:
                per_group = round(inputs / width)
        names = {design: name for name, design in NETWORKS.items()}
        if (depth, groups, per_group) not in names:
            raise ValueError(
                f"a ResNeXt-{depth} of {groups} groups of {per_group} channels; there are "
                f"{', '.join(name for name in NETWORKS if 'next' in name)}"
            )
        return cls(depth, groups, per_group, width, _norm(state, f"{prefix}stem.conv1"))

    @property
    def name(self) -> str:
        """The backbone's name here, without what stands on it."""
        names = {design: name for name, design in NETWORKS.items()}
        return names[self.depth, self.groups, self.per_group]


def _heads(state: State, family: str) -> dict[str, Any]:
    """Return the arguments that the tensors of pyramid and heads decide."""
    if family == "c4":
        return {}
    arguments: dict[str, Any] = {}
    norms = {}
    if family == "fpn":
        arguments["fpn_channels"] = _shape(state, "backbone.fpn_output2.weight", 4)[0]
        norms["pyramid"] = _norm(state, "backbone.fpn_output2")
    head = f"{BOX}0." if _any(state, f"{BOX}0.") else BOX
    convs, dense = _numbered(state, f"{head}conv"), _numbered(state, f"{head}fc")
    if dense != (1 if convs else 2):
        raise ValueError(
            f"a box head of {convs} convolutions and {dense} dense layers; there are two dense "
            f"layers, or convolutions and one"
        )
    arguments |= {"box_units": _shape(state, f"{head}fc1.weight", 2)[0], "box_convs": convs}
    if convs:
        norms["box head"] = _norm(state, f"{head}conv1")
    if _any(state, MASK):
        if (drawn := _numbered(state, f"{MASK}mask_fcn")) != 4:
            raise ValueError(f"a mask head of {drawn} convolutions; there are 4")
        norms["mask head"] = _norm(state, f"{MASK}mask_fcn1")
    if len(set(norms.values())) > 1:
        found = ", ".join(f"{norm} of the {place}" for place, norm in norms.items())
        raise ValueError(f"normalisation differs: {found}; there is one for all of them")
    return arguments | {"head_norm": next(iter(norms.values()), None)}


def _branches(state: State, kind: str) -> dict[str, Any]:
    """Return the arguments of Cascade and Keypoint R-CNN that the tensors decide."""
    if kind == "cascade_rcnn":
        return {"masks": _any(state, MASK)}
    if kind != "keypoint_rcnn":
        return {}
    count = _shape(state, f"{KEYPOINT}score_lowres.weight", 4)[1]
    convs = range(1, _numbered(state, f"{KEYPOINT}conv_fcn") + 1)
    names = [f"{KEYPOINT}conv_fcn{number}.weight" for number in convs]
    return {
        "keypoint_layers": tuple(_shape(state, name, 4)[0] for name in names),
        "num_keypoints": None if count == COCO_KEYPOINTS else count,
    }


def _norm(state: State, conv: str) -> str | None:
    """Return the kind of normalisation after a convolution."""
    if f"{conv}.norm.running_var" in state:
        return "batch" if f"{conv}.norm.num_batches_tracked" in state else "frozen_batch"
    return "group" if f"{conv}.norm.weight" in state else None


def _numbered(state: State, prefix: str) -> int:
    """Return how many modules there are whose names are the prefix and a number."""
    pattern = re.compile(rf"{re.escape(prefix)}(\d+)\.")
    return len({match[1] for name in state if (match := pattern.match(name))})


def _any(state: State, prefix: str) -> bool:
    return any(name.startswith(prefix) for name in state)


def _shape(state: State, name: str, rank: int) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"the tensor {name} is missing")
    if state[name].ndim != rank:
        raise ValueError(f"{name} {state[name].shape} has not {rank} dimensions")
    return state[name].shape
