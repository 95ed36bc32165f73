"""Sections of a report besides its scores: each has a text, a table, plots and pictures."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from rcnn_keras.evaluation.confusion import ConfusionMatrix
from rcnn_keras.evaluation.errors import DetectionErrors
from rcnn_keras.evaluation.report.gallery import Picture
from rcnn_keras.evaluation.report.plots import ERROR_COLORS, Theme, plot_voc_curves
from rcnn_keras.evaluation.voc import VocScores

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
