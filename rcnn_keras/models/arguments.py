"""The rules for a model's arguments, looked at together before anything is built.

One table a class, from an argument's name to its rule; a test holds that none is left out.
"""

import difflib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

import keras

from rcnn_keras.backbones.applications import APPLICATIONS, SOURCES
from rcnn_keras.backbones.backbone import (
    APPLICATION_NAMES,
    LITES,
    MOBILENET,
    NAMES,
    nearest_name,
    network_of,
    num_stages,
)
from rcnn_keras.backbones.crop_networks import CHANNELS, CROP_SIZES, SMALLEST_CROP
from rcnn_keras.backbones.resnet import NETWORKS, width_rule
from rcnn_keras.data.image_rule import RESIZE_MODES
from rcnn_keras.data.keypoints import COCO_PERSON, Skeleton, numbered_skeleton
from rcnn_keras.data.resampling import RESIZINGS
from rcnn_keras.data.value_range import VALUE_RANGE_RULE, is_value_range
from rcnn_keras.layers.keypoint_head import LAYERS, SCORES
from rcnn_keras.layers.normalization import KINDS
from rcnn_keras.layers.rpn_head import OBJECTNESS
from rcnn_keras.models.errors import check_building
from rcnn_keras.preset_table import PRESETS
from rcnn_keras.utils.environment import check_settings

SINGLE_MAP_SIZES = ((128, 256, 512),)

MOBILENET_SIZES = ((32, 64, 128, 256, 512),) * 3

ANCHOR_SCALE = 8  # side of a pyramid's anchors in positions: 32 pixels at stride 4

VGG_UNITS = 4096  # of the fc6 and fc7 that ImageNet weights bring

# What a layer of the user's own makes unread, and its default; so does RoIPool.
UNREAD: dict[str, dict[str, Any]] = {
    "anchor_generator": {
        "anchor_sizes": None,
        "aspect_ratios": (0.5, 1.0, 2.0),
        "anchor_rounding": True,
    },
    "rpn_head": {"rpn_convs": 1, "rpn_objectness": "sigmoid"},
    "box_head": {"box_units": None, "box_convs": 0, "box_ranks": None},
    "keypoint_head": {"keypoint_layers": LAYERS},
    "roi_pooling": {"roi_aligned": False, "roi_sampling_ratio": 2},
}

WEIGHTS = ("imagenet", *(name for name, preset in PRESETS.items() if not preset.num_classes))

WEIGHT_FILES = (".pth", ".pt", ".safetensors")

Rule = tuple[Callable[[Any], bool], str]
Rules = Mapping[str, Rule]


def check_arguments(config: Mapping[str, Any], rules: Rules | None = None) -> None:
    """Check a model's arguments, by name.

    Args:
        config: all arguments of the constructor but the name.
        rules: the table of the class, default `FASTER_RCNN`.

    Raises:
        ValueError: with a line for each argument that cannot be used, and its value.
        SettingsError: for settings of Keras with which no model works.
        RuntimeError: in a fork of a process that has built a model.
    """
    check_settings()  # they may have changed since the package was imported
    check_building()
    errors = argument_errors(config, rules)
    if errors:
        lines = (f"{name} {rule}; received {config.get(name)!r}" for name, rule in errors.items())
        raise ValueError("\n".join(lines))


def argument_errors(config: Mapping[str, Any], rules: Rules | None = None) -> dict[str, str]:
    """Return the name of each argument that cannot be used, and the rule it breaks."""
    rules = FASTER_RCNN if rules is None else rules
    errors = {
        name: rule
        for name, (holds, rule) in rules.items()
        if name in config and not holds(config[name])
    }
    if "backbone" in errors and rules is not RCNN and rules is not MATTERPORT:
        errors["backbone"] = nearest_name(config["backbone"])
    if "backbone_weights" in errors:
        near = difflib.get_close_matches(str(config["backbone_weights"]), WEIGHTS, 1)
        errors["backbone_weights"] += f" (did you mean {near[0]!r}?)" if near else ""
    sound = {name: value for name, value in config.items() if name not in errors}
    between = _rcnn_errors_between if rules is RCNN else _errors_between
    more = _class_errors(sound) | _keypoint_errors(sound) | _cascade_errors(sound)
    return between(sound) | more | errors


def numbered_classes(count: int) -> tuple[str, ...]:
    """Return the names of classes of which only the number is known."""
    return tuple(f"class_{number}" for number in range(count))


def name_classes(config: dict[str, Any]) -> None:
    """Fill in `classes` where only `num_classes` is given, which they then stand for."""
    if not config["classes"]:
        config["classes"] = numbered_classes(config["num_classes"])
    config["num_classes"] = None


def unread_arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that others of a configuration make unread, and their defaults.

    The RoIAlign of masks and keypoints has its options whatever layer pools for boxes.
    """
    unread: dict[str, Any] = {}
    for argument, names in UNREAD.items():
        replaced = config.get(argument) not in (None, "align")
        masks = "mask_head" in config and config.get("masks", True)
        if replaced and not (argument == "roi_pooling" and (masks or "keypoint_head" in config)):
            unread |= {name: default for name, default in names.items() if name in config}
    return unread


def default_anchor_sizes(
    backbone: str | keras.Model, strides: Sequence[int]
) -> tuple[tuple[int, ...], ...]:
    """Return the sizes of the anchors on each level of a backbone, in pixels.

    Torchvision's of its backbones, the paper's of a single map, and of others for each level the
    multiple of the stride that torchvision's pyramid has.
    """
    if isinstance(backbone, str) and backbone == MOBILENET:
        return MOBILENET_SIZES
    if len(strides) == 1:
        return SINGLE_MAP_SIZES
    return tuple((ANCHOR_SCALE * stride,) for stride in strides)


def _num_levels(backbone: str) -> int:
    """Return how many levels the RPN of a detector on a named backbone has."""
    if not backbone.endswith("_fpn"):
        return 1
    if backbone == MOBILENET:
        return len(MOBILENET_SIZES)
    network = APPLICATIONS.get(backbone.removesuffix("_fpn"))
    return (len(network.strides) if network else 4) + 1


def _class_errors(sound: Mapping[str, Any]) -> dict[str, str]:
    classes, number = sound.get("classes", ()), sound.get("num_classes")
    if "classes" not in sound or "num_classes" not in sound:
        return {}
    if not classes and number is None:
        return {"classes": "must be a list of different names, or num_classes their number"}
    if classes and number not in (None, len(classes)):
        return {"num_classes": f"must be None or the number of classes, {len(classes)}"}
    return {}


def _cascade_errors(sound: Mapping[str, Any]) -> dict[str, str]:
    """Return the errors of a cascade's arguments that do not fit each other."""
    errors = {}
    thresholds, weights = "cascade_fg_iou_thresh", "cascade_bbox_reg_weights"
    if thresholds in sound and weights in sound and len(sound[thresholds]) != len(sound[weights]):
        stages = len(sound[thresholds])
        errors[weights] = f"must be four numbers for each of {stages} stages, as {thresholds} has"
    if sound.get("mask_head") is not None and sound.get("masks") is False:
        errors["mask_head"] = "must be None without masks=True"
    return errors


def _keypoint_errors(sound: Mapping[str, Any]) -> dict[str, str]:
    """Return the errors of keypoints that do not fit each other."""
    needed = ("num_keypoints", "keypoint_names", "keypoint_flip_pairs", "keypoint_edges")
    if not all(name in sound for name in needed):
        return {}
    count, names, pairs, edges = (sound[name] for name in needed)
    if names is not None and count not in (None, len(names)):
        return {"num_keypoints": f"must be None or the number of keypoint_names, {len(names)}"}
    names = names or numbered_skeleton(count or len(COCO_PERSON)).names
    errors = {}
    for name, field, value in (
        ("keypoint_flip_pairs", "flip_pairs", pairs),
        ("keypoint_edges", "edges", edges),
    ):
        try:
            Skeleton(tuple(names), **{field: value or ()})
        except ValueError as error:
            errors[name] = str(error).removeprefix(f"{field} ")
    return errors


def _errors_between(sound: Mapping[str, Any]) -> dict[str, str]:
    """Return the errors of arguments that do not fit others; those wrong alone are left out."""
    errors = {}
    for low, high in (
        ("min_size", "max_size"),
        ("rpn_bg_iou_thresh", "rpn_fg_iou_thresh"),
        ("box_bg_iou_thresh", "box_fg_iou_thresh"),
        ("box_bg_iou_low_thresh", "box_bg_iou_thresh"),
    ):
        if low in sound and high in sound and _greatest(sound[low]) > sound[high]:
            errors[low] = f"must be at most {high}={sound[high]!r}"
    for name, default in unread_arguments(sound).items():
        value = sound[name]
        if (tuple(value) if isinstance(value, list) else value) != default:
            argument = next(argument for argument, names in UNREAD.items() if name in names)
            errors[name] = f"must be {default!r} with this {argument}, which does not read it"
    if sound.get("resizing") == "detectron2" and sound.get("antialias"):
        errors["antialias"] = "must be False with resizing='detectron2', which always averages"
    if sound.get("resize_mode") == "square" and sound.get("max_dim", 0) % 64:
        errors["max_dim"] = "must be a multiple of 64, as the maps are halved six times"
    if "backbone" not in sound:
        return errors
    backbone = sound["backbone"]
    if not isinstance(backbone, str):
        return errors | _model_errors(sound)
    if backbone in NAMES:
        errors |= _builtin_errors(backbone, sound)
    else:
        errors |= _errors_of_others(sound, backbone)
    for name in ("frozen_stages", "recompute_stages"):
        if (sound.get(name) or 0) > num_stages(backbone):
            errors[name] = f"must be at most {num_stages(backbone)} for {backbone}"
    pyramid = backbone.endswith("_fpn")
    if sound.get("feature_pyramid") not in (None, pyramid):
        errors["feature_pyramid"] = f"must be None or {pyramid} for {backbone}: the name says it"
    if pyramid and sound.get("roi_pooling") == "pool":
        errors["roi_pooling"] = f"must be 'align' for {backbone}: RoIPool reads one map"
    levels, sizes = _num_levels(backbone), sound.get("anchor_sizes")
    if sizes is not None and len(sizes) != levels:
        errors.setdefault(
            "anchor_sizes", f"must have {levels} level{'s'[: levels > 1]} for {backbone}"
        )
    elif sizes is not None and len(set(map(len, sizes))) > 1 and sound.get("rpn_head") is None:
        errors["anchor_sizes"] = "must have as many sizes on every level, unless rpn_head is given"
    return errors


def _builtin_errors(backbone: str, sound: Mapping[str, Any]) -> dict[str, str]:
    """Return the errors of a network of this package."""
    errors = {}
    network = network_of(backbone)
    is_resnet = network in NETWORKS
    if "resize_mode" in sound:  # matterport's has these two whatever is said
        sound = {"stride_in_1x1": True, **sound}
    if sound.get("box_ranks") and backbone == network and is_resnet:
        errors["box_ranks"] = f"must be None for {backbone}, whose head has no dense layers"
    if (backbone == MOBILENET or network in LITES) and sound.get("norm") == "group":
        errors["norm"] = f"must not be 'group' for {network}: its channels do not divide by 32"
    if network not in LITES and sound.get("stochastic_depth"):
        errors["stochastic_depth"] = f"must be 0 for {backbone}: only EfficientNet-Lite has it"
    width = sound.get("backbone_width", 1.0)
    if width != 1 and not is_resnet:
        errors["backbone_width"] = f"must be 1 for {backbone}: only a ResNet has a width"
    elif rule := width_rule(width, sound.get("norm"), NETWORKS.get(network, (0, 1, 64))[2]):
        errors["backbone_width"] = rule
    weights = sound.get("backbone_weights")
    needs = _imagenet_needs if weights == "imagenet" else _file_needs
    if weights is not None and (missing := needs(network, sound)):
        errors["backbone_weights"] = f"needs {missing}"
    return errors


def _errors_of_others(sound: Mapping[str, Any], what: str) -> dict[str, str]:
    """Return the errors of a backbone that is not of this package."""
    errors = {}
    if sound.get("norm", "batch") not in ("batch", "frozen_batch"):
        errors["norm"] = f"must be 'batch' or 'frozen_batch' for {what}, which keeps its own layers"
    if sound.get("backbone_width", 1.0) != 1:
        errors["backbone_width"] = f"must be 1 for {what}: only a ResNet of this package has it"
    if sound.get("stride_in_1x1"):
        errors["stride_in_1x1"] = f"must be False for {what}: only a ResNet of this package has it"
    if sound.get("stochastic_depth"):
        errors["stochastic_depth"] = f"must be 0 for {what}: only EfficientNet-Lite has it"
    if sound.get("backbone_weights") not in (None, "imagenet"):
        errors["backbone_weights"] = f"must be None or 'imagenet' for {what}"
    return errors


def _model_errors(sound: Mapping[str, Any]) -> dict[str, str]:
    errors = _errors_of_others(sound, "a keras.Model")
    if sound.get("backbone_weights") is not None:
        errors["backbone_weights"] = "must be None for a keras.Model, which brings its weights"
    return errors


def _imagenet_needs(network: str, config: Mapping[str, Any]) -> str | None:
    """Return what ImageNet weights need that the other arguments do not give."""
    if network not in (*SOURCES, *LITES):
        near = f"{network}_imagenet"
        other = f" Torchvision has: backbone_weights={near!r}" if near in PRESETS else ""
        return (
            f"a backbone of {', '.join((*SOURCES, *LITES))}, with or without _fpn: "
            f"keras.applications has no {network}.{other}"
        )
    if network == "vgg16":
        units = config.get("box_units")
        if units in (None, VGG_UNITS):
            return None
        return f"box_units={VGG_UNITS}, as VGG-16's fc6 and fc7 have, not box_units={units!r}"
    if (missing := _batch_norm_needs(config)) or network in LITES:
        return missing
    if not config.get("stride_in_1x1"):
        return (
            "stride_in_1x1=True: keras.applications' ResNets halve the map in the first 1x1 "
            "convolution"
        )
    return None


def _file_needs(network: str, config: Mapping[str, Any]) -> str | None:
    """Return what a file of ImageNet weights needs that the other arguments do not give."""
    weights = config["backbone_weights"]
    if network in LITES and weights not in PRESETS:
        return _batch_norm_needs(config)
    if weights in PRESETS and PRESETS[weights].network != network:
        return f"a backbone {PRESETS[weights].network}, not {network}"
    if network not in {preset.network for preset in PRESETS.values()}:
        return f"a backbone that torchvision has: a ResNet or MobileNetV3, not {network}"
    if config.get("stride_in_1x1"):
        return "stride_in_1x1=False: torchvision's ResNets halve the map in the 3x3 convolution"
    return _batch_norm_needs(config)


def _batch_norm_needs(config: Mapping[str, Any]) -> str | None:
    if config.get("norm") in ("group", None):
        norm = config.get("norm")
        return f"norm='batch' or 'frozen_batch', with which they were trained, not norm={norm!r}"
    if config.get("backbone_width") != 1:
        return f"backbone_width=1, with which they were trained, not {config['backbone_width']!r}"
    return None


def _rcnn_errors_between(sound: Mapping[str, Any]) -> dict[str, str]:
    """Return the errors of R-CNN's arguments that do not fit others."""
    errors: dict[str, str] = {}
    backbone, crop_size = sound.get("backbone"), sound.get("crop_size")
    channels, weights = sound.get("channels"), sound.get("backbone_weights")
    if backbone == "vgg16":
        if crop_size not in (None, CROP_SIZES["vgg16"]):
            errors["crop_size"] = f"must be {CROP_SIZES['vgg16']} for vgg16"
        if channels is not None:
            errors["channels"] = "must be None for vgg16"
        if weights == "imagenet" and sound.get("units", VGG_UNITS) != VGG_UNITS:
            errors["units"] = f"must be {VGG_UNITS} for weights of ImageNet"
    elif backbone == "alexnet" and weights == "imagenet":
        errors["backbone_weights"] = (
            "must be None for alexnet: keras.applications has no weights for it"
        )
    side = crop_size or CROP_SIZES.get(str(backbone), SMALLEST_CROP)
    if "context" in sound and 2 * sound["context"] >= side:
        errors["context"] = f"must be a whole number from 0 to less than half of the crop, {side}"
    return errors


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _is_share(value: Any) -> bool:
    return _is_number(value) and 0 <= value <= 1


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(value, Integral) and int(value) >= 1


def _greatest(values: Any) -> Any:
    return max(values) if _is_list(values) else values


def _is_weights(value: Any) -> bool:
    """Return whether a value says which weights a backbone starts from."""
    if value is None or value in WEIGHTS:
        return True
    return isinstance(value, (str, os.PathLike)) and os.fspath(value).endswith(WEIGHT_FILES)


def _is_list(values: Any) -> bool:
    return isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0


def _are_names(values: Any) -> bool:
    return _is_list(values) and len(set(map(str, values))) == len(values)


def _are_positive(values: Any) -> bool:
    return _is_list(values) and all(_is_number(value) and value > 0 for value in values)


def _are_means(values: Any) -> bool:
    return _is_list(values) and all(_is_number(value) and 0 <= value <= 255 for value in values)


def _are_pairs(values: Any) -> bool:
    if not isinstance(values, (list, tuple)):
        return False
    return all(_is_list(pair) and len(pair) == 2 and all(map(_is_whole, pair)) for pair in values)


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_optional_bool(value: Any) -> bool:
    return value is None or isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    """Return whether a value is a whole number of at least 0."""
    return (value == 0 and not isinstance(value, bool)) or _is_count(value)


def _are_five_even(values: Any) -> bool:
    return (
        isinstance(values, (list, tuple))
        and len(values) == len(CHANNELS)
        and all(_is_count(n) and n % 2 == 0 for n in values)
    )


def _is_backbone(value: Any) -> bool:
    if isinstance(value, str):
        return value in NAMES or value in APPLICATION_NAMES
    return isinstance(value, keras.Model)


def _optional(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


def _one_of(*values: Any) -> Rule:
    return (lambda value: value in values, f"must be one of {', '.join(map(str, values))}")


COUNT: Rule = (_is_count, "must be a whole number of at least 1")
WHOLE: Rule = (_is_whole, "must be a whole number of at least 0")
AT_LEAST_2: Rule = (
    lambda value: _is_count(value) and value > 1,
    "must be a whole number of at least 2",
)
SHARE: Rule = (_is_share, "must be in 0..1")
BOOL: Rule = (_is_bool, "must be True or False")
OPTIONAL_BOOL: Rule = (_is_optional_bool, "must be None, True or False")
OPTIONAL_WHOLE: Rule = (
    _optional(_is_whole),
    "must be None or a whole number of at least 0",
)
OPTIONAL_COUNT: Rule = (_optional(_is_count), "must be None or a whole number of at least 1")
BETA: Rule = (
    lambda value: _is_number(value) and value >= 0,
    "must be a number of at least 0",
)
NORM: Rule = _one_of(*KINDS)
LAYER: Rule = (
    _optional(lambda value: isinstance(value, keras.layers.Layer)),
    "must be None or a Keras layer",
)

DETECTOR: dict[str, Rule] = {  # of all four
    "classes": (
        lambda value: value is None or value == () or (_is_list(value) and _are_names(value)),
        "must be a list of different names",
    ),
    "num_classes": OPTIONAL_COUNT,
    "backbone_weights": (
        _is_weights,
        "must be None, 'imagenet', the name of a backbone's preset, or the path of a .pth or "
        ".safetensors file",
    ),
    "box_score_thresh": SHARE,
    "box_nms_thresh": SHARE,
    "box_detections_per_img": COUNT,
    "image_mean": (
        lambda mean: mean is None or (_are_means(mean) and len(mean) == 3),
        "must be None or three numbers in 0..255",
    ),
    "image_std": (
        lambda std: std is None or (_are_positive(std) and len(std) == 3),
        "must be None or three numbers above 0",
    ),
    "value_range": (is_value_range, VALUE_RANGE_RULE),
    "kernels": (
        lambda value: value in ("native", "portable"),
        "must be 'native' or 'portable'",
    ),
}

TWO_STAGE: dict[str, Rule] = DETECTOR | {  # of all but R-CNN
    "backbone": (_is_backbone, "must be a name or a keras.Model"),
    "min_size": (
        lambda size: _is_count(size) or (_is_list(size) and all(map(_is_count, size))),
        "must be a whole number of at least 1, or a list of them",
    ),
    "max_size": COUNT,
    "norm": NORM,
    "backbone_width": (
        lambda value: _is_number(value) and value > 0,
        "must be a number above 0",
    ),
    "stride_in_1x1": BOOL,
    "stochastic_depth": (
        lambda value: _is_share(value) and value < 1,
        "must be at least 0 and less than 1",
    ),
    "frozen_stages": OPTIONAL_WHOLE,
    "recompute_stages": OPTIONAL_WHOLE,
    "feature_pyramid": OPTIONAL_BOOL,
    "fpn_channels": COUNT,
    "head_norm": NORM,
    "roi_aligned": BOOL,
    "roi_sampling_ratio": (
        _is_whole,
        "must be a whole number of at least 0, which takes as many as the RoI has positions",
    ),
    "box_head": LAYER,
    "box_units": OPTIONAL_COUNT,
    "box_fg_iou_thresh": SHARE,
    "box_bg_iou_thresh": SHARE,
    "box_batch_size_per_image": COUNT,
    "box_positive_fraction": SHARE,
    "bbox_reg_weights": (
        lambda weights: _are_positive(weights) and len(weights) == 4,
        "must be four numbers above 0",
    ),
    "box_smooth_l1_beta": BETA,
    "antialias": BOOL,
    "size_divisor": OPTIONAL_COUNT,
    "seed": (lambda value: _is_whole(value), "must be a whole number of at least 0"),
}

FASTER_RCNN: dict[str, Rule] = TWO_STAGE | {
    "anchor_sizes": (
        lambda levels: levels is None or (_is_list(levels) and all(map(_are_positive, levels))),
        "must be None, or for each level a list of sizes above 0",
    ),
    "aspect_ratios": (_are_positive, "must be one or more numbers above 0"),
    "anchor_rounding": BOOL,
    "anchor_generator": LAYER,
    "rpn_head": LAYER,
    "rpn_pre_nms_top_n_train": COUNT,
    "rpn_pre_nms_top_n_test": COUNT,
    "rpn_post_nms_top_n_train": COUNT,
    "rpn_post_nms_top_n_test": COUNT,
    "rpn_nms_thresh": SHARE,
    "rpn_fg_iou_thresh": SHARE,
    "rpn_bg_iou_thresh": SHARE,
    "rpn_batch_size_per_image": COUNT,
    "rpn_positive_fraction": SHARE,
    "rpn_score_thresh": SHARE,
    "rpn_convs": COUNT,
    "rpn_objectness": _one_of(*OBJECTNESS),
    "rpn_ignore_border": OPTIONAL_BOOL,
    "rpn_smooth_l1_beta": BETA,
    "resizing": _one_of(*RESIZINGS),
    "roi_pooling": LAYER,
    "box_convs": WHOLE,
    "winograd": BOOL,
}

MASK_RCNN: dict[str, Rule] = FASTER_RCNN | {"mask_head": LAYER}

OF_ONE_STAGE = ("box_head", "box_fg_iou_thresh", "box_bg_iou_thresh", "bbox_reg_weights")

CASCADE_RCNN: dict[str, Rule] = {
    name: rule for name, rule in MASK_RCNN.items() if name not in OF_ONE_STAGE
} | {
    "masks": BOOL,
    "cascade_fg_iou_thresh": (
        lambda values: _is_list(values) and all(map(_is_share, values)),
        "must be one or more numbers in 0..1, one a stage",
    ),
    "cascade_bbox_reg_weights": (
        lambda stages: _is_list(stages) and all(_are_positive(w) and len(w) == 4 for w in stages),
        "must be four numbers above 0 for each stage",
    ),
}

MATTERPORT: dict[str, Rule] = {
    name: FASTER_RCNN[name]
    for name in (
        *("classes", "num_classes", "value_range", "kernels", "seed"),
        *("backbone_width", "frozen_stages", "recompute_stages", "fpn_channels", "aspect_ratios"),
        *("rpn_post_nms_top_n_train", "rpn_post_nms_top_n_test", "rpn_nms_thresh"),
        *("rpn_fg_iou_thresh", "rpn_bg_iou_thresh", "rpn_batch_size_per_image"),
        *("rpn_positive_fraction", "box_score_thresh", "box_nms_thresh", "box_detections_per_img"),
        *("box_fg_iou_thresh", "box_bg_iou_thresh", "box_batch_size_per_image"),
        *("box_positive_fraction", "bbox_reg_weights"),
    )
} | {
    "backbone": _one_of("resnet50_fpn", "resnet101_fpn"),
    "backbone_weights": (lambda value: value in (None, "imagenet"), "must be None or 'imagenet'"),
    "resize_mode": _one_of(*RESIZE_MODES),
    "min_dim": COUNT,
    "max_dim": COUNT,
    "min_scale": (
        lambda value: _is_number(value) and value >= 0,
        "must be a number of at least 0",
    ),
    "norm": _one_of("frozen_batch", "batch", None),
    "anchor_sizes": (
        lambda levels: _is_list(levels) and all(_are_positive(x) and len(x) == 1 for x in levels),
        "must be a list of one size above 0 for each level",
    ),
    "anchor_stride": COUNT,
    "rpn_channels": COUNT,
    "rpn_pre_nms_top_n": COUNT,
    "rpn_reg_weights": TWO_STAGE["bbox_reg_weights"],
    "pooled_size": AT_LEAST_2,
    "mask_pooled_size": AT_LEAST_2,
    "box_units": COUNT,
    "image_mean": (
        lambda mean: _are_means(mean) and len(mean) == 3,
        "must be three numbers in 0..255",
    ),
}

PAIRS: Rule = (
    _optional(_are_pairs),
    "must be None or pairs of numbers of keypoints, from 0",
)

KEYPOINT_RCNN: dict[str, Rule] = FASTER_RCNN | {
    "num_keypoints": OPTIONAL_COUNT,
    "keypoint_names": (
        _optional(_are_names),
        "must be None or a list of different names",
    ),
    "keypoint_flip_pairs": PAIRS,
    "keypoint_edges": PAIRS,
    "keypoint_layers": (
        lambda channels: _is_list(channels) and all(map(_is_count, channels)),
        "must be one or more whole numbers of at least 1",
    ),
    "keypoint_scores": _one_of(*SCORES),
    "keypoint_head": LAYER,
}

FAST_RCNN: dict[str, Rule] = TWO_STAGE | {
    "roi_pooling": (
        lambda value: value in ("pool", "align") or isinstance(value, keras.layers.Layer),
        "must be 'pool' or 'align', or a Keras layer",
    ),
    "box_ranks": (
        lambda ranks: (
            ranks is None or (_is_list(ranks) and len(ranks) == 2 and all(map(_is_count, ranks)))
        ),
        "must be None or two whole numbers of at least 1",
    ),
    "box_bg_iou_low_thresh": SHARE,
}

RCNN: dict[str, Rule] = DETECTOR | {
    "backbone_weights": (lambda value: value in (None, "imagenet"), "must be None or 'imagenet'"),
    "backbone": _one_of(*CROP_SIZES),
    "crop_size": (
        lambda value: value is None or (_is_whole(value) and value >= SMALLEST_CROP),
        f"must be a whole number of at least {SMALLEST_CROP} for alexnet",
    ),
    "context": (_is_whole, "must be a whole number from 0 to less than half of the crop"),
    "channels": (
        _optional(_are_five_even),
        f"must be {len(CHANNELS)} even whole numbers above 0",
    ),
    "units": COUNT,
    "classifier": (lambda value: value in ("svm", "softmax"), "must be 'svm' or 'softmax'"),
    "box_regression": BOOL,
}
