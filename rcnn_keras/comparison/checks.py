"""What can be wrong with a comparison, found before any long work."""

from pathlib import Path

from rcnn_keras.comparison.family import FAMILY, name_of
from rcnn_keras.comparison.files import read_json, write_json
from rcnn_keras.comparison.settings import Settings
from rcnn_keras.comparison.sources import Sources
from rcnn_keras.comparison.trainings import ranks_of, trained
from rcnn_keras.data.masks import check_segmentations
from rcnn_keras.models import Detector, MaskRCNN
from rcnn_keras.models.loading import load_detector

SETTINGS = "settings.json"


def load_given(settings: Settings) -> dict[str, Detector]:
    """Load the models that are given.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is no detector, stands in another's place, or has other classes; or there
            are proposals to train on and no data.
    """
    if settings.data is None and (settings.images or settings.proposals):
        raise ValueError("images and proposals to train on are given without data to train on")
    for path in (settings.val, settings.data, settings.proposals, settings.val_proposals):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
    models: dict[str, Detector] = {}
    for name, path in settings.models.items():
        if not path.exists():
            raise FileNotFoundError(f"model {path}: no such file")
        models[name] = load_detector(path)
        if not isinstance(models[name], FAMILY[name].model):
            raise ValueError(f"{path} is a {type(models[name]).__name__}, not {FAMILY[name].title}")
        first = next(iter(models))
        if models[name].classes != models[first].classes:
            raise ValueError(
                f"the classes of {path} are {list(models[name].classes)}, those of "
                f"{settings.models[first]} {list(models[first].classes)}"
            )
    return models


def place_models(paths: tuple[Path, ...]) -> dict[str, Path]:
    """Return trained models by their places in the comparison, told by their classes.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is no detector, or two are of one kind.
    """
    places: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"model {path}: no such file")
        name = name_of(load_detector(path))
        if name in places:
            raise ValueError(f"{places[name]} and {path} are both {FAMILY[name].title}")
        places[name] = path
    return places


def members(settings: Settings, sources: Sources, given: dict[str, Detector]) -> list[str]:
    """Return who is compared, in the order of the papers.

    Without training data those that are given; without masks no Mask R-CNN.

    Raises:
        ValueError: nobody is left, or a Mask R-CNN is given and an object has no mask.
    """
    if "mask_rcnn" in given:
        check_segmentations(sources.val_set())
    names = [name for name in FAMILY if name in given]
    if settings.data is not None:
        names = [name for name, member in FAMILY.items() if member.made_of is None]
        if not sources.has_masks and "mask_rcnn" not in given:
            names = [name for name in names if FAMILY[name].model is not MaskRCNN]
    names = [name for name in names if name not in settings.skip]
    for name, member in FAMILY.items():
        if member.made_of in names and name not in settings.skip:
            model = given.get(member.made_of)
            if model is None or ranks_of(model) is not None:
                names.append(name)
    if not names:
        raise ValueError("there is nothing to compare: give --data to train on, or models")
    return [name for name in FAMILY if name in names]


def check_folder(settings: Settings, out: Path, names: list[str], *, train: bool) -> None:
    """See that a folder is new or of the same comparison, and note whose it is.

    Args:
        settings: of the comparison.
        out: its folder.
        names: who is compared.
        train: whether those that are missing may be trained.

    Raises:
        FileExistsError: it holds detectors that were trained otherwise.
        ValueError: a detector is missing and may not be trained.
    """
    missing = [n for n in names if n not in settings.models and trained(n, out) is None]
    if missing and not train:
        raise ValueError(f"{out} has no trained {', '.join(missing)} to time")
    if settings.data is None:
        return
    ours, theirs = settings.training(), read_json(out / SETTINGS)
    if theirs is None:
        write_json(out / SETTINGS, ours)
    elif theirs != ours:
        changes = [
            f"{k}: {theirs.get(k)} there, {v} now" for k, v in ours.items() if theirs.get(k) != v
        ]
        raise FileExistsError(
            f"{out} holds a comparison of other settings ({'; '.join(changes)}): name another "
            "folder, or give the same settings"
        )
