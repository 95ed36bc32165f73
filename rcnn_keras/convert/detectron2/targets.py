"""The variable for each tensor of a Detectron2 detector, and the change of order on the way."""

from collections.abc import Callable, Iterable, Sequence

import keras
import numpy as np

from rcnn_keras.convert.detectron2.architecture import (
    BOX,
    KEYPOINT,
    MASK,
    PREDICTOR,
    RPN,
    Architecture,
)
from rcnn_keras.convert.weights import WeightTarget, weight_targets
from rcnn_keras.layers import BoxHead
from rcnn_keras.models import FasterRCNN

Targets = dict[str, WeightTarget]

MODULES = {"conv1": "conv1", "conv2": "conv2", "conv3": "conv3", "downsample_conv": "shortcut"}

NORMS = {
    "bn1": "conv1.norm",
    "bn2": "conv2.norm",
    "bn3": "conv3.norm",
    "downsample_bn": "shortcut.norm",
}


def faster_rcnn_targets(model: FasterRCNN, architecture: Architecture, bgr: bool) -> Targets:
    """Return the targets of all that Faster R-CNN has.

    Args:
        model: the detector.
        architecture: that its constructor's arguments came from.
        bgr: whether the weights read images as blue, green, red.
    """
    targets = first_stage_targets(model, architecture, bgr)
    return targets | box_head_targets(model.box_head, architecture)


def mask_rcnn_targets(model: FasterRCNN, architecture: Architecture, bgr: bool) -> Targets:
    """Return the targets of all that Mask R-CNN has; as `faster_rcnn_targets`."""
    targets = faster_rcnn_targets(model, architecture, bgr)
    return targets | mask_head_targets(model.mask_head, architecture)


def keypoint_rcnn_targets(model: FasterRCNN, architecture: Architecture, bgr: bool) -> Targets:
    """Return the targets of all that Keypoint R-CNN has; as `faster_rcnn_targets`."""
    targets = faster_rcnn_targets(model, architecture, bgr)
    head = model.keypoint_head
    for number, conv in enumerate(head.convs, start=1):
        targets |= weight_targets(conv, f"{KEYPOINT}conv_fcn{number}")
    return targets | weight_targets(head.upsample, f"{KEYPOINT}score_lowres")


def cascade_rcnn_targets(model: FasterRCNN, architecture: Architecture, bgr: bool) -> Targets:
    """Return the targets of all that Cascade R-CNN has; as `faster_rcnn_targets`."""
    targets = first_stage_targets(model, architecture, bgr)
    for stage, head in enumerate(model.box_heads):
        names = f"{BOX}{stage}.", f"{PREDICTOR}{stage}."
        targets |= box_head_targets(head, architecture, *names)
    if model.has_masks:
        targets |= mask_head_targets(model.mask_head, architecture)
    return targets


def first_stage_targets(model: FasterRCNN, architecture: Architecture, bgr: bool) -> Targets:
    """Return the targets of backbone, pyramid and RPN; as `faster_rcnn_targets`."""
    targets = network_targets(model.backbone.layers, architecture.prefix, bgr)
    if model.fpn is not None:
        for conv, norms, convs in (
            ("lateral", model.fpn.lateral_norms, model.fpn.lateral),
            ("output", model.fpn.output_norms, model.fpn.output_convs),
        ):
            for level, (layer, norm) in enumerate(zip(convs, norms, strict=True), start=2):
                targets |= _conv_norm(layer, norm, f"backbone.fpn_{conv}{level}")
    return targets | rpn_targets(model)


def network_targets(layers: Iterable[keras.layers.Layer], prefix: str, bgr: bool) -> Targets:
    """Return the targets of a ResNet's layers, `layer1_0_conv1` by `res2.0.conv1`."""
    targets: Targets = {}
    for layer in layers:
        if not layer.weights:
            continue
        stage, _, rest = layer.name.partition("_")
        if not stage.startswith("layer"):
            name = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}[layer.name]
        else:
            block, _, part = rest.partition("_")
            name = f"res{int(stage[-1]) + 1}.{block}.{(MODULES | NORMS)[part]}"
        targets |= weight_targets(layer, prefix + name)
    stem = f"{prefix}stem.conv1.weight"
    if bgr and stem in targets:
        targets[stem] = _rearranged(targets[stem], lambda values: values[:, ::-1])
    return targets


def rpn_targets(model: FasterRCNN) -> Targets:
    """Return the targets of the RPN's head.

    Detectron2 has a position's anchors by size and then by ratio, this package by ratio and then by
    size.
    """
    head = model.rpn_head
    config = model.get_config()
    ratios, sizes = len(config["aspect_ratios"]), len(model.anchor_generator.sizes[0])
    order = np.arange(sizes * ratios).reshape(sizes, ratios).T.reshape(-1)
    deltas = (4 * order[:, None] + np.arange(4)).reshape(-1)
    (conv,) = head.convs
    targets = weight_targets(conv, f"{RPN}conv")
    for layer, name, places in (
        (head.objectness, "objectness_logits", order),
        (head.deltas, "anchor_deltas", deltas),
    ):
        targets |= _reordered(weight_targets(layer, f"{RPN}{name}"), places)
    return targets


def box_head_targets(
    layer: BoxHead, architecture: Architecture, head: str = BOX, predictor: str = PREDICTOR
) -> Targets:
    """Return the targets of a box head and its predictions.

    Args:
        layer: the head.
        architecture: of its weights.
        head: prefix of the head's tensors.
        predictor: prefix of those that predict.
    """
    trunk = layer.trunk
    if architecture.family == "c4":
        targets = network_targets(trunk.layers, "roi_heads.", bgr=False)
    else:
        targets = _trunk_convs(trunk, f"{head}conv")
        size = trunk.input.shape[1]
        for number, fc in enumerate(("fc6", "fc7"), start=1):
            if any(dense.name == fc for dense in trunk.layers):
                map_size = size if number == 1 else 1
                targets |= weight_targets(
                    trunk.get_layer(fc), f"{head}fc{number}", map_size=map_size
                )
    count = architecture.num_classes
    scores = weight_targets(layer.class_logits, f"{predictor}cls_score")
    targets |= _reordered(scores, [count, *range(count)])
    boxes = weight_targets(layer.box_deltas, f"{predictor}bbox_pred")
    repeated = architecture.agnostic_boxes and not layer.class_agnostic
    return targets | (_repeated(boxes, count) if repeated else boxes)


def mask_head_targets(head: keras.layers.Layer, architecture: Architecture) -> Targets:
    """Return the targets of a mask head; that of a C4 detector has its trunk from the box head."""
    targets = {} if architecture.family == "c4" else _trunk_convs(head.trunk, f"{MASK}mask_fcn")
    targets |= weight_targets(head.upsample, f"{MASK}deconv")
    masks = weight_targets(head.mask_logits, f"{MASK}predictor")
    agnostic = architecture.agnostic_masks
    return targets | (_repeated(masks, architecture.num_classes) if agnostic else masks)


def _trunk_convs(trunk: keras.Model, prefix: str) -> Targets:
    """Return the targets of a trunk's convolutions `conv1`.. and of the norms after them."""
    targets: Targets = {}
    for layer in trunk.layers:
        if layer.name.startswith("conv"):
            number = layer.name.removeprefix("conv")
            targets |= _conv_norm(layer, trunk.get_layer(f"norm{number}"), f"{prefix}{number}")
    return targets


def _conv_norm(conv: keras.layers.Layer, norm: keras.layers.Layer, name: str) -> Targets:
    targets = weight_targets(conv, name)
    return targets | (weight_targets(norm, f"{name}.norm") if norm.weights else {})


def _rearranged(target: WeightTarget, change: Callable[[np.ndarray], np.ndarray]) -> WeightTarget:
    """Return a target whose tensor is changed before it is arranged."""
    return target._replace(arrange=lambda values: target.arrange(change(values)))


def _reordered(targets: Targets, order: Sequence[int] | np.ndarray) -> Targets:
    """Return targets whose outputs come in another order."""
    order = np.asarray(order)
    return {k: _rearranged(target, lambda values: values[order]) for k, target in targets.items()}


def _repeated(targets: Targets, count: int) -> Targets:
    """Return targets whose tensors have the outputs of one class, and serve `count`."""
    return {
        name: _rearranged(
            target._replace(shape=(target.shape[0] // count, *target.shape[1:])),
            lambda values: np.tile(values, [count] + [1] * (values.ndim - 1)),
        )
        for name, target in targets.items()
    }
