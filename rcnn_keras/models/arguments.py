"""The rules for a model's arguments, looked at together before anything is built."""

import difflib
import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from rcnn_keras.backbones.backbone import MOBILENET, NAMES, stages_of
from rcnn_keras.backbones.crop_networks import CHANNELS, CROP_SIZES, SMALLEST_CROP
from rcnn_keras.backbones.imagenet import SOURCES
from rcnn_keras.backbones.resnet import width_rule
from rcnn_keras.data.value_range import VALUE_RANGE_RULE, is_value_range
from rcnn_keras.layers.normalization import KINDS
from rcnn_keras.layers.rpn_head import OBJECTNESS
from rcnn_keras.utils.environment import check_settings

PYRAMID_SIZES = ((32,), (64,), (128,), (256,), (512,))

SINGLE_MAP_SIZES = ((128, 256, 512),)

MOBILENET_SIZES = ((32, 64, 128, 256, 512),) * 3

VGG_UNITS = 4096  # of the fc6 and fc7 that ImageNet weights bring


def check_arguments(config: Mapping[str, Any]) -> None:
    """Check a model's arguments, by name.

    Raises:
        ValueError: with a line for each argument that cannot be used, and its value.
        SettingsError: for settings of Keras with which no model works.
    """
    check_settings()  # they may have changed since the package was imported
    errors = argument_errors(config)
    if errors:
        lines = (f"{name} {rule}; received {config[name]!r}" for name, rule in errors.items())
        raise ValueError("\n".join(lines))


def argument_errors(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the name of each argument that cannot be used, and the rule it breaks."""
    errors = {}
    for suffixes, (holds, rule) in RULES.items():
        for name, value in config.items():
            if name.endswith(suffixes) and not holds(value):
                errors[name] = rule
    return _errors_between(config, errors) | errors


def default_anchor_sizes(backbone: str) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of the anchors on each level of a backbone, in pixels, as torchvision's."""
    if backbone == MOBILENET:
        return MOBILENET_SIZES
    return PYRAMID_SIZES if backbone.endswith("_fpn") else SINGLE_MAP_SIZES


def _errors_between(config: Mapping[str, Any], alone: Mapping[str, str]) -> dict[str, str]:
    """Return the errors of arguments that do not fit others; those wrong `alone` are left out."""
    errors = {}
    sound = {name: value for name, value in config.items() if name not in alone}
    for low, high in (
        ("min_size", "max_size"),
        ("rpn_bg_iou_thresh", "rpn_fg_iou_thresh"),
        ("box_bg_iou_thresh", "box_fg_iou_thresh"),
        ("box_bg_iou_low_thresh", "box_bg_iou_thresh"),
    ):
        if low in sound and high in sound and _greatest(sound[low]) > sound[high]:
            errors[low] = f"must be at most {high}={sound[high]!r}"
    backbone = config["backbone"]
    if backbone not in NAMES:
        near = difflib.get_close_matches(str(backbone), NAMES, 1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return errors | {"backbone": f"must be one of {', '.join(NAMES)}{hint}"}
    for name in ("frozen_stages", "recompute_stages"):
        if sound.get(name, 0) > len(stages_of(backbone)):
            errors[name] = f"must be at most {len(stages_of(backbone))} for {backbone}"
    if backbone.endswith("_fpn") and sound.get("roi_pooling") == "pool":
        errors["roi_pooling"] = f"must be 'align' for {backbone}: RoIPool reads one map"
    if sound.get("box_ranks") and not backbone.endswith("_fpn") and backbone.startswith("resnet"):
        errors["box_ranks"] = f"must be None for {backbone}, whose head has no dense layers"
    levels = len(default_anchor_sizes(backbone))
    sizes = sound.get("anchor_sizes")
    if sizes is not None and (len(sizes) != levels or len(set(map(len, sizes))) > 1):
        errors["anchor_sizes"] = (
            f"must have {levels} level{'s'[: levels > 1]} for {backbone}, each a list of as many "
            f"sizes"
        )
    if backbone == MOBILENET and config["norm"] == "group":
        errors["norm"] = "must not be 'group' for MobileNetV3: its channels do not divide by 32"
    width = sound.get("backbone_width", 1.0)
    if width != 1 and not backbone.startswith("resnet"):
        errors["backbone_width"] = f"must be 1 for {backbone}: only a ResNet has a width"
    elif rule := width_rule(width, config["norm"]):
        errors["backbone_width"] = rule
    if config["backbone_weights"] == "imagenet":
        missing = _imagenet_needs(backbone.removesuffix("_fpn"), config)
        if missing:
            errors["backbone_weights"] = f"needs {missing}"
    return errors


def _imagenet_needs(network: str, config: Mapping[str, Any]) -> str | None:
    """Return what the weights of keras.applications need that the other arguments do not give."""
    if network not in SOURCES:
        return f"a backbone of {', '.join(SOURCES)}: keras.applications has no {network}"
    if network == "vgg16":
        units = config["box_units"]
        if units in (None, VGG_UNITS):
            return None
        return f"box_units={VGG_UNITS}, as VGG-16's fc6 and fc7 have, not box_units={units!r}"
    if config["norm"] in ("group", None):
        norm = config["norm"]
        return f"norm='batch' or 'frozen_batch', with which they were trained, not norm={norm!r}"
    if config["backbone_width"] != 1:
        return f"backbone_width=1, with which they were trained, not {config['backbone_width']!r}"
    if not config["stride_in_1x1"]:
        return (
            "stride_in_1x1=True: keras.applications' ResNets halve the map in the first 1x1 "
            "convolution"
        )
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, Integral) and int(value) >= 1


def _greatest(values: Any) -> Any:
    return max(values) if _is_list(values) else values


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0


def _are_names(values: Any) -> bool:
    return _is_list(values) and len(set(map(str, values))) == len(values)


def _are_positive(values: Any) -> bool:
    return _is_list(values) and all(_is_number(value) and value > 0 for value in values)


def _are_means(values: Any) -> bool:
    return _is_list(values) and all(_is_number(value) and 0 <= value <= 255 for value in values)


Rule = tuple[Callable[[Any], bool], str]

RULES: dict[tuple[str, ...], Rule] = {  # by the ends of the arguments' names
    ("classes",): (_are_names, "must be a list of different names"),
    ("norm", "head_norm"): (
        lambda value: value in KINDS,
        f"must be one of {', '.join(map(str, KINDS))}",
    ),
    ("backbone_weights",): (
        lambda value: value in (None, "imagenet"),
        "must be None or 'imagenet'",
    ),
    ("_width",): (
        lambda value: _is_number(value) and value > 0,
        "must be a number above 0",
    ),
    ("rpn_objectness",): (
        lambda value: value in OBJECTNESS,
        f"must be one of {', '.join(OBJECTNESS)}",
    ),
    ("_thresh", "_fraction"): (_is_share, "must be in 0..1"),
    ("box_convs", "frozen_stages", "recompute_stages"): (
        lambda value: value == 0 or _is_count(value),
        "must be a whole number of at least 0",
    ),
    ("min_size",): (
        lambda size: _is_count(size) or (_is_list(size) and all(map(_is_count, size))),
        "must be a whole number of at least 1, or a list of them",
    ),
    ("max_size", "_per_image", "_per_img", "_channels", "_train", "_test", "rpn_convs"): (
        _is_count,
        "must be a whole number of at least 1",
    ),
    ("box_units",): (
        lambda value: value is None or _is_count(value),
        "must be None or a whole number of at least 1",
    ),
    ("value_range",): (is_value_range, VALUE_RANGE_RULE),
    ("kernels",): (
        lambda value: value in ("native", "portable"),
        "must be 'native' or 'portable'",
    ),
    ("roi_pooling",): (lambda value: value in ("pool", "align"), "must be 'pool' or 'align'"),
    ("box_ranks",): (
        lambda ranks: (
            ranks is None or (_is_list(ranks) and len(ranks) == 2 and all(map(_is_count, ranks)))
        ),
        "must be None or two whole numbers of at least 1",
    ),
    ("anchor_sizes",): (
        lambda levels: levels is None or (_is_list(levels) and all(map(_are_positive, levels))),
        "must be None, or for each level a list of sizes above 0",
    ),
    ("aspect_ratios",): (
        _are_positive,
        "must be one or more numbers above 0",
    ),
    ("bbox_reg_weights",): (
        lambda weights: _are_positive(weights) and len(weights) == 4,
        "must be four numbers above 0",
    ),
    ("image_mean",): (
        lambda mean: mean is None or (_are_means(mean) and len(mean) == 3),
        "must be None or three numbers in 0..255",
    ),
    ("image_std",): (
        lambda std: std is None or (_are_positive(std) and len(std) == 3),
        "must be None or three numbers above 0",
    ),
}


IMAGENET_UNITS = 4096  # of the fc6 and fc7 that ImageNet weights bring


def check_rcnn_arguments(config: Mapping[str, Any]) -> None:
    """Check the arguments of `RCNN`, by name.

    Raises:
        ValueError: with a line for each argument that cannot be used, and its value.
        SettingsError: for settings of Keras with which no model works.
    """
    check_settings()  # they may have changed since the package was imported
    errors = rcnn_argument_errors(config)
    if errors:
        lines = (f"{name} {rule}; received {config[name]!r}" for name, rule in errors.items())
        raise ValueError("\n".join(lines))


def rcnn_argument_errors(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the name of each argument of `RCNN` that cannot be used, and the rule it breaks."""
    errors = {}
    for suffixes, (holds, rule) in RULES.items():
        for name, value in config.items():
            if name.endswith(suffixes) and not holds(value):
                errors[name] = rule
    backbone, crop_size, channels = (config[k] for k in ("backbone", "crop_size", "channels"))
    if backbone not in CROP_SIZES:
        errors["backbone"] = f"must be one of {', '.join(CROP_SIZES)}"
    elif backbone == "vgg16":
        if crop_size not in (None, CROP_SIZES["vgg16"]):
            errors["crop_size"] = f"must be {CROP_SIZES['vgg16']} for vgg16"
        if channels is not None:
            errors["channels"] = "must be None for vgg16"
    else:
        if crop_size is not None and not (_is_whole(crop_size) and crop_size >= SMALLEST_CROP):
            errors["crop_size"] = f"must be a whole number of at least {SMALLEST_CROP} for alexnet"
        if channels is not None and not _are_five_even(channels):
            errors["channels"] = f"must be {len(CHANNELS)} even whole numbers above 0"
        if config["backbone_weights"] == "imagenet":
            errors["backbone_weights"] = (
                "must be None for alexnet: keras.applications has no weights for it"
            )
    if not _is_whole(config["units"]) or config["units"] < 1:
        errors["units"] = "must be a whole number of at least 1"
    elif config["backbone_weights"] == "imagenet" and config["units"] != IMAGENET_UNITS:
        errors["units"] = f"must be {IMAGENET_UNITS} for weights of ImageNet"
    side = crop_size or CROP_SIZES.get(backbone, SMALLEST_CROP)
    context = config["context"]
    if not _is_whole(context) or context < 0 or (_is_whole(side) and 2 * context >= side):
        errors["context"] = f"must be a whole number from 0 to less than half of the crop, {side}"
    if config["classifier"] not in ("svm", "softmax"):
        errors["classifier"] = "must be 'svm' or 'softmax'"
    return errors


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _are_five_even(values: Any) -> bool:
    return (
        isinstance(values, (list, tuple))
        and len(values) == len(CHANNELS)
        and all(_is_whole(n) and n > 0 and n % 2 == 0 for n in values)
    )
