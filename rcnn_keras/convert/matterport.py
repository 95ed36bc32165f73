"""Weights of matterport/Mask_RCNN (Abdulla 2017), read from its `.h5` files and written to them.

A file of Keras 2 has a group for each layer, whose attribute `weight_names` lists its tensors; that
of `model.save` has all of it below `model_weights`. The RPN's three layers are in one group. What a
program builds a second time has names such as `conv1_1`. Tensors are found by layer and kind, as
`conv1/kernel`, whatever else is in their names.

Kernels are Keras' (h, w, in, out), of the box head's first dense layers 7 x 7 and 1 x 1
convolutions. Boxes are `y1, x1, y2, x2`, classes have the background in front, of deltas and masks
too, where it is not used.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import keras
import numpy as np

from rcnn_keras.convert.matterport_config import arguments_of, in_their_words
from rcnn_keras.convert.torchvision import COCO_CLASSES
from rcnn_keras.convert.weights import WeightTarget, assign_weights
from rcnn_keras.data.coco import VACANT
from rcnn_keras.layers.normalization import BATCH_NORMS, EPSILON
from rcnn_keras.models import MatterportMaskRCNN
from rcnn_keras.models.arguments import numbered_classes
from rcnn_keras.utils.atomic import atomic_write

THEIR_EPSILON = 1e-3  # of batch norm
BLOCKS = {50: 6, 101: 23}  # of the fourth stage, by depth
BACKGROUND = ("bg", "background")
COCO_80 = tuple(name for name in COCO_CLASSES if not name.startswith(VACANT))

KINDS = {  # of tensors, with the names of older Keras
    "kernel": "kernel",
    "bias": "bias",
    "gamma": "gamma",
    "beta": "beta",
    "moving_mean": "moving_mean",
    "moving_variance": "moving_variance",
    "running_mean": "moving_mean",
    "running_std": "moving_variance",
    "W": "kernel",
    "b": "bias",
}
OLD_NAME = re.compile(rf".*_({'|'.join(KINDS)})(_\d+)?")  # `conv1_W_1` of Keras 1

RPN_GROUP = "rpn_model"
RPN_LAYERS = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
WITHOUT_WEIGHTS = (  # of the original's layers; programs exclude them with the others
    *("rpn_class", "rpn_bbox", "rpn_class_logits", "rpn_class_xxx", "ROI", "anchors"),
    *("mrcnn_class", "mrcnn_bbox", "mrcnn_detection", "pool_squeeze", "fpn_p6"),
    *("roi_align_classifier", "roi_align_mask", "input_image", "input_image_meta"),
)
YX = [1, 0, 3, 2]  # from dy, dx, dh, dw to dx, dy, dw, dh, and back

State = dict[str, np.ndarray]


def load(
    weights: str | PathLike[str],
    classes: Sequence[str] | None = None,
    config: Any = None,
    **arguments: Any,
) -> MatterportMaskRCNN:
    """Return the detector of a `.h5` file of matterport/Mask_RCNN, which detects what it detected.

    The file says how many classes there are and how deep the ResNet is, `config` the rest.

    Args:
        weights: file of `save_weights` or `model.save` of Keras 2, such as `mask_rcnn_coco.h5`.
        classes: names of the K classes; a background in front, `"BG"`, is left out. Default COCO's
            for 80, otherwise `"class_0"` and so on.
        config: matterport's settings: a mapping from names such as `"DETECTION_MIN_CONFIDENCE"`, or
            a `Config`, class or instance. What changes detection is followed, what is of training
            alone is accepted, and the others are errors. Default matterport's.
        **arguments: of `MatterportMaskRCNN`, instead of those that file and config say.

    Returns:
        A detector with `norm="frozen_batch"`, unless `TRAIN_BN` says otherwise.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: for a file that cannot be read, of another architecture or of Keras 3; for
            tensors that are missing, not in the model, or of another shape: names all of them; for
            settings that are unknown, with the nearest right name, or do not fit the file; for a
            list of classes of another length.
    """
    state = read_weights(weights)
    of_file = _arguments_of_file(state, weights)
    settings = arguments_of({} if config is None else config, of_file, weights)
    number = of_file.pop("num_classes")
    names = _classes(classes, number, weights)
    with in_their_words():
        model = MatterportMaskRCNN(classes=names, **of_file | settings | arguments)
    assign_weights(weight_targets(model), state, weights)
    return model


def load_into(
    model: MatterportMaskRCNN,
    weights: str | PathLike[str],
    *,
    by_name: bool = False,
    exclude: Collection[str] = (),
) -> list[str]:
    """Load a file into a model; nothing is changed unless all that is to be loaded fits.

    Args:
        model: of any classes.
        weights: as `load` takes them.
        by_name: load the layers that file and model share; otherwise all of them, both ways.
        exclude: names of layers that are left as they are; means `by_name`, as in the original.

    Returns:
        Names of the model's layers that were not loaded, in matterport's words.

    Raises:
        FileNotFoundError, ValueError: as `load`; if `by_name` no layer is shared; and for a name in
            `exclude` that no layer has.
    """
    state = read_weights(weights, any_network=True)
    targets = weight_targets(model)
    known = {name.split("/")[0] for name in targets}
    layers_of_file = {name.split("/")[0] for name in state}
    unknown = sorted(set(exclude) - known - layers_of_file - {RPN_GROUP, *WITHOUT_WEIGHTS})
    if unknown:
        raise ValueError(
            f"exclude: neither the model nor {weights} has layers {', '.join(unknown)}"
        )
    if not (by_name or exclude):
        assign_weights(targets, state, weights)
        return []
    left = {*exclude, *(RPN_LAYERS if RPN_GROUP in exclude else ())}
    shared = (known & layers_of_file) - left
    if not shared:
        theirs = ", ".join(sorted(layers_of_file)[:5]) or "none"
        raise ValueError(
            f"{weights}: by_name finds no layer of the model, so nothing would be loaded; the "
            f"file's layers are {theirs}{', ...' if len(layers_of_file) > 5 else ''}"
        )
    wanted = {n: t for n, t in targets.items() if n.split("/")[0] in shared}
    given = {n: v for n, v in state.items() if n.split("/")[0] in shared}
    try:
        assign_weights(wanted, given, weights)
    except ValueError as error:
        hint = "exclude=[...] leaves layers as they are, such as those of other classes"
        raise ValueError(f"{error}\n{hint}") from None
    return [
        layer for layer in dict.fromkeys(n.split("/")[0] for n in targets) if layer not in shared
    ]


def save(model: MatterportMaskRCNN, path: str | PathLike[str]) -> Path:
    """Write a detector's weights as a `.h5` file that matterport/Mask_RCNN and `load` read.

    Biases before a batch norm, which `load` adds to its mean, are 0, and so is what the original
    predicts of the background and does not use.

    Args:
        model: of norm `"frozen_batch"` or `"batch"`.
        path: replaced atomically.

    Raises:
        TypeError: for another model.
        ValueError: for a model without batch norm.
    """
    path = Path(path)
    groups: dict[str, dict[str, np.ndarray]] = {}
    for name, place in _places(model).items():
        layer, kind = name.split("/")
        group = RPN_GROUP if layer in RPN_LAYERS else layer
        values = place.to_theirs(np.asarray(place.variable, np.float32))
        groups.setdefault(group, {})[f"{layer}/{kind}:0"] = values.astype(np.float32)
    with atomic_write(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs["layer_names"] = np.array([*groups], "S")
        file.attrs["backend"] = b"tensorflow"
        file.attrs["keras_version"] = b"2.2.4"  # of the layout
        for group, tensors in groups.items():
            place_in_file = file.create_group(group)
            place_in_file.attrs["weight_names"] = np.array([*tensors], "S")
            for name in tensors:
                place_in_file.create_dataset(name, data=tensors[name])
    return path


def read_weights(path: str | PathLike[str], *, any_network: bool = False) -> State:
    """Return the tensors of a Keras 2 file by layer and kind, such as `"conv1/kernel"`.

    What has no kind of `KINDS`, such as the group `anchors` of some forks, is left out.

    Args:
        path: the file.
        any_network: read files of other networks, too.

    Raises:
        FileNotFoundError, ValueError: as `load`, unless the tensors themselves are wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with h5py.File(path, "r") as file:
            state = dict(_tensors(_layer_groups(file, path), path))
    except OSError as error:
        raise ValueError(f"{path}: not an HDF5 file, or cut off ({error})") from error
    if not any_network and not {f"{RPN_LAYERS[0]}/kernel", "mrcnn_class_logits/bias"} <= set(state):
        layers = list(dict.fromkeys(name.split("/")[0] for name in state))
        raise ValueError(
            f"{path}: not a Mask R-CNN of matterport, whose layers rpn_conv_shared and "
            f"mrcnn_class_logits it lacks; it has {', '.join(layers[:5]) or 'no layers'}"
            f"{', ...' if len(layers) > 5 else ''}"
        )
    return state


def _layer_groups(file: h5py.File, path: Path) -> h5py.Group:
    """Return the group that has a group for each layer."""
    if "model_weights" in file:
        return file["model_weights"]
    if "layer_names" in file.attrs or any("weight_names" in g.attrs for g in file.values()):
        return file
    if "_layer_checkpoint_dependencies" in file or "layers" in file:
        raise ValueError(
            f"{path}: weights of Keras 3 (.weights.h5), which have no layer names of matterport's; "
            f"load them into the model that wrote them, with its load_weights"
        )
    raise ValueError(f"{path}: an HDF5 file without the weights of a Keras model")


def _tensors(groups: h5py.Group, path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the tensors of all layers by layer and kind."""
    seen: dict[str, str] = {}
    for group, layer in groups.items():
        for stated in layer.attrs.get("weight_names", ()):
            name = stated.decode() if isinstance(stated, bytes) else str(stated)
            kind = KINDS.get(_kind(name))
            if kind is None:
                continue
            if not isinstance(layer.get(name), h5py.Dataset):
                raise ValueError(f"{path}: {group} lists the tensor {name}, which is not there")
            key = f"{_layer_of(name, group)}/{kind}"
            if key in seen:
                raise ValueError(f"{path}: {group}/{name} and {seen[key]} are both {key}")
            seen[key] = f"{group}/{name}"
            yield key, np.asarray(layer[name])


def _kind(name: str) -> str:
    last = name.split("/")[-1].split(":")[0]
    old = None if last in KINDS else OLD_NAME.fullmatch(last)
    return old[1] if old else last


def _layer_of(name: str, group: str) -> str:
    """Return the layer of a tensor: that of its name where the group holds several."""
    *_, layer = ("", *name.split("/")[:-1])
    plain = re.sub(r"_\d+$", "", layer)
    return plain if plain in RPN_LAYERS or group.startswith("mask_rcnn") else group


def _arguments_of_file(state: Mapping[str, np.ndarray], path: Any) -> dict[str, Any]:
    """Return what the names and shapes of a file say of its network."""

    def shape(name: str, rank: int) -> tuple[int, ...]:
        found = state.get(name)
        if found is None or found.ndim != rank:
            what = "is missing" if found is None else f"has the shape {found.shape}"
            raise ValueError(f"{path}: the tensor {name} {what}")
        return found.shape

    blocks = {m[1] for name in state if (m := re.match(r"res4([a-z])_branch2a/", name))}
    depth = next((depth for depth, count in BLOCKS.items() if len(blocks) == count), None)
    if depth is None:
        counts = " or ".join(f"{count} for ResNet-{depth}" for depth, count in BLOCKS.items())
        raise ValueError(
            f"{path}: {len(blocks)} blocks in the layers res4a, res4b, ..., where there must be "
            f"{counts}"
        )
    size = shape("mrcnn_class_conv1/kernel", 4)
    return {
        "backbone": f"resnet{depth}_fpn",
        "num_classes": shape("mrcnn_class_logits/bias", 1)[0] - 1,
        "backbone_width": shape("conv1/kernel", 4)[3] / 64,
        "fpn_channels": shape("fpn_c5p5/kernel", 4)[3],
        "rpn_channels": shape("rpn_conv_shared/kernel", 4)[3],
        "pooled_size": size[0],
        "box_units": size[3],
    }


def _classes(classes: Sequence[str] | None, number: int, path: Any) -> Sequence[str]:
    if classes is None:
        return COCO_80 if number == len(COCO_80) else numbered_classes(number)
    if isinstance(classes, str):
        raise ValueError(f"classes must be a list of names; received {classes!r}")
    names = list(classes)
    if len(names) == number + 1 and str(names[0]).lower() in BACKGROUND:
        return names[1:]
    if len(names) != number:
        raise ValueError(
            f"classes must be {number} names without the background for {path}; received "
            f"{len(names)}"
        )
    return names


class Place(NamedTuple):
    """A variable, the shape of matterport's tensor, and the way there and back."""

    variable: keras.Variable
    shape: tuple[int, ...]
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


ORDER = ("moving_mean", "moving_variance", "gamma", "beta", "kernel", "bias")


def weight_targets(model: MatterportMaskRCNN) -> dict[str, WeightTarget]:
    """Return the target of each tensor, by layer and kind, in the order in which to assign them.

    Raises:
        TypeError, ValueError: as `save`.
    """
    places = _places(model)
    names = sorted(places, key=lambda name: ORDER.index(_kind(name)))
    return {name: WeightTarget(*places[name][:3]) for name in names}


def layer_names(model: MatterportMaskRCNN) -> dict[str, keras.layers.Layer]:
    """Return the layers of a model that have weights, by matterport's names, in its order.

    Raises:
        TypeError: for another model.
    """
    if not isinstance(model, MatterportMaskRCNN):
        raise TypeError(
            f"matterport's files hold a MatterportMaskRCNN, not a {type(model).__name__}"
        )
    layers = dict(_backbone_layers(model))
    for level, conv in reversed(list(enumerate(model.fpn.lateral, start=2))):
        layers[f"fpn_c{level}p{level}"] = conv
    for level, conv in enumerate(model.fpn.output_convs, start=2):
        layers[f"fpn_p{level}"] = conv
    rpn = model.rpn_head
    layers |= dict(zip(RPN_LAYERS, (rpn.convs[0], rpn.objectness, rpn.deltas), strict=True))
    for number, name in ((1, "fc6"), (2, "fc7")):
        layers[f"mrcnn_class_conv{number}"] = model.box_head.trunk.get_layer(name)
        layers[f"mrcnn_class_bn{number}"] = model.box_head.trunk.get_layer(f"{name}_norm")
    layers["mrcnn_class_logits"] = model.box_head.class_logits
    layers["mrcnn_bbox_fc"] = model.box_head.box_deltas
    for number in range(1, 5):
        layers[f"mrcnn_mask_conv{number}"] = model.mask_head.trunk.get_layer(f"conv{number}")
        layers[f"mrcnn_mask_bn{number}"] = model.mask_head.trunk.get_layer(f"norm{number}")
    layers["mrcnn_mask_deconv"] = model.mask_head.upsample
    layers["mrcnn_mask"] = model.mask_head.mask_logits
    return layers


def _backbone_layers(model: MatterportMaskRCNN) -> Iterator[tuple[str, keras.layers.Layer]]:
    """Yield the layers of the ResNet: `layer2_0_conv1` is `res3a_branch2a`."""
    for layer in model.backbone.layers:
        found = re.fullmatch(r"layer(\d)_(\d+)_(?:(conv|bn)(\d)|downsample_(conv|bn))", layer.name)
        if layer.name in ("conv1", "bn1"):
            yield {"conv1": "conv1", "bn1": "bn_conv1"}[layer.name], layer
        elif found:
            stage, block, kind, number, of_shortcut = found.groups()
            prefix = "res" if "conv" in (kind, of_shortcut) else "bn"
            branch = f"branch2{'abc'[int(number) - 1]}" if number else "branch1"
            yield f"{prefix}{int(stage) + 1}{chr(ord('a') + int(block))}_{branch}", layer


def _places(model: MatterportMaskRCNN) -> dict[str, Place]:
    """Return the place of each of matterport's tensors, by layer and kind."""
    layers = layer_names(model)
    if not any(isinstance(layer, BATCH_NORMS) for layer in layers.values()):
        raise ValueError("matterport's files have batch norms, which this model (norm=None) lacks")
    sides = {"mrcnn_class_conv1": model.box_pooling.pooled_size, "mrcnn_class_conv2": 1}
    places: dict[str, Place] = {}
    for name, layer in layers.items():
        if isinstance(layer, BATCH_NORMS):
            places |= {f"{name}/{kind}": place for kind, place in _norm_places(layer).items()}
            continue
        place_of = KERNELS.get(name, _as_they_are)
        if name in sides:
            places[f"{name}/kernel"] = _dense_place(layer.kernel, sides[name])
        else:
            places[f"{name}/kernel"] = place_of(layer.kernel)
        of_norm = not layer.use_bias
        bias = _bias_place(layers[_norm_of(name)]) if of_norm else place_of(layer.bias)
        places[f"{name}/bias"] = bias
    return places


def _norm_of(conv: str) -> str:
    """Return the name of the batch norm after a convolution."""
    if conv == "conv1":
        return "bn_conv1"
    return conv.replace("res", "bn", 1) if conv.startswith("res") else conv.replace("conv", "bn")


def _norm_places(norm: keras.layers.Layer) -> dict[str, Place]:
    """Return the places of a batch norm; its gain makes up for another epsilon."""

    def ratio() -> np.ndarray:
        variance = np.asarray(norm.moving_variance, np.float64)
        return np.sqrt((variance + EPSILON) / (variance + THEIR_EPSILON))

    plain = {kind: _as_they_are(getattr(norm, kind)) for kind in ("beta", *ORDER[:2])}
    gamma = Place(
        norm.gamma,
        tuple(norm.gamma.shape),
        lambda values: values * ratio(),
        lambda values: values / ratio(),
    )
    return {"gamma": gamma, **plain}


def _bias_place(norm: keras.layers.Layer) -> Place:
    """Return the place of a bias before a batch norm: it lowers the mean that is subtracted."""
    mean = norm.moving_mean
    return Place(
        mean, tuple(mean.shape), lambda bias: np.asarray(mean, np.float64) - bias, np.zeros_like
    )


def _as_they_are(variable: keras.Variable) -> Place:
    return Place(variable, tuple(variable.shape), lambda x: x, lambda x: x)


def _dense_place(variable: keras.Variable, side: int) -> Place:
    """Return the place of the kernel of a convolution over a whole map, a dense layer here."""
    ours = tuple(variable.shape)
    theirs = (side, side, ours[0] // side**2, ours[1])
    return Place(variable, theirs, lambda x: x.reshape(ours), lambda x: x.reshape(theirs))


def _rpn_classes(variable: keras.Variable) -> Place:
    """Pairs of background and object an anchor, where ours has all backgrounds first."""
    k = variable.shape[-1] // 2

    def swapped(values: np.ndarray, first: int) -> np.ndarray:
        table = values.reshape(*values.shape[:-1], first, 2 * k // first)
        return np.moveaxis(table, -1, -2).reshape(values.shape)

    return Place(variable, tuple(variable.shape), lambda x: swapped(x, k), lambda x: swapped(x, 2))


def _rpn_deltas(variable: keras.Variable) -> Place:
    return Place(variable, tuple(variable.shape), _exchanged, _exchanged)


def _exchanged(values: np.ndarray) -> np.ndarray:
    """Exchange y and x of deltas that lie side by side."""
    return values.reshape(*values.shape[:-1], -1, 4)[..., YX].reshape(values.shape)


def _box_deltas(variable: keras.Variable) -> Place:
    return _without_background(variable, 4, _exchanged)


def _masks(variable: keras.Variable) -> Place:
    return _without_background(variable, 1, lambda values: values)


def _without_background(
    variable: keras.Variable, each: int, arrange: Callable[[np.ndarray], np.ndarray]
) -> Place:
    *rest, last = variable.shape

    def to_theirs(values: np.ndarray) -> np.ndarray:
        background = np.zeros((*rest, each), values.dtype)
        return np.concatenate([background, arrange(values)], axis=-1)

    shape = (*rest, last + each)
    return Place(variable, shape, lambda values: arrange(values[..., each:]), to_theirs)


KERNELS: dict[str, Callable[[keras.Variable], Place]] = {
    "rpn_class_raw": _rpn_classes,
    "rpn_bbox_pred": _rpn_deltas,
    "mrcnn_bbox_fc": _box_deltas,
    "mrcnn_mask": _masks,
}
