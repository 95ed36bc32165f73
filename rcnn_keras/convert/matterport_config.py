"""The settings of matterport/Mask_RCNN: what each changes here, and which have no say."""

import difflib
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

BACKBONE_STRIDES = [4, 8, 16, 32, 64]

Followed = tuple[str, Callable[[Any], Any]]


def _plain(value: Any) -> Any:
    """Return numbers and lists of numpy as Python's, lists as tuples."""
    value = value.tolist() if hasattr(value, "tolist") else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _inverse(values: Any) -> Any:
    """Return factors of deltas `(dx, dy, dw, dh)` from deviations of `(dy, dx, dh, dw)`."""
    y, x, h, w = _plain(values)
    return tuple(1.0 / value for value in (x, y, w, h))


FOLLOWED: dict[str, Followed] = {  # the argument of `MatterportMaskRCNN`, and its value
    "IMAGE_RESIZE_MODE": ("resize_mode", _plain),
    "IMAGE_MIN_DIM": ("min_dim", lambda value: _plain(value) or 1),
    "IMAGE_MAX_DIM": ("max_dim", _plain),
    "IMAGE_MIN_SCALE": ("min_scale", lambda value: float(value or 0)),
    "MEAN_PIXEL": ("image_mean", _plain),
    "RPN_ANCHOR_SCALES": ("anchor_sizes", lambda value: tuple((x,) for x in _plain(value))),
    "RPN_ANCHOR_RATIOS": ("aspect_ratios", lambda value: tuple(1.0 / x for x in _plain(value))),
    "RPN_ANCHOR_STRIDE": ("anchor_stride", _plain),
    "RPN_NMS_THRESHOLD": ("rpn_nms_thresh", _plain),
    "RPN_BBOX_STD_DEV": ("rpn_reg_weights", _inverse),
    "RPN_TRAIN_ANCHORS_PER_IMAGE": ("rpn_batch_size_per_image", _plain),
    "PRE_NMS_LIMIT": ("rpn_pre_nms_top_n", _plain),
    "POST_NMS_ROIS_TRAINING": ("rpn_post_nms_top_n_train", _plain),
    "POST_NMS_ROIS_INFERENCE": ("rpn_post_nms_top_n_test", _plain),
    "TRAIN_ROIS_PER_IMAGE": ("box_batch_size_per_image", _plain),
    "ROI_POSITIVE_RATIO": ("box_positive_fraction", _plain),
    "MASK_POOL_SIZE": ("mask_pooled_size", _plain),
    "BBOX_STD_DEV": ("bbox_reg_weights", _inverse),
    "DETECTION_MAX_INSTANCES": ("box_detections_per_img", _plain),
    "DETECTION_MIN_CONFIDENCE": ("box_score_thresh", lambda value: _plain(value) or 0.0),
    "DETECTION_NMS_THRESHOLD": ("box_nms_thresh", _plain),
    "TRAIN_BN": ("norm", lambda value: "frozen_batch" if value is False else "batch"),
}

OF_FILE: dict[str, Followed] = {  # must say what the weights say
    "BACKBONE": ("backbone", lambda value: f"{value}_fpn"),
    "NUM_CLASSES": ("num_classes", lambda value: _plain(value) - 1),
    "TOP_DOWN_PYRAMID_SIZE": ("fpn_channels", _plain),
    "FPN_CLASSIF_FC_LAYERS_SIZE": ("box_units", _plain),
    "POOL_SIZE": ("pooled_size", _plain),
}

FIXED: dict[str, Any] = {  # the only value
    "BACKBONE_STRIDES": tuple(BACKBONE_STRIDES),
    "COMPUTE_BACKBONE_SHAPE": None,
    "IMAGE_CHANNEL_COUNT": 3,
    "IMAGE_PADDING": True,
}

OF_TRAINING = (  # and what follows from the others
    *("NAME", "GPU_COUNT", "IMAGES_PER_GPU", "BATCH_SIZE", "STEPS_PER_EPOCH", "VALIDATION_STEPS"),
    *("LEARNING_RATE", "LEARNING_MOMENTUM", "WEIGHT_DECAY", "GRADIENT_CLIP_NORM", "LOSS_WEIGHTS"),
    *("USE_MINI_MASK", "MINI_MASK_SHAPE", "MAX_GT_INSTANCES", "USE_RPN_ROIS"),
    *("IMAGE_SHAPE", "IMAGE_META_SIZE"),
)

KNOWN = (*FOLLOWED, *OF_FILE, *FIXED, "MASK_SHAPE", *OF_TRAINING)


def settings_of(config: Any) -> dict[str, Any]:
    """Return the settings of a mapping, or of a `Config`, class or instance, by their names.

    Raises:
        TypeError: for anything else.
    """
    if isinstance(config, Mapping):
        return dict(config)
    if not inspect.isclass(config) and type(config).__module__ == "builtins":
        raise TypeError(
            f"config must be a mapping or a Config, class or instance; received {config!r}"
        )
    names = [name for name in dir(config) if name.isupper()]
    return {name: getattr(config, name) for name in names}


def unknown_settings(settings: Mapping[str, Any]) -> list[str]:
    """Return a line for each setting that matterport's `Config` does not have."""
    lines = []
    for name in settings:
        if name not in KNOWN:
            near = difflib.get_close_matches(str(name).upper(), KNOWN, 1)
            lines.append(
                f"{name} is no setting of matterport's"
                + (f"; did you mean {near[0]}?" if near else "")
            )
    return lines


def arguments_of(config: Any, of_file: Mapping[str, Any], source: Any) -> dict[str, Any]:
    """Return the arguments of `MatterportMaskRCNN` that settings ask for.

    Args:
        config: a mapping, or a `Config`, class or instance.
        of_file: arguments that the weights decide, with `num_classes`.
        source: of the weights, for messages.

    Raises:
        TypeError: as `settings_of`.
        ValueError: with a line for each setting that is unknown, cannot be followed, or says
            another thing than the weights.
    """
    settings = settings_of(config)
    problems = unknown_settings(settings)
    arguments: dict[str, Any] = {}
    for name, value in settings.items():
        try:
            if name in FOLLOWED:
                argument, read = FOLLOWED[name]
                arguments[argument] = read(value)
            elif name in OF_FILE:
                problems += _against_file(name, value, of_file, source)
            elif name in FIXED and _plain(value) != FIXED[name]:
                problems.append(f"{name} must be {FIXED[name]!r} here; received {value!r}")
        except (TypeError, ValueError, ZeroDivisionError):
            problems.append(f"{name} cannot be {value!r}")
    if arguments.get("resize_mode") == "crop":
        problems.append(
            "IMAGE_RESIZE_MODE 'crop' is for training alone: detect with 'square', 'pad64' or "
            "'none'"
        )
    side = 2 * arguments.get("mask_pooled_size", 14)
    if "MASK_SHAPE" in settings and _plain(settings["MASK_SHAPE"]) != (side, side):
        problems.append(
            f"MASK_SHAPE must be {[side, side]}, twice MASK_POOL_SIZE; received "
            f"{settings['MASK_SHAPE']!r}"
        )
    if problems:
        raise ValueError("\n".join(problems))
    return arguments


def _against_file(name: str, value: Any, of_file: Mapping[str, Any], source: Any) -> list[str]:
    argument, read = OF_FILE[name]
    if callable(value) or (name == "NUM_CLASSES" and value == 1):  # the default of `Config`
        return [f"{name} must be a name here; received {value!r}"] if callable(value) else []
    if argument in of_file and read(value) != of_file[argument]:
        return [f"{name} is {value!r}, but {source} has {argument}={of_file[argument]!r}"]
    return []


@contextmanager
def in_their_words() -> Iterator[None]:
    """Name arguments that cannot be used by the settings that they came from, too."""
    names = {argument: name for name, (argument, _) in (FOLLOWED | OF_FILE).items()}
    try:
        yield
    except ValueError as error:
        lines = str(error).split("\n")
        named = [
            f"{names[word]}: {line}" if (word := line.split(" ")[0]) in names else line
            for line in lines
        ]
        raise ValueError("\n".join(named)) from None
