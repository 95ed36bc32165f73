"""The detectors of four papers trained, scored, timed and drawn on the same images.

OUT/proposals/          of selective search, where none are given: train.npz, val.npz
OUT/trained/<name>/     a training run; finished.json names its model
OUT/scores/<name>.json  AP
OUT/timing.json, vgg16.json   test times
OUT/study.json          all that is on the page: family.html, family.md and pictures/
"""

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import keras
import yaml

from rcnn_keras.comparison import timing
from rcnn_keras.comparison.page import draw_side_by_side, write_pages
from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.masks import check_segmentations
from rcnn_keras.evaluation import VocScores, proposal_recall
from rcnn_keras.models import (
    RCNN,
    Detector,
    FasterRCNN,
    FastRCNN,
    MaskRCNN,
    load_detector,
    truncate_svd,
)
from rcnn_keras.parallel.resumable import Result, ResumableFolder, once
from rcnn_keras.proposals import METHODS, check_proposals, load_proposals, propose
from rcnn_keras.proposals.proposal_file import read_into
from rcnn_keras.proposals.propose import method_named
from rcnn_keras.runs.configuration import Configuration, validate
from rcnn_keras.runs.document import Document
from rcnn_keras.runs.run import train
from rcnn_keras.runs.scoring import evaluate
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.hashing import fingerprint

Builders: TypeAlias = Mapping[str, Callable[[], Detector]]

FINISHED = "finished.json"
SHOWN, SCENES = ("min_size", "epochs", "steps", "seed"), 2  # settings and pictures on the page
VOC_CLASSES = tuple(f"class {number}" for number in range(1, 21))


class Member(NamedTuple):
    """A line of the comparison; `made_of` is the member it is made from without training."""

    title: str
    model: type[Detector]
    architecture: str
    made_of: str | None = None


FAMILY = {  # in the order of the papers
    "rcnn": Member("R-CNN", RCNN, "rcnn"),
    "fast_rcnn": Member("Fast R-CNN", FastRCNN, "fast_rcnn"),
    "fast_rcnn_svd": Member("Fast R-CNN, truncated SVD", FastRCNN, "fast_rcnn", "fast_rcnn"),
    "faster_rcnn": Member("Faster R-CNN, joint training", FasterRCNN, "faster_rcnn"),
    "faster_rcnn_alternating": Member("Faster R-CNN, four steps", FasterRCNN, "faster_rcnn"),
    "mask_rcnn": Member("Mask R-CNN", MaskRCNN, "mask_rcnn"),
}


@dataclass(frozen=True)
class Settings:
    """What to compare, and how; the options of `rcnn compare`."""

    val: Path  # COCO file that all are scored on
    data: Path | None = None  # COCO file to train on; None where every detector is given
    images: Path | None = None  # folder of its images; default its folder, or `images/` there
    val_images: Path | None = None  # the same for `val`
    proposals: Path | None = None  # for `data`; by default selective search is run
    val_proposals: Path | None = None  # the same for `val`
    models: tuple[Path, ...] = ()  # trained detectors, loaded instead of trained
    skip: tuple[str, ...] = ()  # names of `FAMILY` that are left out
    epochs: int = 8  # of each but R-CNN; half as many in each of four steps
    steps: int = 1000  # of R-CNN's fine-tuning
    min_size: int = 240  # pixels of an image's shorter side, for all but R-CNN
    most_proposals: int = 2000  # an image, for R-CNN and Fast R-CNN
    timed_images: int = 5  # on how many the stages are timed
    repeats: int = 5  # how often each stage is timed on an image
    vgg16_images: int = 1  # on how many the papers' network is timed; 0 leaves it out
    threads: int = 2  # of TensorFlow and OpenCV
    seed: int = 0  # of weights, order and sampling

    def training(self) -> dict[str, str]:
        """Return the values that a trained detector depends on, as text to compare by."""
        names = ("data", "images", "proposals", "epochs", "steps", "min_size", "most_proposals")
        values = {name: getattr(self, name) for name in (*names, "seed")}
        return {k: str(v.resolve() if isinstance(v, Path) else v) for k, v in values.items()}


def compare(settings: Settings, out: Path, *, only_timing: bool = False, command: str = "") -> Path:
    """Train what is not there, score, time and draw all detectors, and write one page.

    Called again it goes on where it was stopped: finished detectors are loaded, what was scored
    and timed is read.

    Args:
        settings: what to do.
        out: the folder, made if missing.
        only_timing: measure the times again and train nothing.
        command: what to type to do this again, for the page.

    Returns:
        `OUT/family.html`.

    Raises:
        FileNotFoundError: a file is missing. This and the others are raised before any work.
        ValueError: `out` has a comparison of other settings; data, proposals or models do not fit
            each other; nothing is left to compare; or with `only_timing` one is not trained.
    """
    given = load_given(settings)
    sources = Sources(settings, out, next((model.classes for _, model in given.values()), None))
    names = members(settings, sources, {name: model for name, (_, model) in given.items()})
    folder = ResumableFolder(out / "trained", settings.training(), "detectors")
    missing = [n for n in names if n not in given and f"{n}/{FINISHED}" not in folder]
    if only_timing and missing:
        raise ValueError(f"{out} has no trained {', '.join(missing)} to time")
    takes = any(FAMILY[name].model.takes_proposals for name in names)
    if takes or settings.vgg16_images:
        sources.propose()

    files = {name: path for name, (path, _) in given.items()}
    minutes = dict.fromkeys(given, "given")
    for name in names:
        if name not in given:
            made_of = files.get(FAMILY[name].made_of or "")
            trained = train_member(name, settings, sources, folder.path(name), made_of)
            files[name], minutes[name] = folder.path(name) / trained["model"], trained["minutes"]
    files = {name: files[name] for name in names}
    val = [_version(f) for f in (settings.val, sources.proposals("val")) if f.exists()]
    results = {}
    for name, file in files.items():
        key, score = fingerprint(_version(file), val), partial(_score, file, sources)
        scores = once(out / "scores" / f"{name}.json", key, score, replace=True).values
        results[name] = {"scores": scores, "training": minutes[name]}

    def measure(file: Path, build: Builders, images: int, *key: Any) -> Any:
        if only_timing:
            file.unlink(missing_ok=True)
        key = (*key, images, settings.repeats, val)
        work = partial(_time, build, settings, sources, images)
        return once(file, fingerprint(*key), work, replace=True).values

    load = {name: partial(load_detector, file) for name, file in files.items()}
    versions = [_version(file) for file in files.values()]
    times = measure(out / "timing.json", load, settings.timed_images, versions)
    vgg16 = None
    if settings.vgg16_images:
        build = {n: partial(_vgg16, n) for n in _recipe("vgg16")}
        vgg16 = measure(out / "vgg16.json", build, settings.vgg16_images)
    search = proposal_recall(sources.dataset("val", proposals=True)) if takes else None
    study = {
        "data": _describe(sources, settings),
        "search": search and search | {"seconds": times["search"]},
        "rows": [{"title": FAMILY[n].title, **results[n]} for n in names],
        "timing": times,
        "vgg16": vgg16,
        "pictures": _draw(files, sources, out),
        "command": command,
    }
    with atomic_write(out / "study.json") as temporary:
        temporary.write_text(json.dumps(study, indent=2) + "\n", "utf-8")
    return write_pages(out, [study])


class Sources:
    """Images to train on and to score on, with ground truth and proposals.

    Raises:
        DatasetError: a file cannot be used.
        ValueError: the two have different classes, or proposals are of other images.
    """

    def __init__(self, settings: Settings, out: Path, classes: tuple[str, ...] | None = None):
        self.settings, self.folder = settings, out / "proposals"
        self._files = {"val": (settings.val, settings.val_images, settings.val_proposals)}
        if settings.data is not None:
            train = (settings.data, settings.images, settings.proposals)
            self._files = {"train": train} | self._files
        self._sets: dict[str, DetectionDataset] = {}
        for part, (annotations, images, proposals) in self._files.items():
            self._sets[part] = load_coco(annotations, images, classes=classes)
            classes = self._sets[part].classes
            if proposals is not None:
                check_proposals(load_proposals(proposals), self._sets[part])
        self.classes = self._sets["val"].classes
        self.has_masks = True  # of every object of both
        try:
            for dataset in self._sets.values():
                check_segmentations(dataset)
        except ValueError:
            self.has_masks = False

    def dataset(self, part: str, *, proposals: bool = False) -> DetectionDataset:
        """Return the images of `"train"` or `"val"`, with their proposals if they are wanted."""
        if not proposals:
            return self._sets[part]
        return read_into(self._sets[part], self.proposals(part), self.settings.most_proposals)

    def files(self, part: str, member: Member) -> dict[str, str]:
        """Return the files of `"train"` or `"val"` as a member's configuration names them."""
        annotations, images, _ = self._files[part]
        proposals = self.proposals(part) if member.model.takes_proposals else None
        files = {"annotations": annotations, "images": images, "proposals": proposals}
        return {name: str(path) for name, path in files.items() if path is not None}

    def proposals(self, part: str) -> Path:
        """Return the file of the proposals of `"train"` or `"val"`."""
        return self._files[part][2] or self.folder / f"{part}.npz"

    def propose(self) -> None:
        """Search the images of which no proposals are given or were found before."""
        for part, images in self._sets.items():
            if not self.proposals(part).exists():
                print(f"selective search of {len(images)} images", flush=True)
                propose(images, self.proposals(part), workers=self.settings.threads)


def load_given(settings: Settings) -> dict[str, tuple[Path, Detector]]:
    """Load the models that are given, by their names in `FAMILY`, which their classes tell.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a model is no detector of the family, two are of one class, or their objects'
            classes differ; or there are proposals to train on and no data.
    """
    if settings.data is None and (settings.images or settings.proposals):
        raise ValueError("images and proposals to train on are given without data to train on")
    inputs = (settings.val, settings.data, settings.proposals, settings.val_proposals)
    for path in (*inputs, *settings.models):
        if path is not None and not path.exists():
            raise FileNotFoundError(f"{path}: no such file")
    given: dict[str, tuple[Path, Detector]] = {}
    for path in settings.models:
        model = load_detector(path)
        name = next((n for n, member in FAMILY.items() if type(model) is member.model), None)
        if name is None:
            raise ValueError(f"{path} is a {type(model).__name__}, which is not compared")
        if name in given:
            raise ValueError(f"{given[name][0]} and {path} are both {FAMILY[name].title}")
        for other, first in given.values():
            ours, theirs = list(model.classes), list(first.classes)
            if ours != theirs:
                raise ValueError(f"the classes of {path} are {ours}, those of {other} {theirs}")
        given[name] = path, model
    return given


def members(settings: Settings, sources: Sources, given: Mapping[str, Detector]) -> list[str]:
    """Return the names of those that are compared, in the order of the papers.

    Without training data those that are given; without masks no Mask R-CNN.

    Raises:
        ValueError: nobody is left, or a Mask R-CNN is given and an object has no mask.
    """
    if "mask_rcnn" in given:
        check_segmentations(sources.dataset("val"))
    names = []
    for name, member in FAMILY.items():
        trainable = settings.data is not None and (sources.has_masks or name != "mask_rcnn")
        if member.made_of is not None:
            original = given.get(member.made_of)
            trainable = member.made_of in names and (original is None or bool(ranks_of(original)))
        if (name in given or trainable) and name not in settings.skip:
            names.append(name)
    if not names:
        raise ValueError("there is nothing to compare: give --data to train on, or models")
    return names


def train_member(
    name: str, settings: Settings, sources: Sources, folder: Path, made_of: Path | None = None
) -> dict[str, str]:
    """Train a member of the family in a folder, or go on with it.

    Returns:
        `model`, the file's name in that folder, and how long the training took as `minutes`. One
        that is `made_of` another model is not trained.
    """

    def make() -> Result:
        if made_of is not None:
            model = load_detector(made_of)
            ranks = ranks_of(model)
            assert isinstance(model, FastRCNN)
            assert ranks is not None  # `members` has checked it
            with atomic_write(folder / "model.keras") as temporary:
                truncate_svd(model, ranks).save(temporary)
            return Result({"model": "model.keras", "minutes": "none"})
        began, least = time.monotonic(), "at least " if folder.exists() else ""
        if not (folder / "report.html").exists():  # the last that a run writes
            train(configuration(name, settings, sources), folder)
        minutes = f"{least}{(time.monotonic() - began) / 60:.1f} min"
        return Result({"model": "best.keras", "minutes": minutes})

    key = fingerprint(made_of and _version(made_of))
    return once(folder / FINISHED, key, make, replace=True).values


def configuration(name: str, settings: Settings, sources: Sources) -> Configuration:
    """Return the training run of a member of the family; `recipes.yaml` with the settings."""
    recipe = _recipe("rcnn" if name == "rcnn" else "shared")
    member, model, training = FAMILY[name], recipe["model"], recipe["training"]
    model["architecture"], training["seed"] = member.architecture, settings.seed
    recipe["data"] |= {part: [sources.files(part, member)] for part in ("train", "val")}
    recipe["data"] |= {"classes": list(sources.classes), "max_proposals": settings.most_proposals}
    if name == "rcnn":
        training["steps"] = settings.steps
    else:
        model |= {"min_size": settings.min_size, "max_size": 2 * settings.min_size}
        if member.model.takes_proposals:
            model["roi_pooling"] = "align"  # a pyramid needs it
        else:  # torchvision's, a size a level, which are for images of 800 pixels
            sizes = (settings.min_size / 800 * size for size in (32, 64, 128, 256, 512))
            model["anchor_sizes"] = [[float(round(size))] for size in sizes]
        if name == "faster_rcnn_alternating":
            epochs = max(1, settings.epochs // 2)
            training |= {"epochs": epochs, "alternating": {"detector_epochs": epochs}}
        else:
            training |= {"epochs": settings.epochs, "evaluate_every": settings.epochs}
    return validate(Document(Path("rcnn compare"), recipe))


def ranks_of(model: Detector) -> tuple[int, int] | None:
    """Return how many singular values are kept of fc6 and fc7: a fourth and a sixteenth.

    That is 1024 and 256 of VGG-16's 4096, as in the paper. Narrow layers have less to spare, and
    keep at least 128 and 64. None for a head without whole layers.
    """
    if not isinstance(model, FastRCNN):
        return None
    layers = {layer.name: layer for layer in model.box_head.trunk.layers}
    if not {"fc6", "fc7"} <= set(layers) or "fc6_v" in layers:
        return None
    fc6, fc7 = layers["fc6"].units, layers["fc7"].units
    return min(fc6, max(128, fc6 // 4)), min(fc7, max(64, fc7 // 16))


def _recipe(name: str) -> dict[str, Any]:
    recipes = resources.files("rcnn_keras.comparison").joinpath("recipes.yaml")
    return yaml.safe_load(recipes.read_text("utf-8"))[name]


def _vgg16(name: str) -> Detector:
    keras.utils.set_random_seed(0)
    build: Any = FAMILY[name].model
    return build("vgg16", VOC_CLASSES, **_recipe("vgg16")[name])


def _score(file: Path, sources: Sources) -> Result:
    """Return AP as COCO and as VOC 2007 (11 points, IoU 0.5) count it, from the same detections."""
    print(f"scoring {file}", flush=True)
    model = load_detector(file)
    dataset = sources.dataset("val", proposals=model.takes_proposals)
    evaluation = evaluate(model, dataset)
    summary: Mapping[str, float] = evaluation.summary()
    found = {n: summary[n] for n in ("AP", "AP50", "mask_AP", "mask_AP50") if n in summary}
    found["voc07"] = VocScores(dataset, evaluation.results, protocol="voc07").summary()["mAP"]
    return Result({name: None if math.isnan(value) else value for name, value in found.items()})


def _time(build: Builders, settings: Settings, sources: Sources, images: int) -> Result:
    """Time detectors, one after the other, and the search for proposals on the same images."""
    takes = any(FAMILY[name].model.takes_proposals for name in build)
    dataset = timing.spread(sources.dataset("val", proposals=takes), images)
    found = {"images": f"{len(dataset)} of {_sizes(dataset)} pixels"}
    found |= {"runs of each stage": f"the median of up to {settings.repeats}"}
    found |= timing.circumstances(settings.threads)
    searched, rows = None, []
    header: Mapping[str, Any] = load_proposals(sources.proposals("val")).header if takes else {}
    if header.get("method") in METHODS:  # others cannot be run again
        search = partial(method_named(header["method"]), **header["arguments"])
        searched = timing.time_search(search, dataset, settings.repeats)
    for name, make in build.items():
        print(f"timing {FAMILY[name].title} on {len(dataset)} images", flush=True)
        model = make()
        seconds: dict[str, Any] = timing.time_detector(model, dataset, settings.repeats)
        sums = {"boxes": seconds.pop("boxes"), "cpu": seconds.pop("cpu")}
        if model.takes_proposals:
            seconds["proposals"] = searched
        rows.append({"title": FAMILY[name].title, **sums, "seconds": seconds})
    return Result({"circumstances": found, "search": searched, "rows": rows})


def _describe(sources: Sources, settings: Settings) -> dict[str, Any]:
    """Return what the page says of the data and the training, as rows of a table."""
    val = sources.dataset("val")
    found: dict[str, Any] = {
        "name": f"{settings.val.resolve().parent.name}/{settings.val.name}",
        "images to score on": len(val),
        "objects to score on": sum(int((~record.crowd).sum()) for record in val),
        "classes": len(sources.classes),
        "pixels": _sizes(val),
        "masks": "yes" if sources.has_masks else "no, and so no Mask R-CNN",
    }
    if settings.data is not None:
        found["images to train on"] = len(sources.dataset("train"))
        found |= {name.replace("_", " "): getattr(settings, name) for name in SHOWN}
    return found


def _draw(files: dict[str, Path], sources: Sources, out: Path) -> list[str]:
    """Draw some images with what the detectors find; return the files' names."""
    shown = {FAMILY[n].model.__name__: f for n, f in reversed(files.items())}  # one of each class
    models = {name: load_detector(file) for name, file in reversed(shown.items())}
    takes = any(model.takes_proposals for model in models.values())
    val = sources.dataset("val", proposals=takes)
    records = [record for record in val if (~record.crowd).any()]
    links = []
    scenes = timing.spread(DetectionDataset(records, val.classes), SCENES)
    for number, record in enumerate(scenes, start=1):
        one = DetectionDataset([record], val.classes)
        found = {name: model.detect(one)[0] for name, model in models.items()}
        links.append(f"pictures/scene_{number}.png")
        draw_side_by_side(out / links[-1], record, val.classes, found)
    return links


def _sizes(dataset: DetectionDataset) -> str:
    """Return the sizes of the images as text, the smallest and the largest if they differ."""
    sizes = sorted({(r.height * r.width, f"{r.width}x{r.height}") for r in dataset})
    return " to ".join(dict.fromkeys([sizes[0][1], sizes[-1][1]]))


def _version(path: Path) -> list[Any]:
    """Return what tells a file from another, and from itself after a change."""
    return [str(path.resolve()), path.stat().st_mtime]
