"""Weights of one detector for another that predicts other classes."""

from rcnn_keras.models import FasterRCNN

OF_CLASSES = ("box_head.class_logits", "box_head.box_deltas", "mask_head.mask_logits")
OF_ANCHORS = ("rpn_head.objectness", "rpn_head.deltas")


def transfer(source: FasterRCNN, target: FasterRCNN) -> tuple[list[str], list[str]]:
    """Copy the weights of all parts that mean the same in both detectors.

    The layers that predict classes, or what is inside a class's box, mean the same only if the
    classes do; those that judge anchors only if there are as many at each position.

    Args:
        source: detector to copy from.
        target: one of the same kind.

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
        if not fits and name not in (*OF_CLASSES, *OF_ANCHORS):
            raise ValueError(f"the weights do not fit: {name} has other shapes in the new model")
        copied = fits and (same_classes or name not in OF_CLASSES)
        (kept if copied else left).append(name)
    for name in kept:
        for ours, theirs in zip(new[name], old[name], strict=True):
            ours.assign(theirs)
    return kept, left


def _parts(model: FasterRCNN) -> dict[str, list]:
    """Return the variables of each part of a detector."""
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
        layers |= {
            "mask_head.trunk": head.trunk.layers,
            "mask_head.upsample": [head.upsample],
            "mask_head.mask_logits": [head.mask_logits],
        }
    return {name: [v for layer in part for v in _in_order(layer)] for name, part in layers.items()}


def _in_order(layer) -> list:
    """Return a layer's variables in an order that does not hang on which of them train."""
    return sorted(layer.weights, key=lambda variable: variable.path)
