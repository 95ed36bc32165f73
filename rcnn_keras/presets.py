"""Trained weights by name: their files, licences and scores; and models with them.

The small models in `saved_models/` come with the package. The published files are torchvision's,
under its BSD-3-Clause licence, and those of Detectron2's zoo, under Creative Commons BY-SA 3.0;
COCO, ImageNet and the other data that the models were trained on have their own terms. Their names
end in the first hexadecimal digits of their hash, against which a file is checked.
"""

import difflib
import hashlib
import inspect
import logging
import os
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcnn_keras.preset_table import PRESETS, Preset, ShippedDetector, saved_models
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.hashing import file_digest

if TYPE_CHECKING:
    from rcnn_keras.models import Detector

__all__ = ["Preset", "ShippedDetector", "fetch", "from_preset", "list_presets"]

LOG = logging.getLogger(__name__)
CACHE_VARIABLE = "RCNN_KERAS_CACHE"
DEFAULT_CACHE = Path("~/.cache/rcnn_keras")
OTHER_CACHE = f"name a folder for weights with cache= or the variable {CACHE_VARIABLE}"
HASHES = {"sha256": "SHA-256", "md5": "MD5"}
# What follows from other keypoints where these are given.
OF_SKELETON = ("num_keypoints", "keypoint_names", "keypoint_flip_pairs", "keypoint_edges")
TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 20


def list_presets() -> list[Preset | ShippedDetector]:
    """Return every preset: first the detectors that come with the package, then detectors
    trained on COCO, then backbones trained on ImageNet.
    """
    return [*saved_models().values(), *PRESETS.values()]


def from_preset(
    name: str | os.PathLike,
    *,
    classes: Sequence[str] | None = None,
    num_classes: int | None = None,
    architecture: type["Detector"] | None = None,
    cache: str | os.PathLike | None = None,
    **arguments: Any,
) -> "Detector":
    """Return a detector with trained weights: shipped, published, or of a `.keras` file.

    A name of `saved_models/` gives the small model that comes with the package, offline; a
    published detector's preset gives that detector, downloaded at the first call; a file that this
    package saved gives the one in it. `classes` (or `num_classes`) gives it other classes: the
    layers that predict classes, boxes and masks are re-initialised, all others keep their weights,
    and the logger `rcnn_keras.presets` names both; `keypoint_names` (or `num_keypoints`) likewise
    other keypoints. In a published detector, as in torchvision and Detectron2, the backbone's first
    stages are frozen; any other model has as many frozen as it was saved with. `frozen_stages`
    changes that; see `freeze_backbone`.

    A backbone's preset gives a new detector on that backbone with `norm="frozen_batch"`; `classes`
    is needed.

    Args:
        name: of `list_presets()`, or the path of a `.keras` file.
        classes: class names, without the background.
        num_classes: K, for the classes "class_0", "class_1" and so on.
        architecture: by default that of the weights, for a backbone `FasterRCNN`. `FasterRCNN`,
            `MaskRCNN`, `CascadeRCNN` and `KeypointRCNN` start from each other's weights, and heads
            that the weights lack are newly initialised; `FastRCNN` starts from its own and from a
            backbone's, `RCNN` from its own.
        cache: folder for downloaded and converted files; by default that in the environment
            variable RCNN_KERAS_CACHE, or `~/.cache/rcnn_keras`.
        arguments: of the constructor, instead of those that the weights were trained with.

    Raises:
        ValueError: for an unknown name; for an architecture or arguments that do not fit the
            weights; for a published file with another hash, a damaged file of the package, and a
            `.keras` file without a detector.
        OSError: if a file is missing or cannot be downloaded; says where to get it and where to
            put it.
    """
    name = os.fspath(name)
    check_architecture(name, architecture)
    errors = preset_conflicts(name, arguments, architecture)
    if errors:
        lines = (f"{key} {rule}; received {arguments[key]!r}" for key, rule in errors.items())
        raise ValueError("\n".join(f"{name}: {line}" for line in lines))
    names = _class_names(classes, num_classes)
    if name in saved_models():
        from rcnn_keras.convert.saved_detectors import load_half_precision

        source = load_half_precision(saved_models()[name].folder)
    elif is_path(name):
        from rcnn_keras.models import load_detector

        source = load_detector(_path(name))
    else:
        preset = _preset(name)
        if not preset.num_classes:
            return _on_backbone(preset, names, architecture, cache, arguments)
        source = _published(preset, _folder(cache))
    architecture = architecture or type(source)
    if names is None and not arguments and architecture is type(source):
        return source
    from rcnn_keras.convert.weights import transfer
    from rcnn_keras.models.arguments import unread_arguments

    stated = inspect.signature(architecture).parameters  # a mask head is not of a Faster R-CNN
    config = {key: value for key, value in source.get_config().items() if key in stated}
    if {"keypoint_names", "num_keypoints"} & arguments.keys():
        config = {key: value for key, value in config.items() if key not in OF_SKELETON}
    config |= unread_arguments(config | arguments) | arguments | {"name": None}
    config["classes"] = list(source.classes) if names is None else names
    model = architecture.from_config(config)
    kept, new = transfer(source, model)
    LOG.info("%s: weights kept in %s; new: %s", name, ", ".join(kept), ", ".join(new) or "nothing")
    return model


def check_name(name: str) -> None:
    """Raise ValueError, with the nearest name, unless this is a preset's name; loads nothing."""
    if name not in saved_models():
        _preset(name)


def is_path(name: str) -> bool:
    """Return whether a name is the path of a file, and not that of a preset, as a folder's may."""
    path = _path(name)
    return path.suffix == ".keras" or len(path.parts) > 1 or path.is_file()


def preset_architecture(name: str) -> type["Detector"] | None:
    """Return the class of a preset's or a `.keras` file's detector; None for a backbone alone.

    Raises:
        ValueError, OSError: as `from_preset`.
    """
    return _class_and_arguments(name)[0]


def check_architecture(name: str, architecture: type["Detector"] | None) -> None:
    """Raise ValueError unless a detector of this class can start from a preset or `.keras` file.

    Raises:
        ValueError: names both classes, and what can start from the weights.
        OSError: as `from_preset`.
    """
    from rcnn_keras.convert.weights import may_start
    from rcnn_keras.models import (
        RCNN,
        CascadeRCNN,
        FasterRCNN,
        FastRCNN,
        KeypointRCNN,
        MaskRCNN,
    )

    source = preset_architecture(name)
    if architecture is None:
        return
    known = (RCNN, FastRCNN, FasterRCNN, MaskRCNN, CascadeRCNN, KeypointRCNN)
    if source is None:
        if not issubclass(architecture, (FastRCNN, FasterRCNN)):
            raise ValueError(
                f"{name} is a backbone, on which FastRCNN, FasterRCNN, MaskRCNN, CascadeRCNN and "
                f"KeypointRCNN stand; {architecture.__name__} has a network of its own"
            )
    elif not may_start(architecture, source):
        fitting = " or ".join(kind.__name__ for kind in known if may_start(kind, source))
        raise ValueError(
            f"{name} holds a {source.__name__}, from whose weights {architecture.__name__} cannot "
            f"start; {fitting or source.__name__} can"
        )


def preset_arguments(name: str, architecture: type["Detector"] | None = None) -> dict[str, Any]:
    """Return the constructor's arguments of a preset or a `.keras` file, but classes and seed.

    Nothing is downloaded, and no weights are read.

    Args:
        name: of a preset, or the path of a `.keras` file.
        architecture: whose defaults are taken where the weights have no such argument; by default
            that of the weights.

    Raises:
        ValueError, OSError: as `from_preset`.
    """
    from rcnn_keras.models import FasterRCNN

    kind, stated = _class_and_arguments(name)
    signature = inspect.signature(architecture or kind or FasterRCNN).parameters
    config = {key: parameter.default for key, parameter in signature.items()} | stated
    return {key: value for key, value in config.items() if key not in ("classes", "seed", "name")}


def _class_and_arguments(name: str) -> tuple[type["Detector"] | None, dict[str, Any]]:
    """Return the class of a preset's detector, None for a backbone, and the arguments it states."""
    if is_path(name):
        from rcnn_keras.models.saved import saved_arguments

        return saved_arguments(_path(name))
    if name in saved_models():
        from rcnn_keras.convert.saved_detectors import ARCHITECTURES, read_model

        content = read_model(saved_models()[name].folder)
        return ARCHITECTURES[content["class_name"]], content["config"]
    from rcnn_keras.convert.detectron2 import zoo_arguments
    from rcnn_keras.convert.torchvision import DETECTORS

    preset = _preset(name)
    if not preset.num_classes:
        return None, preset.on_backbone
    if preset.project == "detectron2":
        return zoo_arguments(preset.network)
    architecture, arguments = DETECTORS[preset.network]
    return architecture, {"norm": "frozen_batch"} | arguments


def preset_conflicts(
    name: str, arguments: Mapping[str, Any], architecture: type["Detector"] | None = None
) -> dict[str, str]:
    """Return the name of each argument at odds with a preset's weights, and the rule it breaks.

    Raises:
        ValueError, OSError: as `from_preset`.
    """
    from rcnn_keras.convert.weights import OF_HEADS, conflicts

    config = preset_arguments(name, architecture)
    if name in PRESETS and not PRESETS[name].num_classes:
        network = config["backbone"].removesuffix("_fpn")
        arguments = {key: value for key, value in arguments.items() if key not in OF_HEADS}
        if arguments.get("backbone") == network:  # the C4 detector
            config["backbone"] = network
    return conflicts(config, arguments)


def fetch(name: str, cache: str | os.PathLike | None = None) -> Path:
    """Return the path of a preset's file; a published one is downloaded if missing.

    Args:
        name: of `list_presets()`.
        cache: as in `from_preset`.

    Raises:
        ValueError: for an unknown name; for a file with another hash.
        OSError: if the file cannot be fetched; says where to get it and where to put it.
    """
    if name in saved_models():
        return saved_models()[name].weights
    preset = _preset(name)
    path = _folder(cache) / preset.file_name
    if not path.exists():
        _download(preset, path)
        return path
    _check_hash([file_digest(path, name) for name in preset.hashes], preset, path)
    return path


def _preset(name: str) -> Preset:
    if name not in PRESETS:
        names = [*saved_models(), *PRESETS]
        near = difflib.get_close_matches(str(name), names, 1)
        hint = f", did you mean {near[0]!r}?" if near else "."
        raise ValueError(
            f"no preset is named {name!r}{hint} There are {', '.join(names)}, and the paths of "
            f".keras files"
        )
    return PRESETS[name]


def _path(name: str) -> Path:
    return Path(os.path.expanduser(name))


def _folder(cache: str | os.PathLike | None) -> Path:
    folder = Path(cache or os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE)
    try:
        return folder.expanduser()
    except RuntimeError as error:
        raise OSError(f"{folder}: there is no home folder; {OTHER_CACHE}") from error


def _class_names(classes: Sequence[str] | None, num_classes: int | None) -> list[str] | None:
    """Return the names of new classes by the constructors' rules; None for those of the weights."""
    from rcnn_keras.models.arguments import check_arguments, name_classes

    if classes is None and num_classes is None:
        return None
    config: dict[str, Any] = {"classes": classes or (), "num_classes": num_classes}
    check_arguments(config)
    name_classes(config)
    return list(config["classes"])


def _download(preset: Preset, path: Path) -> None:
    """Download under a temporary name, so that a file at `path` is always complete."""
    import keras

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise OSError(f"{path.parent}: {error.strerror}; {OTHER_CACHE}") from error
    LOG.info("Downloading %s to %s", preset.url, path)
    hashed, done = [hashlib.new(name) for name in preset.hashes], 0
    with atomic_write(path) as temporary:
        try:
            with (
                urllib.request.urlopen(preset.url, timeout=TIMEOUT) as response,
                open(temporary, "wb") as file,
            ):
                bar = keras.utils.Progbar(int(response.headers.get("Content-Length", 0)) or None)
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    for one in hashed:
                        one.update(chunk)
                    done += len(chunk)
                    bar.update(done)
        except OSError as error:
            raise OSError(
                f"{preset.name} could not be fetched ({error}). On a machine that can, fetch "
                f"{preset.url} and put it at {path}"
            ) from error
        _check_hash([one.hexdigest() for one in hashed], preset, preset.url)


def _check_hash(digests: Sequence[str], preset: Preset, where: Any) -> None:
    if not any(digest.startswith(preset.digest) for digest in digests):
        found = " and ".join(digest[: len(preset.digest)] for digest in digests)
        names = " and ".join(HASHES[name] for name in preset.hashes)
        raise ValueError(
            f"{where}: the {names} begins with {found}, not with {preset.digest} as that of "
            f"{preset.file_name} should; the file is damaged or another one. Remove it and fetch "
            f"{preset.url}"
        )


def _published(preset: Preset, folder: Path) -> "Detector":
    """Return a published detector; converted once, then read from the cache."""
    import keras

    from rcnn_keras import __version__
    from rcnn_keras.convert import detectron2, torchvision

    path = folder / f"{preset.name}-{preset.digest}-{__version__}.keras"
    if path.exists():
        return keras.models.load_model(path, compile=False)
    source = fetch(preset.name, folder)
    if preset.project == "detectron2":
        model = detectron2.load(source, preset.network)
    else:
        model = torchvision.load(preset.network, source)
        model.freeze_backbone(None)
    if not os.access(folder, os.W_OK):
        LOG.warning("%s cannot be written: %s is converted at each call", folder, source)
        return model
    LOG.info("Converting %s to %s", source, path)
    model.save(path)
    return model


def _on_backbone(
    preset: Preset,
    classes: Sequence[str] | None,
    architecture: type["Detector"] | None,
    cache: str | os.PathLike | None,
    arguments: dict[str, Any],
) -> "Detector":
    """Return a new detector on a published backbone."""
    from rcnn_keras.convert import torchvision
    from rcnn_keras.models import FasterRCNN

    if classes is None:
        raise ValueError(f"{preset.name} is a backbone alone: classes or num_classes is needed")
    path = fetch(preset.name, cache)
    config = preset.on_backbone | arguments
    model = (architecture or FasterRCNN)(classes=classes, **config)
    torchvision.load_backbone(model, path)
    if "frozen_stages" not in arguments:
        model.freeze_backbone(None)
    LOG.info("%s: the backbone's weights are kept, all other layers are new", preset.name)
    return model
