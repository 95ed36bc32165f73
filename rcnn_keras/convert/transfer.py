"""Weights of one detector for another that predicts other classes."""

from collections.abc import Mapping
from typing import Any

from rcnn_keras.layers.normalization import BATCH_KINDS
from rcnn_keras.models import FasterRCNN

# Arguments that say what the weights are, or where the network puts them to use.
OF_BACKBONE = ("backbone", "backbone_width", "norm", "stride_in_1x1", "backbone_weights")
OF_HEADS = (
    *("fpn_channels", "head_norm", "rpn_convs", "rpn_objectness"),
    *("box_units", "box_convs"),
)
MASK_HEAD = ("mask_head.trunk", "mask_head.upsample", "mask_head.mask_logits")
OF_CLASSES = ("box_head.class_logits", "box_head.box_deltas", MASK_HEAD[-1])
OF_ANCHORS = ("rpn_head.objectness", "rpn_head.deltas")


def conflicts(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return the name of each argument that is at odds with trained weights, and the rule.

    Args:
        config: the arguments that the weights were trained with.
        arguments: those that are wanted; others are as in `config`.
    """
    errors = {}
    for name in (*OF_BACKBONE, *OF_HEADS):
        trained, wanted = config[name], arguments.get(name, config[name])
        alike = name == "norm" and {trained, wanted} <= set(BATCH_KINDS)
        if trained != wanted and not alike:
            errors[name] = f"must be {trained!r}, as the weights have it"
    return errors


def transfer(source: FasterRCNN, target: FasterRCNN) -> tuple[list[str], list[str]]:
    """Copy the weights of all parts that mean the same in both detectors.

    The layers that predict classes, or what is inside a class's box, mean the same only if the
    classes do; those that judge anchors only if there are as many at each position.

    Args:
        source: detector to copy from.
        target: one of the same network; it may have a mask head that the source has not, and the
            other way about.

    Returns:
        Names of the parts that were copied, and of those that were left as they are.

    Raises:
        ValueError: if any other part differs; nothing is copied then.
    """
    same_classes = source.classes == target.classes
    old, new = _parts(source), _parts(target)
    kept: list[str] = []
    left: list[str] = []
    for name, variables in new.items():
        fits = [v.shape for v in variables] == [v.shape for v in old.get(name, [])]
        drawn = name in MASK_HEAD and name not in old
        if not fits and not drawn and name not in (*OF_CLASSES, *OF_ANCHORS):
            raise ValueError(f"the weights do not fit: {name} has other shapes in the new model")
        copied = fits and (same_classes or name not in OF_CLASSES)
        (kept if copied else left).append(name)
    for name in kept:
        for ours, theirs in zip(new[name], old[name], strict=True):
            ours.assign(theirs)
    return kept, left


def _parts(model: FasterRCNN) -> dict[str, list]:
    """Return the variables of each part of a detector that has any of its own."""
    layers = {
        "backbone": model.backbone.layers,
        "fpn": [model.fpn] if model.fpn else [],
        "rpn_head.convs": model.rpn_head.convs,
        "rpn_head.objectness": [model.rpn_head.objectness],
        "rpn_head.deltas": [model.rpn_head.deltas],
        "box_head.trunk": model.box_head.trunk.layers,
        "box_head.class_logits": [model.box_head.class_logits],
        "box_head.box_deltas": [model.box_head.box_deltas],
    }
    if head := getattr(model, "mask_head", None):
        own = [layer for layer in head.trunk.layers if layer not in model.box_head.trunk.layers]
        layers |= dict(zip(MASK_HEAD, (own, [head.upsample], [head.mask_logits]), strict=True))
    parts = {name: [v for layer in part for v in _in_order(layer)] for name, part in layers.items()}
    return {name: variables for name, variables in parts.items() if variables}


def _in_order(layer) -> list:
    """Return a layer's variables in an order that does not hang on which of them train."""
    return sorted(layer.weights, key=lambda variable: variable.path)
