"""The whole comparison on one data set, in a folder that a stopped one goes on from.

OUT/settings.json     what the detectors were trained with
OUT/proposals/        see `sources`
OUT/<name>/           see `trainings`; compared.json has the scores
OUT/timing.json       test times
OUT/vgg16/            test times of the papers' network
OUT/pictures/         the same images through all detectors
OUT/study.json        all that the page says
OUT/family.html, family.md   the page
"""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from rcnn_keras.comparison.checks import check_folder, load_given, members
from rcnn_keras.comparison.family import FAMILY
from rcnn_keras.comparison.files import read_json, write_json
from rcnn_keras.comparison.machine import busy_share, describe_machine
from rcnn_keras.comparison.page import write_pages
from rcnn_keras.comparison.pictures import choose, draw_side_by_side
from rcnn_keras.comparison.scores import score
from rcnn_keras.comparison.settings import Settings
from rcnn_keras.comparison.sources import FOLDER, Sources
from rcnn_keras.comparison.stopwatch import elapsed
from rcnn_keras.comparison.timing import count_proposals, spread, time_detector, time_search
from rcnn_keras.comparison.trainings import STOPWATCH, train_member, trained
from rcnn_keras.comparison.vgg16 import ARGUMENTS, time_vgg16
from rcnn_keras.models import Detector
from rcnn_keras.models.loading import load_detector

SCENES = 2  # pictures on the page


def compare(settings: Settings, out: Path, *, only_timing: bool = False, command: str = "") -> Path:
    """Train what is not there, score, time and draw all detectors, and write one page.

    Called again it goes on where it was stopped: finished detectors are loaded, what was scored
    and timed is read.

    Args:
        settings: what to do.
        out: the folder, made if missing.
        only_timing: take the times anew and train nothing.
        command: what to type to do this again, for the page.

    Returns:
        `OUT/family.html`.

    Raises:
        FileNotFoundError: before any work, a file is missing.
        FileExistsError: before any work, `out` has a comparison of other settings.
        ValueError: before any work, data, proposals or models do not fit each other, nothing is
            left to compare, or with `only_timing` a detector is not trained.
    """
    given = load_given(settings)
    classes = next((model.classes for model in given.values()), None)
    sources = Sources(settings, out, classes)
    names = members(settings, sources, given)
    check_folder(settings, out, names, train=not only_timing)

    takes = any(FAMILY[name].model.takes_proposals for name in names)
    if takes or settings.vgg16_images:
        sources.propose()
    files = dict(settings.models)
    for name in names:
        if name not in files:
            made_of = files.get(FAMILY[name].made_of or "")
            path = trained(name, out)
            files[name] = path or train_member(name, settings, sources, out, made_of)
    files = {name: files[name] for name in names}

    key: dict[str, Any] = {"files": {name: _version(path) for name, path in files.items()}}
    key |= {"images": settings.timed_images, "repeats": settings.repeats, **_data(sources)}
    timing = _once(
        out / "timing.json", key, partial(_time, settings, sources, files), again=only_timing
    )
    vgg16 = None
    if settings.vgg16_images:
        vgg16 = _time_papers(settings, sources, out, only_timing)
    scores = {name: _scores(files[name], sources, out / name) for name in names}
    minutes = {
        name: None if name in settings.models else str(elapsed(out / name / STOPWATCH))
        for name in names
    }
    study = {
        "data": _describe(sources, settings),
        "search": sources.recall() | {"minutes": str(elapsed(out / FOLDER / STOPWATCH))}
        if takes
        else None,
        "rows": [
            {
                "name": name,
                "title": FAMILY[name].title,
                "minutes": minutes[name],
                "scores": scores[name],
                **timing["detectors"][name],
            }
            for name in names
        ],
        "timing": {key: timing[key] for key in timing if key != "detectors"},
        "vgg16": vgg16,
        "pictures": _draw(files, sources, out),
        "command": command,
    }
    write_json(out / "study.json", study)
    return write_pages(out, [study])


def _once(
    path: Path, key: dict[str, Any], measure: Callable[[], dict[str, Any]], *, again: bool = False
) -> dict[str, Any]:
    """Return what was measured before of the same key, or measure it."""
    known = None if again else read_json(path)
    if known is None or known["key"] != key:
        known = {"key": key, "values": measure()}
        write_json(path, known)
    return known["values"]


def _version(path: Path) -> list[Any]:
    """Return what tells a file from another, and from itself after a change."""
    return [str(path.resolve()), path.stat().st_mtime]


def _data(sources: Sources) -> dict[str, Any]:
    """Return what tells the images that are scored and timed, and their proposals, from others."""
    files = (sources.settings.val, sources.proposals("val"))
    return {"val": [_version(path) for path in files if path.exists()]}


def _circumstances(settings: Settings) -> dict[str, Any]:
    """Return when and where times are taken."""
    return {
        "when": time.strftime("%Y-%m-%d"),
        "busy": busy_share(),
        "machine": describe_machine(settings.threads),
        "repeats": settings.repeats,
    }


def _time(settings: Settings, sources: Sources, files: dict[str, Path]) -> dict[str, Any]:
    """Time every detector and the search on the same images."""
    found = _circumstances(settings)
    models = {name: load_detector(path) for name, path in files.items()}
    takes = any(model.takes_proposals for model in models.values())
    dataset = spread(sources.val_set(proposals=takes), settings.timed_images)
    search = sources.search() if takes else None
    seconds = time_search(search, dataset, settings.repeats) if search else None
    detectors = {}
    for name, model in models.items():
        print(f"timing {FAMILY[name].title} on {len(dataset)} images", flush=True)
        parts: dict[str, float | None] = dict(time_detector(model, dataset, settings.repeats))
        if model.takes_proposals:
            parts["proposals"] = seconds
        cpu, boxes = parts.pop("cpu"), count_proposals(model, dataset)
        detectors[name] = {"parts": parts, "cpu": cpu, "boxes": boxes}
    return found | {"images": len(dataset), "detectors": detectors}


def _time_papers(settings: Settings, sources: Sources, out: Path, again: bool) -> dict[str, Any]:
    """Time the papers' network on images of the same data, a detector at a time."""
    key = {"images": settings.vgg16_images, "repeats": settings.repeats, **_data(sources)}
    dataset = spread(sources.val_set(proposals=True), settings.vgg16_images)
    search = sources.search()

    def circumstances() -> dict[str, Any]:
        seconds = time_search(search, dataset, settings.repeats) if search else None
        return _circumstances(settings) | {"search": seconds}

    folder = out / "vgg16"
    found = _once(folder / "search.json", key, circumstances, again=again)
    rows = []
    for name in ARGUMENTS:
        print(f"timing {FAMILY[name].title} on VGG-16 on {len(dataset)} images", flush=True)
        measure = partial(time_vgg16, name, dataset, settings.repeats)
        parts: dict[str, Any] = _once(folder / f"{name}.json", key, measure, again=again)
        cpu, boxes = parts.pop("cpu"), parts.pop("boxes")
        if FAMILY[name].model.takes_proposals:
            parts["proposals"] = found["search"]
        row = {"name": name, "title": FAMILY[name].title}
        rows.append(row | {"cpu": cpu, "boxes": boxes, "parts": parts})
    rows.sort(key=lambda row: list(FAMILY).index(str(row["name"])))
    return found | {"images": len(dataset), "sizes": _sizes(dataset), "rows": rows}


def _scores(path: Path, sources: Sources, folder: Path) -> dict[str, float | None]:
    """Score a model, or read its scores if they are of this very file and data."""

    def measure() -> dict[str, float | None]:
        print(f"scoring {path}", flush=True)
        model = load_detector(path)
        return score(model, sources.val_set(proposals=model.takes_proposals))

    return _once(folder / "compared.json", {"file": _version(path), **_data(sources)}, measure)


def _describe(sources: Sources, settings: Settings) -> dict[str, Any]:
    val = sources.val_set()
    return {
        "name": f"{settings.val.resolve().parent.name}/{settings.val.name}",
        "classes": list(sources.classes),
        "train_images": len(sources.train_set()) if settings.data else None,
        "val_images": len(val),
        "val_objects": sum(int((~record.crowd).sum()) for record in val),
        "sizes": _sizes(val),
        "has_masks": sources.has_masks,
        "min_size": settings.min_size,
        "epochs": settings.epochs,
        "steps": settings.steps,
    }


def _sizes(dataset: Any) -> str:
    """Return the sizes of the images as text, the smallest and the largest if they differ."""
    sizes = sorted({(r.height * r.width, f"{r.width}x{r.height}") for r in dataset})
    return " to ".join(dict.fromkeys([sizes[0][1], sizes[-1][1]]))


def _draw(files: dict[str, Path], sources: Sources, out: Path) -> list[str]:
    """Draw some images with what the detectors find; return the files' names."""
    shown = {
        name: path
        for name, path in files.items()
        if FAMILY[name].made_of is None and not FAMILY[name].alternating
    }
    models: dict[str, Detector] = {name: load_detector(path) for name, path in shown.items()}
    takes = any(model.takes_proposals for model in models.values())
    links = []
    for number, record in enumerate(choose(sources.val_set(proposals=takes), SCENES), start=1):
        one = sources.val_set(proposals=takes)
        one = type(one)([record], one.classes)
        found = {FAMILY[n].model.__name__: model.detect(one)[0] for n, model in models.items()}
        links.append(f"pictures/scene_{number}.png")
        draw_side_by_side(out / links[-1], record, sources.classes, found)
    return links
