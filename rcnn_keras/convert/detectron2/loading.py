"""Files of Detectron2, and the detectors that they hold."""

import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from rcnn_keras.convert.detectron2.architecture import (
    Architecture,
    architecture_by,
    architecture_of,
)
from rcnn_keras.convert.detectron2.caffe2 import (
    CLASSIFIER,
    renamed_from_caffe2,
    with_backbone_prefix,
    with_statistics,
)
from rcnn_keras.convert.detectron2.configuration import Configuration, read_configuration
from rcnn_keras.convert.detectron2.settings import (
    BASES,
    arguments_of,
    check_against,
    trained_otherwise,
)
from rcnn_keras.convert.detectron2.targets import (
    Targets,
    cascade_rcnn_targets,
    faster_rcnn_targets,
    keypoint_rcnn_targets,
    mask_rcnn_targets,
    network_targets,
)
from rcnn_keras.convert.detectron2.zoo import RESNEXT_STD, class_names
from rcnn_keras.convert.formats import format_of
from rcnn_keras.convert.numpy_pickles import read_numpy_pickle
from rcnn_keras.convert.torch_files import read_pth
from rcnn_keras.convert.torchvision import COCO_CLASSES
from rcnn_keras.convert.weights import assign_weights
from rcnn_keras.data.coco import VACANT
from rcnn_keras.models import CascadeRCNN, FasterRCNN, KeypointRCNN, MaskRCNN
from rcnn_keras.models.arguments import numbered_classes

LOG = logging.getLogger(__name__)

Weights = str | PathLike[str] | Mapping[str, np.ndarray]

COCO = tuple(name for name in COCO_CLASSES if not name.startswith(VACANT))  # 80

STATISTICS = ("pixel_mean", "pixel_std")  # of older files, beside the tensors

CELL_ANCHORS = "proposal_generator.anchor_generator.cell_anchors."


class Detector(NamedTuple):
    """How a kind of detector is built, and the targets of its tensors."""

    build: type[FasterRCNN]
    targets: Callable[[Any, Architecture, bool], Targets]


# By the kinds of `architecture.MARKS`.
DETECTORS: dict[str, Detector] = {
    "faster_rcnn": Detector(FasterRCNN, faster_rcnn_targets),
    "mask_rcnn": Detector(MaskRCNN, mask_rcnn_targets),
    "keypoint_rcnn": Detector(KeypointRCNN, keypoint_rcnn_targets),
    "cascade_rcnn": Detector(CascadeRCNN, cascade_rcnn_targets),
}


def load(
    weights: Weights,
    config: Configuration | None = None,
    *,
    classes: Sequence[str] | None = None,
    **arguments: Any,
) -> FasterRCNN:
    """Return the detector of a file of Detectron2, with its weights.

    The model detects and trains with Detectron2's arithmetic: RoIAlign with as many samples as a
    RoI has positions, anchors that are not rounded, Pillow's resizing. It takes RGB and counts
    labels from 0 as Detectron2 does.

    Args:
        weights: `.pkl` of the zoo or of Caffe2, or `.pth` of a training; or the state dict itself,
            as arrays by Detectron2's names.
        config: a name of `ZOO` such as `"COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x"`; the
            path of a YAML file, whose `_BASE_` is read where it lies or known; or a mapping of
            keys. Without one, what the file does not say is as in the zoo for its architecture.
        classes: names of the K classes; by default those of the zoo's data sets where they are
            known (COCO for K = 80), otherwise "class_0" and so on.
        arguments: of the constructor, instead of those that file and configuration give.

    Returns:
        `FasterRCNN`, `MaskRCNN`, `KeypointRCNN` or `CascadeRCNN`.

    Raises:
        ValueError: for a file that is damaged, asks for code, or is of something else; for tensors
            that are missing, not in the model, or of another shape: names all of them; for
            a configuration that contradicts the tensors or has no counterpart. Nothing is
            loaded then.
        OSError: if a file cannot be read.

    Warns:
        UserWarning: for settings of the training that are not followed.
    """
    source, state, settings = (
        "the weights",
        dict(weights) if isinstance(weights, Mapping) else {},
        {},
    )
    if not isinstance(weights, Mapping):
        source, state = str(weights), read_weights(weights)
    if config is not None:
        settings = read_configuration(config)
    try:
        state = with_backbone_prefix(state)
        statistics = {k: state.pop(k).reshape(-1) for k in STATISTICS if k in state}
        architecture = architecture_of(state)
        check_against(settings, architecture)
        if config is None:
            settings = _usual(architecture, statistics)
        model_arguments = architecture.arguments | arguments_of(settings, architecture)
        names = _classes(architecture, classes, config)
    except ValueError as error:
        raise ValueError("\n".join(f"{source}: {x}" for x in str(error).split("\n"))) from error
    if otherwise := trained_otherwise(settings):
        warnings.warn(
            f"settings of the training that are not followed: {', '.join(otherwise)}", stacklevel=2
        )
    kind = DETECTORS[architecture.kind]
    model = kind.build(classes=names, **model_arguments | arguments)
    if model.custom_layers:
        given = ", ".join(model.custom_layers)
        raise ValueError(f"{source} has weights for Detectron2's layers, not for {given}")
    targets = kind.targets(model, architecture, settings.get("INPUT.FORMAT", "BGR") == "BGR")
    unused = [name for name in state if name.startswith(CELL_ANCHORS)]
    assign_weights(targets, state, source, unused)
    return model


def zoo_arguments(name: str) -> tuple[type[FasterRCNN], dict[str, Any]]:
    """Return the class and the constructor's arguments of a detector of the zoo, without its file.

    Args:
        name: of `ZOO`.

    Raises:
        ValueError: for another name.
    """
    settings = read_configuration(name)
    architecture = architecture_by(settings, name)
    arguments = architecture.arguments | arguments_of(settings, architecture)
    return DETECTORS[architecture.kind].build, arguments


def load_backbone(model: FasterRCNN, weights: Weights) -> None:
    """Load the ImageNet weights that Detectron2 trains from, such as `R-50.pkl`, into a backbone.

    Args:
        model: detector on the same ResNet or ResNeXt, with `norm="frozen_batch"` or `"group"`. The
            weights of a ResNet need `stride_in_1x1=True` and Caffe's pixels,
            `image_mean=(123.675, 116.28, 103.53)` and `image_std=(1, 1, 1)`.
        weights: as `load` takes them, Caffe2's or Detectron2's.

    Raises:
        ValueError: for tensors that do not fit the model: names all of them.
        OSError: if the file cannot be read.
    """
    source = "the weights" if isinstance(weights, Mapping) else str(weights)
    state = dict(weights) if isinstance(weights, Mapping) else read_weights(weights)
    state = {
        name.removeprefix("backbone.").removeprefix("bottom_up."): values
        for name, values in state.items()
    }
    config = model.get_config()
    if config["norm"] != "group":
        state = with_statistics(state)
    trunk = getattr(model.box_head, "trunk", None)
    last = [layer for layer in trunk.layers if layer.name.startswith("layer4_")] if trunk else []
    targets = network_targets([*model.backbone.layers, *last], "", bgr=True)
    unused = [name for name in state if name.startswith((*CLASSIFIER, "stem.fc."))]
    assign_weights(targets, state, source, unused)


def read_weights(path: str | PathLike[str]) -> dict[str, np.ndarray]:
    """Read the tensors of a `.pkl` of Detectron2 or Caffe2, or of a `.pth` of Detectron2.

    A pickle is read without running code from it; its arrays must be of plain numbers.

    Returns:
        Array of each tensor, by Detectron2's name.

    Raises:
        ValueError: for a file that is damaged or cut off, or asks for anything that no array needs:
            names it.
        OSError: if the file cannot be opened.
    """
    kind = format_of(path)
    if kind == "hdf5":
        raise ValueError(f"{path}: an HDF5 file, which Detectron2 does not write")
    if kind == "torch":
        return dict(read_pth(path))
    state, notes = read_numpy_pickle(path, "model", "blobs")
    if "__author__" in notes and not _is_caffe2(state):
        return state
    try:
        return renamed_from_caffe2(state) if _is_caffe2(state) else state
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _is_caffe2(state: Mapping[str, np.ndarray]) -> bool:
    """Tell whether the names are Caffe2's, which have no dots."""
    return not any("." in name for name in state)


def _usual(architecture: Architecture, statistics: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return the settings of the zoo for an architecture, with the file's own pixel statistics."""
    settings = dict(BASES[architecture.family])
    settings["MODEL.RESNETS.STRIDE_IN_1X1"] = True
    if architecture.settings["MODEL.RESNETS.NUM_GROUPS"] > 1:
        settings["MODEL.PIXEL_STD"] = RESNEXT_STD
        settings["MODEL.RESNETS.STRIDE_IN_1X1"] = False
    if architecture.arguments["norm"] == "group":
        settings["MODEL.RESNETS.STRIDE_IN_1X1"] = False
    for name, values in statistics.items():
        settings[f"MODEL.{name.upper()}"] = [round(float(value), 6) for value in values]
    return settings


def _classes(
    architecture: Architecture, classes: Sequence[str] | None, config: Configuration | None
) -> list[str]:
    count = architecture.num_classes
    if classes is not None:
        if len(classes) != count:
            raise ValueError(f"classes must be {count} names; received {len(classes)}")
        return list(classes)
    known = class_names(str(config)) if isinstance(config, str) else ()
    if len(known) == count:
        return list(known)
    if count == len(COCO):
        return list(COCO)
    return list(("person",) if architecture.kind == "keypoint_rcnn" else numbered_classes(count))
