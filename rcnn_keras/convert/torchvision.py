"""Weights of torchvision's detectors and classifiers, converted to this package's models.

COCO numbers its 80 categories from 1 to 90 with ten numbers unused; models that predict COCO's
numbers have outputs for the unused ones as well.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rcnn_keras.convert.torch_files import read_pth
from rcnn_keras.convert.weights import STEP_COUNTER, WeightTarget, assign_weights, weight_targets
from rcnn_keras.data.coco import VACANT
from rcnn_keras.data.keypoints import COCO_PERSON
from rcnn_keras.layers.normalization import BATCH_KINDS, EPSILON
from rcnn_keras.models import FasterRCNN, KeypointRCNN, MaskRCNN
from rcnn_keras.models.arguments import numbered_classes
from rcnn_keras.models.two_stage import IMAGENET_MEAN, IMAGENET_STD

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light,
fire hydrant, , stop sign, parking meter, bench, bird, cat, dog, horse, sheep,
cow, elephant, bear, zebra, giraffe, , backpack, umbrella, , ,
handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
skateboard, surfboard, tennis racket, bottle, , wine glass, cup, fork, knife, spoon,
bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, couch, potted plant, bed, , dining table, , , toilet,
, tv, laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster,
sink, refrigerator, , book, clock, vase, scissors, teddy bear, hair drier, toothbrush
"""


COCO_CLASSES = tuple(
    name.strip() or f"{VACANT} {number}" for number, name in enumerate(_NAMES.split(","), start=1)
)


def read_state_dict(path: str | PathLike) -> dict[str, np.ndarray]:
    """Read the tensors of a `.safetensors` file or of a file of `torch.save`.

    Args:
        path: file whose name ends in `.safetensors`; any other file is read by `read_pth`.

    Returns:
        Array of each tensor, by its name; bfloat16 is widened to float32.

    Raises:
        ValueError: if the file is damaged, or has anything other than named tensors.
        OSError: if the file cannot be opened.
    """
    if Path(path).suffix == ".safetensors":
        return _read_safetensors(path)
    return read_pth(path)


def _read_safetensors(path: str | PathLike) -> dict[str, np.ndarray]:
    import ml_dtypes
    from safetensors import SafetensorError, safe_open

    arrays = {}
    try:
        with safe_open(path, "numpy") as file:
            for name in file.keys():  # noqa: SIM118, it is not a dictionary
                array = file.get_tensor(name)
                widen = array.dtype == ml_dtypes.bfloat16
                arrays[name] = array.astype("float32") if widen else array
    except SafetensorError as error:
        raise ValueError(f"{path}: not readable as safetensors ({error})") from error
    return arrays


Weights = str | PathLike | Mapping[str, np.ndarray]


RESNET50 = {"backbone": "resnet50_fpn"}

RESNET50_V2 = RESNET50 | {"norm": "batch", "head_norm": "batch", "rpn_convs": 2, "box_convs": 4}

MOBILENET = {"backbone": "mobilenet_v3_large_fpn", "rpn_score_thresh": 0.05}

MOBILENET_320 = MOBILENET | {
    "min_size": 320,
    "max_size": 640,
    "rpn_pre_nms_top_n_test": 150,
    "rpn_post_nms_top_n_test": 150,
}

# torchvision's builders, and what each sets differently from our constructors' defaults.
DETECTORS: dict[str, tuple[type[FasterRCNN], dict[str, Any]]] = {
    "fasterrcnn_resnet50_fpn": (FasterRCNN, RESNET50),
    "fasterrcnn_resnet50_fpn_v2": (FasterRCNN, RESNET50_V2),
    "fasterrcnn_mobilenet_v3_large_fpn": (FasterRCNN, MOBILENET),
    "fasterrcnn_mobilenet_v3_large_320_fpn": (FasterRCNN, MOBILENET_320),
    "keypointrcnn_resnet50_fpn": (KeypointRCNN, RESNET50 | {"keypoint_scores": "logit"}),
    "maskrcnn_resnet50_fpn": (MaskRCNN, RESNET50),
    "maskrcnn_resnet50_fpn_v2": (MaskRCNN, RESNET50_V2),
}

# torchvision uses no epsilon in these models' batch norm with its published weights.
WITHOUT_EPSILON = (
    *("fasterrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn"),
)


OLDER_NAMES = (  # in the published files of the first models
    (r"(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)", r"\1.0.\2"),
    (r"rpn\.head\.conv\.(weight|bias)", r"rpn.head.conv.0.0.\1"),
    *(
        (rf"roi_heads\.mask_head\.mask_fcn{n + 1}\.(weight|bias)", rf"roi_heads.mask_head.{n}.0.\1")
        for n in range(4)
    ),
)

SUFFIXES = (("_conv", ".0"), ("_norm", ".1"), ("_bn", ".1"))  # of our layers' names

CLASSIFIERS = ("fc.", "classifier.")
BODY, BOX_HEAD, MASK_HEAD = "backbone.body.", "roi_heads.box_head.", "roi_heads.mask_head."
KEYPOINTS = "roi_heads.keypoint_predictor.kps_score_lowres"


def load(
    name: str,
    weights: Weights,
    *,
    classes: Sequence[str] | None = None,
    epsilon: float | None = None,
    **arguments: Any,
) -> FasterRCNN:
    """Return the detector that `torchvision.models.detection.<name>` builds, with its weights.

    The model detects and trains with torchvision's settings. A file without the step counters of
    batch norm comes from a model whose backbone's batch norm was frozen (`FrozenBatchNorm2d`, which
    torchvision uses with pretrained weights): then the model has `norm="frozen_batch"` and the same
    first stages of the backbone frozen. With counters it has `norm="batch"` and nothing frozen.

    Args:
        name: one of `DETECTORS`.
        weights: file of `torch.save` or `.safetensors`, with current or older names of the tensors,
            also inside a checkpoint's `"model"`; or the state dict itself, as arrays.
        classes: names of the K classes for which the file has outputs; by default COCO's if K = 90
            (with names such as "N/A 12" for unused numbers), "person" of a detector of COCO's
            keypoints, otherwise "class_0" and so on.
        epsilon: of the file's frozen batch norm. By default 0 for the ResNet-50 models except
            `_v2`, as in torchvision with its published weights, otherwise 1e-5. Ours is 1e-5; the
            gains compensate for the difference.
        arguments: of the constructor, instead of torchvision's.

    Returns:
        `FasterRCNN`, `MaskRCNN` or `KeypointRCNN`; label = torchvision's label - 1.

    Raises:
        ValueError: for an unknown name; for a file that cannot be read; for tensors that are
            missing, not in the model, or of another shape: names all of them.
        OSError: if the file cannot be opened.
    """
    if name not in DETECTORS:
        near = difflib.get_close_matches(str(name), DETECTORS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"name must be one of {', '.join(DETECTORS)}; received {name!r}{hint}")
    source, state = _state(weights, name)
    state = _renamed(state, source)
    build, defaults = DETECTORS[name]
    frozen = not any(key.startswith(BODY) and key.endswith(STEP_COUNTER) for key in state)
    if epsilon is not None and not frozen:
        raise ValueError(
            f"epsilon is for frozen batch norm; received {epsilon!r} and {source}, whose batch "
            f"norm was trained"
        )
    config = {"norm": "frozen_batch" if frozen else "batch"} | defaults | arguments
    _check_norm(config["norm"], f"{name}: norm")
    usual: Sequence[str] = COCO_CLASSES
    if build is KeypointRCNN:
        count = _num_keypoints(state, source)
        usual = ("person",) if count == len(COCO_PERSON) else ()
        if arguments.get("keypoint_names") is None:
            config["num_keypoints"] = count
    model = build(classes=_classes(state, classes, source, usual), **config)
    if model.custom_layers:
        raise ValueError(
            f"{name} has no {', '.join(model.custom_layers)} of one's own: {source} has weights "
            f"for torchvision's"
        )
    if model.get_config()["norm"] == "frozen_batch" and "frozen_stages" not in arguments:
        model.freeze_backbone(None)
    targets = detector_targets(model)
    if frozen:
        published = name in WITHOUT_EPSILON and "backbone" not in arguments
        default = 0.0 if published else EPSILON
        state = _with_epsilon(state, targets, default if epsilon is None else epsilon, source)
    assign_weights(targets, state, source)
    return model


def load_backbone(model: FasterRCNN, weights: Weights) -> None:
    """Load the ImageNet weights of a torchvision classifier into a model's backbone.

    Args:
        model: detector on a ResNet or MobileNetV3 with `norm="batch"` or `"frozen_batch"`; the
            last stage goes into the box head of a C4 detector.
        weights: as `load` takes them, of the classifier with the same network; its last dense
            layers are not used.

    Raises:
        ValueError: for a file that cannot be read; for tensors that are missing, not in the model,
            or of another shape: names all of them; for a model whose network or input differs from
            torchvision's.
        OSError: if the file cannot be opened.
    """
    config = model.get_config()
    _check_norm(config["norm"], "the model's norm")
    for key, value in (
        ("backbone_width", 1.0),
        ("stride_in_1x1", False),
        ("image_mean", IMAGENET_MEAN),
        ("image_std", IMAGENET_STD),
    ):
        if config[key] != value:
            raise ValueError(
                f"torchvision's networks need {key}={value}; the model has {config[key]}"
            )
    trunk = getattr(model.box_heads[0], "trunk", None)  # none in a head of the user's own
    load_network(model.backbone, trunk, weights, f"the weights of {config['backbone']}")
    if trunk is not None and _last_stage(trunk):
        for head in model.box_heads[1:]:  # of a cascade
            head.trunk.set_weights(trunk.get_weights())


def load_network(
    backbone: keras.Model, trunk: keras.Model | None, weights: Weights, name: str = "the weights"
) -> None:
    """Load the weights of a torchvision classifier into a backbone.

    Args:
        backbone: the network.
        trunk: of the box head, which has the last stage of a C4 detector's network; None for a head
            without one.
        weights: as `load` takes them; the classifier's last dense layers are not used.
        name: of weights that are not a file, for errors.

    Raises:
        ValueError, OSError: as `load_backbone`.
    """
    source, state = _state(weights, name)
    last = _last_stage(trunk) if trunk else []
    unused = CLASSIFIERS if trunk else (*CLASSIFIERS, "layer4.")
    targets = _backbone_targets([*backbone.layers, *last])
    assign_weights(targets, state, source, [key for key in state if key.startswith(unused)])


def _last_stage(trunk: keras.Model) -> list[keras.layers.Layer]:
    """Return the layers of a ResNet's last stage, which a C4 detector's trunk has."""
    return [layer for layer in trunk.layers if layer.name.startswith("layer4_")]


def _state(weights: Weights, name: str) -> tuple[Any, dict[str, np.ndarray]]:
    if isinstance(weights, Mapping):
        return name, {key: np.asarray(value) for key, value in weights.items()}
    return weights, read_state_dict(weights)


def _check_norm(norm: Any, what: str) -> None:
    if norm not in BATCH_KINDS:
        raise ValueError(
            f"{what} must be 'batch' or 'frozen_batch': torchvision's networks have batch norm; "
            f"received {norm!r}"
        )


def _renamed(state: Mapping[str, np.ndarray], source: Any) -> dict[str, np.ndarray]:
    """Return the state dict with torchvision's current names of its tensors."""
    renamed = {}
    for name, values in state.items():
        for pattern, replacement in OLDER_NAMES:
            name = re.sub(f"^{pattern}$", replacement, name)
        if name in renamed:
            raise ValueError(f"{source}: the tensor {name} is there under an older name as well")
        renamed[name] = values
    return renamed


def _classes(
    state: Mapping[str, np.ndarray],
    classes: Sequence[str] | None,
    source: Any,
    usual: Sequence[str] = COCO_CLASSES,
) -> list[str]:
    """Return K names; K is the number of class outputs, whose `usual` names are those of COCO."""
    outputs = state.get("roi_heads.box_predictor.cls_score.bias")
    if outputs is None or outputs.ndim != 1 or len(outputs) < 2:
        raise ValueError(
            f"{source}: not a detector of torchvision: roi_heads.box_predictor.cls_score.bias is "
            f"{'missing' if outputs is None else f'of the shape {outputs.shape}'}"
        )
    count = len(outputs) - 1
    if classes is None:
        return list(usual if count == len(usual) else numbered_classes(count))
    if len(classes) != count:
        raise ValueError(f"classes must be {count} names for {source}; received {len(classes)}")
    return list(classes)


def _num_keypoints(state: Mapping[str, np.ndarray], source: Any) -> int:
    """Return P, the number of heat maps of a detector of keypoints."""
    bias = state.get(f"{KEYPOINTS}.bias")
    if bias is None or bias.ndim != 1 or not len(bias):
        raise ValueError(
            f"{source}: not a detector of keypoints: {KEYPOINTS}.bias is "
            f"{'missing' if bias is None else f'of the shape {bias.shape}'}"
        )
    return len(bias)


def _with_epsilon(
    state: Mapping[str, np.ndarray],
    targets: Mapping[str, WeightTarget],
    epsilon: float,
    source: str,
) -> dict[str, np.ndarray]:
    """Return the state dict with gains that compensate for our epsilon in the backbone.

    Tensors of another shape than their targets' are left unchanged; `assign_weights` names them.
    """
    changed = dict(state)
    for name, variance in state.items():
        gain = name.replace("running_var", "weight")
        if not (name.startswith(BODY) and name.endswith("running_var")):
            continue
        if any(
            k not in state or k not in targets or state[k].shape != targets[k].shape
            for k in (name, gain)
        ):
            continue
        variance = variance.astype("float64")
        if (variance + epsilon <= 0).any():
            raise ValueError(f"{source}: {name} has a variance of 0 or less with epsilon={epsilon}")
        changed[gain] = state[gain] * np.sqrt((variance + EPSILON) / (variance + epsilon))
    return changed


def _backbone_targets(layers: Iterable[keras.layers.Layer]) -> dict[str, WeightTarget]:
    """Return the targets of a network by the tensor names of torchvision's classifiers."""
    targets: dict[str, WeightTarget] = {}
    for layer in layers:
        if layer.weights:
            name = layer.name
            for ours, theirs in SUFFIXES:
                if name.endswith(ours):
                    name = name.removesuffix(ours) + theirs
            targets |= weight_targets(layer, name.replace("_", "."))
    return targets


def detector_targets(model: FasterRCNN) -> dict[str, WeightTarget]:
    """Return the targets of a whole detector by torchvision's current tensor names."""
    if model.fpn is None:
        backbone = model.get_config()["backbone"]
        raise ValueError(f"torchvision's detectors have a pyramid; {backbone} has none")
    network = _backbone_targets(model.backbone.layers)
    targets = {BODY + name.removeprefix("features."): target for name, target in network.items()}

    for block, convs, norms in (
        ("inner", model.fpn.lateral, model.fpn.lateral_norms),
        ("layer", model.fpn.output_convs, model.fpn.output_norms),
    ):
        for level, (conv, norm) in enumerate(zip(convs, norms, strict=True)):
            targets |= _conv_norm(conv, norm, f"backbone.fpn.{block}_blocks.{level}")

    head = model.rpn_head
    for number, conv in enumerate(head.convs):
        targets |= weight_targets(conv, f"rpn.head.conv.{number}.0")
    targets |= weight_targets(head.objectness, "rpn.head.cls_logits")
    targets |= weight_targets(head.deltas, "rpn.head.bbox_pred")

    trunk = model.box_head.trunk
    targets |= _trunk_convs(trunk, BOX_HEAD)
    size = trunk.input.shape[1]
    if trunk.get_layer("fc6") is trunk.layers[-1]:  # alone, it is the sixth layer of a sequence
        targets |= weight_targets(trunk.get_layer("fc6"), f"{BOX_HEAD}5", map_size=size)
    else:
        targets |= weight_targets(trunk.get_layer("fc6"), f"{BOX_HEAD}fc6", map_size=size)
        targets |= weight_targets(trunk.get_layer("fc7"), f"{BOX_HEAD}fc7")
    # torchvision also predicts boxes and masks of the background, which are not used or trained.
    predictor = "roi_heads.box_predictor"
    targets |= weight_targets(model.box_head.class_logits, f"{predictor}.cls_score")
    targets |= weight_targets(model.box_head.box_deltas, f"{predictor}.bbox_pred", drop=4)

    if isinstance(model, MaskRCNN):
        targets |= _trunk_convs(model.mask_head.trunk, MASK_HEAD)
        predictor = "roi_heads.mask_predictor"
        targets |= weight_targets(model.mask_head.upsample, f"{predictor}.conv5_mask")
        mask_logits = model.mask_head.mask_logits
        targets |= weight_targets(mask_logits, f"{predictor}.mask_fcn_logits", drop=1)
    if isinstance(model, KeypointRCNN):
        for number, conv in enumerate(model.keypoint_head.convs):  # ReLUs have numbers, too
            targets |= weight_targets(conv, f"roi_heads.keypoint_head.{2 * number}")
        targets |= weight_targets(model.keypoint_head.upsample, KEYPOINTS)
    return targets


def _trunk_convs(trunk: keras.Model, prefix: str) -> dict[str, WeightTarget]:
    """Return the targets of a trunk's convolutions `conv1`.. and of the norms after them."""
    targets: dict[str, WeightTarget] = {}
    for layer in trunk.layers:
        if layer.name.startswith("conv"):
            number = int(layer.name.removeprefix("conv"))
            norm = trunk.get_layer(f"norm{number}")
            targets |= _conv_norm(layer, norm, f"{prefix}{number - 1}")
    return targets


def _conv_norm(
    conv: keras.layers.Layer, norm: keras.layers.Layer, name: str
) -> dict[str, WeightTarget]:
    targets = weight_targets(conv, f"{name}.0")
    return targets | (weight_targets(norm, f"{name}.1") if norm.weights else {})
