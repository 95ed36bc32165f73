"""Trained weights by name: their files, licences and scores; and models with them.

The small models in `saved_models/` come with the package. The published files are torchvision's,
under its BSD-3-Clause licence; COCO and ImageNet, which the models were trained on, have their own
terms. Their names end in the first eight hexadecimal digits of their SHA-256, against which a file
is checked.
"""

import difflib
import hashlib
import inspect
import os
import tempfile
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rcnn_keras import __version__
from rcnn_keras.zoo import ShippedDetector, saved_models

if TYPE_CHECKING:
    from rcnn_keras.models import FasterRCNN

CACHE_VARIABLE = "RCNN_KERAS_CACHE"
DEFAULT_CACHE = Path("~/.cache/rcnn_keras")
SERVER = "https://download.pytorch.org/models/"
TIMEOUT = 30  # seconds without an answer
CHUNK = 1 << 20


@dataclass(frozen=True)
class Preset:
    """Published weights.

    Attributes:
        name: in `from_preset`.
        network: torchvision's name of the detector, or of the classifier of the backbone.
        url: of the file.
        megabytes: size of the file.
        num_classes: number of the detector's classes; 0 for a backbone.
        box_ap: COCO's AP of boxes on val2017 in percent, as torchvision's authors report it.
        mask_ap: COCO's AP of masks in percent, likewise.
        top1: a classifier's accuracy on ImageNet in percent, likewise.
        licence: of the file.
    """

    name: str
    network: str
    url: str
    megabytes: int
    num_classes: int = 0
    box_ap: float | None = None
    mask_ap: float | None = None
    top1: float | None = None
    licence: str = "BSD-3-Clause"

    @property
    def file_name(self) -> str:
        """Name of the published file."""
        return self.url.rpartition("/")[-1]

    @property
    def sha256(self) -> str:
        """First eight hexadecimal digits of the file's SHA-256."""
        return Path(self.file_name).stem.rpartition("-")[-1]

    @property
    def on_backbone(self) -> dict[str, Any]:
        """Arguments of a detector on a classifier's backbone."""
        return {"backbone": f"{self.network}_fpn", "norm": "frozen_batch"}


def _detector(
    network: str, file: str, megabytes: int, box_ap: float, mask_ap: float | None = None
) -> Preset:
    url = f"{SERVER}{network}{file}.pth"
    return Preset(f"{network}_coco", network, url, megabytes, 90, box_ap, mask_ap)


def _backbone(network: str, file: str, megabytes: int, top1: float, recipe: str = "") -> Preset:
    url = f"{SERVER}{network}{file}.pth"
    return Preset(f"{network}_imagenet{recipe}", network, url, megabytes, top1=top1)


PRESETS = {
    preset.name: preset
    for preset in (
        _detector("fasterrcnn_resnet50_fpn", "_coco-258fb6c6", 160, 37.0),
        _detector("fasterrcnn_resnet50_fpn_v2", "_coco-dd69338a", 167, 46.7),
        _detector("fasterrcnn_mobilenet_v3_large_fpn", "-fb6a3cc7", 74, 32.8),
        _detector("fasterrcnn_mobilenet_v3_large_320_fpn", "-907ea3f9", 74, 22.8),
        _detector("maskrcnn_resnet50_fpn", "_coco-bf2d0c1e", 170, 37.9, 34.6),
        _detector("maskrcnn_resnet50_fpn_v2", "_coco-73cbd019", 177, 47.4, 41.8),
        _backbone("resnet18", "-f37072fd", 45, 69.758),
        _backbone("resnet34", "-b627a593", 83, 73.314),
        _backbone("resnet50", "-0676ba61", 98, 76.130),
        _backbone("resnet50", "-11ad3fa6", 98, 80.858, "_v2"),
        _backbone("resnet101", "-63fe2227", 171, 77.374),
        _backbone("resnet101", "-cd907fc2", 171, 81.886, "_v2"),
        _backbone("mobilenet_v3_large", "-8738ca79", 21, 74.042),
        _backbone("mobilenet_v3_large", "-5c1a4163", 21, 75.274, "_v2"),
    )
}


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
    architecture: type["FasterRCNN"] | None = None,
    cache: str | os.PathLike | None = None,
    **arguments: Any,
) -> "FasterRCNN":
    """Return a detector with trained weights: shipped, published, or of a `.keras` file.

    A name of `saved_models/` gives the small model that comes with the package, offline; a
    published detector's preset gives that detector, downloaded at the first call; a file that this
    package saved gives the one in it. `classes` (or `num_classes`) gives it other classes: the
    layers that predict classes, boxes and masks are re-initialised, all others keep their weights,
    and a printed line names both. In a published detector, as in torchvision, the backbone's first
    stages are frozen; any other model has as many frozen as it was saved with. `frozen_stages`
    changes that; see `freeze_backbone`.

    A backbone's preset gives a new detector on that backbone with `norm="frozen_batch"`; `classes`
    is needed.

    Args:
        name: of `list_presets()`, or the path of a `.keras` file.
        classes: class names, without the background.
        num_classes: K, for the classes "1" .. "K".
        architecture: `FasterRCNN` or `MaskRCNN`; by default that of the weights, for a
            backbone `FasterRCNN`. A mask head that the weights lack is newly initialised.
        cache: folder for downloaded and converted files; by default that in the environment
            variable RCNN_KERAS_CACHE, or `~/.cache/rcnn_keras`.
        arguments: of the constructor, instead of those that the weights were trained with.

    Raises:
        ValueError: for an unknown name; for arguments that do not fit the weights; for a published
            file with another hash, a damaged file of the package, and a `.keras` file without a
            detector.
        OSError: if a file is missing or cannot be downloaded; says where to get it and where to
            put it.
    """
    name = os.fspath(name)
    errors = preset_conflicts(name, arguments)
    if errors:
        lines = (f"{key} {rule}; received {arguments[key]!r}" for key, rule in errors.items())
        raise ValueError("\n".join(f"{name}: {line}" for line in lines))
    names = _class_names(classes, num_classes)
    if name in saved_models():
        from rcnn_keras.convert.saved_detectors import load_half_precision

        source = load_half_precision(saved_models()[name].folder)
    elif is_path(name):
        from rcnn_keras.convert.saved_detectors import load_saved

        source = load_saved(_path(name))
    else:
        preset = _preset(name)
        if not preset.num_classes:
            return _on_backbone(preset, names, architecture, cache, arguments)
        source = _published(preset, _folder(cache))
    architecture = architecture or type(source)
    if names is None and not arguments and architecture is type(source):
        return source
    from rcnn_keras.convert.weights import transfer

    config = source.get_config() | arguments | {"name": None}
    config["classes"] = list(source.classes) if names is None else names
    model = architecture.from_config(config)
    kept, new = transfer(source, model)
    print(f"{name}: weights kept in {', '.join(kept)}; new: {', '.join(new) or 'nothing'}")
    return model


def check_name(name: str) -> None:
    """Raise ValueError, with the nearest name, unless this is a preset's name; loads nothing."""
    if name not in saved_models():
        _preset(name)


def is_path(name: str) -> bool:
    """Return whether a name is the path of a file, and not the name of a preset."""
    return name.endswith(".keras") or os.sep in name


def preset_arguments(name: str) -> dict[str, Any]:
    """Return the constructor's arguments of a preset or a `.keras` file, without classes and seed.

    Nothing is downloaded, and no weights are read.

    Raises:
        ValueError, OSError: as `from_preset`.
    """
    from rcnn_keras.models import FasterRCNN

    signature = inspect.signature(FasterRCNN).parameters
    config = {key: parameter.default for key, parameter in signature.items()}
    if is_path(name):
        from rcnn_keras.convert.saved_detectors import saved_arguments

        config |= saved_arguments(_path(name))
    elif name in saved_models():
        from rcnn_keras.convert.saved_detectors import read_model

        config |= read_model(saved_models()[name].folder)["config"]
    else:
        from rcnn_keras.convert.torchvision import DETECTORS

        preset = _preset(name)
        config["norm"] = "frozen_batch"
        config |= DETECTORS[preset.network][1] if preset.num_classes else preset.on_backbone
    return {key: value for key, value in config.items() if key not in ("classes", "seed", "name")}


def preset_conflicts(name: str, arguments: Mapping[str, Any]) -> dict[str, str]:
    """Return each argument that conflicts with a preset's weights, and its rule.

    Raises:
        ValueError, OSError: as `from_preset`.
    """
    from rcnn_keras.convert.weights import OF_HEADS, conflicts

    config = preset_arguments(name)
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
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    _check_hash(digest, preset, path)
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
    return Path(name).expanduser()


def _folder(cache: str | os.PathLike | None) -> Path:
    return Path(cache or os.environ.get(CACHE_VARIABLE) or DEFAULT_CACHE).expanduser()


def _class_names(classes: Sequence[str] | None, num_classes: int | None) -> list[str] | None:
    if num_classes is None:
        return None if classes is None else list(classes)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(f"num_classes must be a whole number above 0; received {num_classes!r}")
    if classes is None:
        return [str(number + 1) for number in range(num_classes)]
    if len(classes) != num_classes:
        raise ValueError(f"num_classes={num_classes}, but classes has {len(classes)} names")
    return list(classes)


def _download(preset: Preset, path: Path) -> None:
    """Download under a temporary name, so that a file at `path` is always complete."""
    import keras

    print(f"Downloading {preset.url} to {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    hashed, done = hashlib.sha256(), 0
    with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as folder:
        temporary = Path(folder) / path.name
        try:
            with (
                urllib.request.urlopen(preset.url, timeout=TIMEOUT) as response,
                open(temporary, "wb") as file,
            ):
                bar = keras.utils.Progbar(int(response.headers.get("Content-Length", 0)) or None)
                while chunk := response.read(CHUNK):
                    file.write(chunk)
                    hashed.update(chunk)
                    done += len(chunk)
                    bar.update(done)
        except OSError as error:
            raise OSError(
                f"{preset.name} could not be fetched ({error}). On a machine that can, fetch "
                f"{preset.url} and put it at {path}"
            ) from error
        _check_hash(hashed.hexdigest(), preset, preset.url)
        os.replace(temporary, path)


def _check_hash(digest: str, preset: Preset, where: Any) -> None:
    if not digest.startswith(preset.sha256):
        raise ValueError(
            f"{where}: the SHA-256 begins with {digest[:8]}, not with {preset.sha256} as that of "
            f"{preset.file_name} should; the file is damaged or another one. Remove it and fetch "
            f"{preset.url}"
        )


def _published(preset: Preset, folder: Path) -> "FasterRCNN":
    """Return a published detector; converted once, then read from the cache."""
    import keras

    from rcnn_keras.convert import torchvision

    path = folder / f"{preset.name}-{preset.sha256}-{__version__}.keras"
    if path.exists():
        return keras.models.load_model(path, compile=False)
    source = fetch(preset.name, folder)
    print(f"Converting {source} to {path}")
    model = torchvision.load(preset.network, source)
    model.freeze_backbone()
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=folder) as temporary:
        model.save(Path(temporary) / path.name)
        os.replace(Path(temporary) / path.name, path)
    return model


def _on_backbone(preset, classes, architecture, cache, arguments) -> "FasterRCNN":
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
        model.freeze_backbone()
    print(f"{preset.name}: the backbone's weights are kept, all other layers are new")
    return model
