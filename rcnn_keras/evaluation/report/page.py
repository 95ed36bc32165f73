"""A report on a trained detector: an HTML page with its plots and pictures."""

import math
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata, resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from rcnn_keras.evaluation.confusion import ConfusionMatrix
from rcnn_keras.evaluation.errors import DetectionErrors
from rcnn_keras.evaluation.report import plots
from rcnn_keras.evaluation.report.gallery import Picture
from rcnn_keras.evaluation.report.plots import ERROR_COLORS, Theme, plot_voc_curves
from rcnn_keras.evaluation.voc import VocScores
from rcnn_keras.utils.atomic import atomic_write

MAX_CONFUSIONS = 12  # rows of the table of confusions


@dataclass(frozen=True)
class Plot:
    """A plot of a report: `draw(path, theme)` writes it; a wide one takes the page's width."""

    name: str
    caption: str
    draw: Callable[[Path, Theme], None]
    wide: bool = False


@dataclass(frozen=True)
class Section:
    """A section of a report; what is empty is left out.

    Attributes:
        title: its heading.
        text: a paragraph under it.
        header: names of the table's columns.
        rows: the table's cells; the first of a row is its name.
        plots: drawn once for a light page and once for a dark one.
        pictures: with their captions.
    """

    title: str
    text: str = ""
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str | int]] = ()
    plots: Sequence[Plot] = ()
    pictures: Sequence[Picture] = ()


def error_section(errors: DetectionErrors, pictures: Sequence[Picture] = ()) -> Section:
    """Return the table and the plot of the kinds of errors, with pictures of the worst."""
    table = errors.table()
    columns = ("objects", *ERROR_COLORS, "ignored")
    text = (
        f"Detections of score {errors.min_score:g} and more, by {_overlap(errors.kind)}: correct "
        f"from {errors.iou:g}, badly localised from {errors.background_iou:g}. Each counts as the "
        "first that holds of: true positive, ignored (on a crowd region or difficult object), "
        "duplicate, localisation, wrong class, class and localisation, background."
    )
    if pictures:
        text += (
            " The pictures show ground truth on the left, detections on the right: the false "
            "positives of the highest scores and the largest objects missed."
        )
    return Section(
        "Errors",
        text,
        ("class", *columns),
        [(name, *(row[column] for column in columns)) for name, row in table.items()],
        [Plot("errors", "Detections and missed objects by kind", errors.plot, wide=True)],
        pictures,
    )


def confusion_section(matrix: ConfusionMatrix) -> Section:
    """Return the plot of a confusion matrix, and a table of the most frequent confusions."""
    wrong = matrix.counts * (1 - np.eye(len(matrix.names), dtype=int))
    order = np.argsort(-wrong, axis=None, kind="stable")[:MAX_CONFUSIONS]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    text = (
        f"Detections of score {matrix.min_score:g} and more; by falling score, each is matched to "
        f"the unmatched object that it overlaps most, whatever its class, from "
        f"{_overlap(matrix.kind)} {matrix.iou:g}. Objects in the column background are missed; "
        "detections without an object are in the row background, among them duplicates and badly "
        "localised ones."
    )
    caption = "Confusion matrix: numbers count, colours are shares of a row"
    return Section(
        "Confusions",
        text,
        ("true", "found", "number"),
        [(matrix.names[i], matrix.names[k], int(wrong[i, k])) for i, k in pairs if wrong[i, k]],
        [Plot("confusion", caption, matrix.plot)],
    )


def voc_section(scores: VocScores, mask_scores: VocScores | None = None) -> Section:
    """Return the precision-recall curves of Pascal VOC scores, of boxes and of masks."""
    plots = []
    for prefix, word, part in (("", "boxes", scores), ("mask_", "masks", mask_scores)):
        if part is not None:
            ap = {name: part.average_precision(name) for name in part.classes}
            draw = partial(_draw_curves, part, ap)
            caption = f"Precision by recall of {word} at IoU {part.iou:.2f}"
            plots.append(Plot(f"{prefix}precision_recall", caption, draw))
    text = "Thin lines are the measured precision, thick lines the interpolated one."
    return Section("Precision and recall", text, plots=plots)


def _draw_curves(scores: VocScores, ap: dict[str, float], path: Path, theme: Theme) -> None:
    plot_voc_curves(path, scores.curves, ap, theme)


def _overlap(kind: str) -> str:
    return "IoU of boxes" if kind == "box" else "IoU of masks"


MEANINGS = {
    "mAP": "mean over the classes",
    "AP": "IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "below 32² pixels",
    "APm": "32² to 96² pixels",
    "APl": "above 96² pixels",
    "AR": "average recall",
}

Curves = Mapping[str, tuple[np.ndarray, np.ndarray]]  # recall and precision of each class

PACKAGES = ("rcnn-keras", "keras", "tensorflow", "numpy")


class _ScoreGroup(NamedTuple):
    """Scores of boxes, masks or keypoints: a word for them, and a prefix of the plots' names."""

    word: str
    prefix: str
    scores: Mapping[str, float]
    precision_recall: Curves
    ap_names: Sequence[str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table of classes; AP50 comes from the curves."""
        return ("AP", "AP50") if self.precision_recall else ("AP",)


def write_report(
    folder: str | os.PathLike[str],
    *,
    title: str,
    scores: Mapping[str, float],
    history: Mapping[str, Sequence[float]] | None = None,
    precision_recall: Curves | None = None,
    mask_scores: Mapping[str, float] | None = None,
    mask_precision_recall: Curves | None = None,
    keypoint_scores: Mapping[str, float] | None = None,
    keypoint_precision_recall: Curves | None = None,
    pictures: Sequence[str | os.PathLike[str]] = (),
    sections: Sequence[Section] = (),
    command: str = "",
    notes: Sequence[str] = (),
) -> Path:
    """Write `report.html`, its plots and copies of the pictures into a folder.

    The page needs no network, and the folder may be moved: all links are relative.

    Args:
        folder: created if missing; files of an earlier report are overwritten.
        title: heading of the page.
        scores: scores in 0..1 (`AP`, `AP50`, .., or `mAP`, and `AP/<class>`); NaN is shown as
            n/a.
        history: a Keras history, one value per epoch. Every training loss is plotted with its
            `val_` counterpart, and `val_AP`, `val_AP50` and `val_AP75` with their `val_mask_` and
            `val_keypoint_` counterparts; what is missing is left out.
        precision_recall: for each class recall `(101,)` and precision `(101,)` at IoU 0.50.
        mask_scores: the same scores of masks; None for a detector without masks.
        mask_precision_recall: as `precision_recall`, of masks.
        keypoint_scores: the same scores of keypoints, by their OKS; None for a detector without.
        keypoint_precision_recall: as `precision_recall`, of keypoints, at OKS 0.50.
        pictures: image files to show; those outside the folder are copied to `pictures/`.
        sections: further sections, between the curves and the pictures.
        command: the command that trains or evaluates this again.
        notes: paragraphs under the title.

    Returns:
        The path of `report.html`.

    Raises:
        ValueError: a score is outside 0..1, or a curve's recall and precision differ in length.
        FileNotFoundError: a picture does not exist.
    """
    from jinja2 import Environment, StrictUndefined

    history = history or {}
    groups = [_ScoreGroup("", "", scores, precision_recall or {}, plots.ap_names())]
    for word, more, curves in (
        ("mask", mask_scores, mask_precision_recall),
        ("keypoint", keypoint_scores, keypoint_precision_recall),
    ):
        if more is not None:
            names = plots.ap_names(f"{word}_")
            groups[0] = groups[0]._replace(word="box ")
            groups.append(_ScoreGroup(f"{word} ", f"{word}_", more, curves or {}, names))
    shown = [Picture(Path(picture), Path(picture).stem) for picture in pictures]
    paths = [p.path for p in (*shown, *(p for section in sections for p in section.pictures))]
    _check(groups, paths)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    links = _link_pictures(folder, paths)
    source = resources.files("rcnn_keras.evaluation.report").joinpath("page.html.j2")
    template = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    ).from_string(source.read_text("utf-8"))
    page = template.render(
        title=title,
        notes=notes,
        groups=[_tiles(group) for group in groups],
        columns=[f"{group.word}{name}" for group in groups for name in group.columns],
        classes=_class_rows(groups),
        plots=_write_plots(folder, _run_plots(history, groups)),
        sections=[_section(folder, section, links) for section in sections],
        pictures=_captioned(links, shown),
        command=command,
        machine=_machine(),
        versions=_versions(),
    )
    report = folder / "report.html"
    with atomic_write(report) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
    return report


def _check(groups: Sequence[_ScoreGroup], pictures: Sequence[Path]) -> None:
    for group in groups:
        for name, score in group.scores.items():
            if not (0 <= score <= 1 or math.isnan(score)):
                raise ValueError(
                    f"write_report: {group.word}score {name} must be in 0..1 or NaN, not {score!r}"
                )
        shapes = {np.shape(curve) for pair in group.precision_recall.values() for curve in pair}
        if len(shapes) > 1 or any(len(shape) != 1 for shape in shapes):
            raise ValueError(
                "write_report: precision_recall needs recall and precision of one length for all "
                f"classes, not of shapes {sorted(shapes)}"
            )
    for picture in pictures:
        if not picture.is_file():
            raise FileNotFoundError(f"write_report: no such picture: {picture}")


def _tiles(group: _ScoreGroup) -> dict[str, Any]:
    tiles = [
        {"name": name, "text": _number(value), "meaning": MEANINGS.get(name, "")}
        for name, value in group.scores.items()
        if not name.startswith("AP/")
    ]
    return {"title": f"{group.word}scores".capitalize(), "tiles": tiles}


def _class_rows(groups: Sequence[_ScoreGroup]) -> list[dict[str, Any]]:
    """Return the rows of the table of classes; a row's bar shows the AP of the last group.

    AP50 is the mean precision over the recalls.
    """
    rows = []
    for name in (n.removeprefix("AP/") for n in groups[0].scores if n.startswith("AP/")):
        cells = []
        for group in groups:
            ap50 = math.nan
            if name in group.precision_recall:
                ap50 = float(np.mean(group.precision_recall[name][1]))
            cells += [_number(group.scores[f"AP/{name}"]), _number(ap50)][: len(group.columns)]
        score = groups[-1].scores[f"AP/{name}"]
        percent = 0 if math.isnan(score) else round(100 * score, 1)
        rows.append({"name": name, "cells": cells, "percent": percent})
    return rows


def _number(score: float) -> str:
    return "n/a" if math.isnan(score) else f"{score:.3f}"


def _run_plots(history: Mapping[str, Sequence[float]], groups: Sequence[_ScoreGroup]) -> list[Plot]:
    """Return the plots of a run and of its scores for which there is data."""
    available = []
    if plots.loss_names(history):
        draw = _with_data(plots.plot_losses, history)
        available.append(Plot("losses", "Losses by epoch", draw, wide=True))
    for group in groups:
        if any(name in history for name in group.ap_names):
            caption = (
                f"{group.word}average precision on the validation images by epoch".capitalize()
            )
            draw = _with_data(plots.plot_average_precision, history, names=group.ap_names)
            available.append(Plot(f"{group.prefix}average_precision", caption, draw))
        if group.precision_recall:
            overlap = "OKS" if group.prefix == "keypoint_" else "IoU"
            caption = f"{group.word}precision by recall".capitalize() + f" at {overlap} 0.50"
            draw = _with_data(plots.plot_precision_recall, group.precision_recall)
            available.append(Plot(f"{group.prefix}precision_recall", caption, draw))
    return available


def _with_data(plot: Callable[..., None], data: Any, **options: Any) -> Callable[..., None]:
    return lambda path, theme: plot(path, data, theme, **options)


def _write_plots(folder: Path, drawn: Sequence[Plot]) -> list[dict[str, Any]]:
    """Draw each plot once for a light page and once for a dark one."""
    written = []
    for plot in drawn:
        light, dark = f"{plot.name}.png", f"{plot.name}_dark.png"
        plot.draw(folder / light, plots.LIGHT)
        plot.draw(folder / dark, plots.DARK)
        written.append({"light": light, "dark": dark, "caption": plot.caption, "wide": plot.wide})
    return written


def _section(folder: Path, section: Section, links: Mapping[Path, str]) -> dict[str, Any]:
    return {
        "title": section.title,
        "text": section.text,
        "header": section.header,
        "rows": section.rows,
        "plots": _write_plots(folder, section.plots),
        "pictures": _captioned(links, section.pictures),
    }


def _link_pictures(folder: Path, pictures: Sequence[Path]) -> dict[Path, str]:
    """Return the relative links of the pictures, copying those from elsewhere."""
    links = {}
    for i, picture in enumerate(pictures):
        path = picture.resolve()
        if not path.is_relative_to(folder.resolve()):
            # the number distinguishes pictures of the same name from different folders
            path = folder.resolve() / "pictures" / f"{i:03d}_{picture.name}"
            path.parent.mkdir(exist_ok=True)
            shutil.copyfile(picture, path)
        links[picture] = quote(os.fsencode(path.relative_to(folder.resolve()).as_posix()))
    return links


def _captioned(links: Mapping[Path, str], pictures: Sequence[Picture]) -> list[dict[str, str]]:
    return [{"name": caption, "link": links[path]} for path, caption in pictures]


def _machine() -> str:
    import tensorflow as tf

    gpus = [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    return ", ".join(
        [f"{platform.system()} {platform.machine()}", f"{os.cpu_count()} CPU cores", *gpus]
    )


def _versions() -> str:
    packages = [f"{name} {metadata.version(name)}" for name in PACKAGES]
    return ", ".join([f"Python {platform.python_version()}", *packages])
