"""The rules for R-CNN's arguments, looked at together before anything is built."""

from collections.abc import Mapping
from typing import Any

from rcnn_keras.backbones.alexnet import CHANNELS
from rcnn_keras.backbones.crop_network import CROP_SIZES, SMALLEST_CROP
from rcnn_keras.models.arguments import RULES

IMAGENET_UNITS = 4096  # of the fc6 and fc7 that ImageNet weights bring


def check_rcnn_arguments(config: Mapping[str, Any]) -> None:
    """Check the arguments of `RCNN`, by name.

    Raises:
        ValueError: with a line for each argument that cannot be used, and its value.
    """
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
