"""The variable for each tensor of another project's model, and transfer to other classes.

PyTorch's kernels are (out, in, h, w), of transposed convolutions (in, out, h, w), of depthwise ones
(channels, 1, h, w); dense kernels are (out, in).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from rcnn_keras.layers.normalization import BATCH_KINDS, BATCH_NORMS
from rcnn_keras.models import RCNN, Detector, FasterRCNN, MatterportMaskRCNN
from rcnn_keras.models.arguments import unread_arguments
from rcnn_keras.models.custom_layers import LAYER_ARGUMENTS

MAX_LISTED = 20  # names per kind of problem in an error message

CONVOLUTIONS = (layers.Conv2D, layers.Conv2DTranspose, layers.DepthwiseConv2D)

STEP_COUNTER = "num_batches_tracked"  # of PyTorch's batch norm; not used here


class WeightTarget(NamedTuple):
    """A variable, the shape of the tensor that is assigned to it, and the change of layout."""

    variable: keras.Variable
    shape: tuple[int, ...]
    arrange: Callable[[np.ndarray], np.ndarray]


def weight_targets(
    layer: layers.Layer, name: str, *, drop: int = 0, map_size: int = 1
) -> dict[str, WeightTarget]:
    """Return the targets of a layer by the tensor names of the PyTorch module `name`.

    Args:
        layer: a convolution, a dense layer, a batch norm or a group norm, built.
        name: of the module that corresponds to it.
        drop: number of the module's first outputs that our layer does not have.
        map_size: S, for a dense layer on a flattened `(S, S, C)` map; PyTorch's is (C, S, S).

    Raises:
        TypeError: for a layer of another kind.
    """
    if isinstance(layer, BATCH_NORMS):
        variables = {
            "weight": layer.gamma,
            "bias": layer.beta,
            "running_mean": layer.moving_mean,
            "running_var": layer.moving_variance,
        }
        return {f"{name}.{k}": _vector(variable, 0) for k, variable in variables.items()}
    if isinstance(layer, layers.GroupNormalization):
        variables = {"weight": layer.gamma, "bias": layer.beta}
        return {f"{name}.{k}": _vector(variable, 0) for k, variable in variables.items()}
    if isinstance(layer, layers.Dense):
        kernel = _dense(layer.kernel, drop, map_size)
    elif isinstance(layer, CONVOLUTIONS):
        kernel = _convolution(layer, drop)
    else:
        raise TypeError(f"{layer.name} is a {type(layer).__name__}, for which there is no tensor")
    targets = {f"{name}.weight": kernel}
    return targets | ({f"{name}.bias": _vector(layer.bias, drop)} if layer.use_bias else {})


def _vector(variable: keras.Variable, drop: int) -> WeightTarget:
    return WeightTarget(variable, (variable.shape[0] + drop,), lambda values: values[drop:])


def _dense(kernel: keras.Variable, drop: int, map_size: int) -> WeightTarget:
    inputs, outputs = kernel.shape
    channels = inputs // map_size**2

    def arrange(values: np.ndarray) -> np.ndarray:
        values = values[drop:].reshape(-1, channels, map_size, map_size)
        return values.transpose(2, 3, 1, 0).reshape(inputs, outputs)

    return WeightTarget(kernel, (outputs + drop, inputs), arrange)


def _convolution(layer: keras.layers.Layer, drop: int) -> WeightTarget:
    height, width, *channels = layer.kernel.shape
    if not isinstance(layer, layers.DepthwiseConv2D):  # whose (channels, 1) is PyTorch's order
        channels.reverse()
    first, second = channels

    def arrange(values: np.ndarray) -> np.ndarray:
        return values[drop:].transpose(2, 3, 1, 0).reshape(layer.kernel.shape)

    return WeightTarget(layer.kernel, (first + drop, second, height, width), arrange)


def assign_weights(
    targets: Mapping[str, WeightTarget],
    state: Mapping[str, np.ndarray],
    source: Any,
    unused: Iterable[str] = (),
) -> None:
    """Assign every tensor of a state dict to its variable.

    Args:
        targets: by the names of the tensors.
        state: the tensors.
        source: name of the state dict in an error, such as its file.
        unused: names of tensors that have no variable in the model.

    Raises:
        ValueError: before anything is changed, with the names (and shapes) of all tensors that
            are missing, not in the model, of another shape or type, or not finite.
    """
    ignored = set(unused)
    problems = {
        "missing": [name for name in targets if name not in state],
        "not in the model": [
            name
            for name in state
            if name not in targets and name not in ignored and not _is_counter(name, targets)
        ],
        "of another shape": [
            f"{name} {state[name].shape}, not {target.shape}"
            for name, target in targets.items()
            if name in state and state[name].shape != target.shape
        ],
        "not of finite floating-point numbers": [
            name
            for name, target in targets.items()
            if name in state and state[name].shape == target.shape and not _is_finite(state[name])
        ],
    }
    lines = [f"  {kind}: {_listing(names)}" for kind, names in problems.items() if names]
    if lines:
        raise ValueError("\n".join([f"{source}: the tensors do not fit the model", *lines]))
    for name, target in targets.items():
        target.variable.assign(target.arrange(state[name]).astype("float32"))


def _is_counter(name: str, targets: Mapping[str, WeightTarget]) -> bool:
    module, _, last = name.rpartition(".")
    return last == STEP_COUNTER and f"{module}.running_mean" in targets


def _is_finite(values: np.ndarray) -> bool:
    return values.dtype.kind == "f" and bool(np.isfinite(values).all())


def _listing(names: Sequence[str]) -> str:
    more = len(names) - MAX_LISTED
    return ", ".join(names[:MAX_LISTED]) + (f" and {more} more" if more > 0 else "")


# Arguments of the model on which the shapes or the meaning of trained weights depend.
OF_BACKBONE = ("backbone", "backbone_width", "norm", "stride_in_1x1", "backbone_weights")

OF_HEADS = (
    *("fpn_channels", "head_norm", "rpn_convs", "rpn_objectness"),
    *("box_units", "box_convs", "box_ranks"),
)

OF_CROPS = ("crop_size", "channels", "units")  # R-CNN's network

MASK_HEAD = ("mask_head.trunk", "mask_head.upsample", "mask_head.mask_logits")

OF_REGIONS = ("class_logits", "svm", "box_regressor")  # R-CNN's classifiers and regressor

OF_CLASSES = ("box_head.class_logits", "box_head.box_deltas", MASK_HEAD[-1], *OF_REGIONS)

OF_ANCHORS = ("rpn_head.objectness", "rpn_head.deltas")

KEYPOINT_HEAD = ("keypoint_head.convs", "keypoint_head.keypoint_logits")

HEADS = (
    "rpn_head",
    "box_head",
    "mask_head",
    "keypoint_head",
)  # or layers of the user's own in their place

STAGE = re.compile(r"(?<=^box_head)_\d+")  # of a cascade's names of its heads


def may_start(architecture: type[Detector], source: type[Detector]) -> bool:
    """Tell whether a detector of one architecture can start from the weights of another.

    Faster, Mask, Cascade and Keypoint R-CNN share all but the heads. The others have other parts.
    """
    of_matterport = {issubclass(kind, MatterportMaskRCNN) for kind in (architecture, source)}
    if issubclass(architecture, FasterRCNN) and len(of_matterport) == 1:
        return issubclass(source, FasterRCNN)
    return architecture is source


def conflicts(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return each argument that conflicts with trained weights, and its rule.

    Args:
        config: the arguments that the weights were trained with.
        arguments: the requested ones; all others are as in `config`.
    """
    errors = {}
    unread = unread_arguments({**config, **arguments})
    for name in (*OF_BACKBONE, *OF_HEADS, *OF_CROPS):
        if name not in config or name in unread:
            continue
        trained, requested = config[name], arguments.get(name, config[name])
        same_weights = name == "norm" and {trained, requested} <= set(BATCH_KINDS)
        if name == "backbone" and isinstance(trained, dict):  # a model of the user's own
            if name in arguments:
                errors[name] = "must be left out: the weights are those of another keras.Model"
        elif trained != requested and not same_weights:
            errors[name] = f"must be {trained!r}, as the weights have it"
    return errors


def transfer(source: Detector, target: Detector) -> tuple[list[str], list[str]]:
    """Copy the weights of all submodules that have the same meaning in both detectors.

    Layers that predict per class have the same meaning only if the classes are the same; layers
    that predict per anchor only if there are as many anchors at each position, those that predict
    keypoints only if these are the same. A layer of the user's own is copied as a whole, a head
    only if the classes are the same. All stages of a cascade get the trunk of another detector's
    one box head, which gets that of the first stage; their predictors have other meanings.

    Args:
        source: detector to copy from.
        target: one with the same network; either of the two may have heads that the other lacks.

    Returns:
        Names of the submodules that were copied, and of those that were left unchanged.

    Raises:
        ValueError: if any other submodule differs; nothing is copied then.
    """
    same_classes = source.classes == target.classes
    same_keypoints = source.skeleton == target.skeleton
    old, new = _submodules(source), _submodules(target)
    _share_trunk(old, new)
    copied: list[str] = []
    unchanged: list[str] = []
    for name, variables in new.items():
        fits = [v.shape for v in variables] == [v.shape for v in old.get(name, [])]
        is_own = name in LAYER_ARGUMENTS
        is_new = is_own or (name.startswith(HEADS) and name not in old)
        role = STAGE.sub("", name)
        if not fits and not is_new and role not in (*OF_CLASSES, *OF_ANCHORS, *KEYPOINT_HEAD):
            raise ValueError(f"the weights do not fit: {name} has other shapes in the new model")
        of_classes = role in (*OF_CLASSES, "box_head", "mask_head")
        of_keypoints = name in (KEYPOINT_HEAD[-1], "keypoint_head")
        same_meaning = fits and (same_classes or not of_classes)
        same_meaning = same_meaning and (same_keypoints or not of_keypoints)
        (copied if same_meaning else unchanged).append(name)
    for name in copied:
        for ours, theirs in zip(new[name], old[name], strict=True):
            ours.assign(theirs)
    return copied, unchanged


def _share_trunk(old: dict[str, list], new: Mapping[str, list]) -> None:
    """Name the trunk of a box head in `old` as those of `new` are that stand for it."""
    first = old.get("box_head.trunk", old.get("box_head_1.trunk"))
    for name in new:
        if first is not None and STAGE.sub("", name) == "box_head.trunk":
            old.setdefault(name, first)


def _submodules(model: Any) -> dict[str, list]:
    """Return the variables of each submodule of a detector that has any of its own."""
    if isinstance(model, RCNN):
        layers = {"network": [model.network]}
        layers |= {name: [getattr(model, name)] for name in OF_REGIONS}
    else:
        layers = _two_stage_layers(model)
    variables = {n: [v for layer in group for v in _in_order(layer)] for n, group in layers.items()}
    return {name: own for name, own in variables.items() if own}


def _two_stage_layers(model: Any) -> dict[str, list]:
    """Return the layers of each submodule of a detector with two stages."""
    own = model.custom_layers
    layers = {"backbone": model.backbone.layers, "fpn": [model.fpn] if model.fpn else []}
    layers |= {name: [layer] for name, layer in own.items() if name != "backbone"}
    if "rpn_head" not in own and (rpn := getattr(model, "rpn_head", None)):
        layers |= {
            "rpn_head.convs": rpn.convs,
            "rpn_head.objectness": [rpn.objectness],
            "rpn_head.deltas": [rpn.deltas],
        }
    shared = []
    if "box_head" not in own:
        shared = model.box_heads[0].trunk.layers
        for head in model.box_heads:
            layers |= {
                f"{head.name}.trunk": head.trunk.layers,
                f"{head.name}.class_logits": [head.class_logits],
                f"{head.name}.box_deltas": [head.box_deltas],
            }
    if "mask_head" not in own and (head := getattr(model, "mask_head", None)):
        trunk = [layer for layer in head.trunk.layers if layer not in shared]
        layers |= dict(zip(MASK_HEAD, (trunk, [head.upsample], [head.mask_logits]), strict=True))
    if "keypoint_head" not in own and (head := getattr(model, "keypoint_head", None)):
        layers |= dict(zip(KEYPOINT_HEAD, (head.convs, [head.upsample]), strict=True))
    return layers


def _in_order(layer: keras.layers.Layer) -> list:
    """Return a layer's variables in an order that does not depend on which are trainable."""
    return sorted(layer.weights, key=lambda variable: variable.path)
