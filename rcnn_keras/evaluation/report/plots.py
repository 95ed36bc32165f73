"""Plots of a report: losses and scores by epoch, precision by recall, kinds of errors.

Figures have a light and a dark theme and are drawn on their own canvas; matplotlib's global
backend, style and open figures stay as they are.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rcnn_keras.evaluation.voc import VocCurve
from rcnn_keras.utils.fonts import families_for
from rcnn_keras.visualize import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend


@dataclass(frozen=True)
class Theme:
    """Colours of a plot, as matplotlib takes them."""

    background: str
    foreground: str
    grid: str


LIGHT = Theme(background="#ffffff", foreground="#1f2933", grid="#d3d9e0")

DARK = Theme(background="#1b2027", foreground="#e4e8ed", grid="#3d4651")


def new_figure(
    theme: Theme, rows: int, columns: int, size: tuple[float, float]
) -> "tuple[Figure, list[Axes]]":
    """Return a figure of `size` inches and its panels, row by row."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=size, dpi=160, facecolor=theme.background, layout=layout)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_facecolor(theme.background)
        axes.grid(color=theme.grid, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=theme.foreground, labelsize=8, length=0)
        for side, spine in axes.spines.items():
            spine.set_color(theme.grid)
            spine.set_visible(side in ("left", "bottom"))
    return figure, panels


def style_legend(legend: "Legend", theme: Theme) -> None:
    """Give a legend the colours of a theme."""
    legend.get_frame().set(facecolor=theme.background, edgecolor=theme.grid, alpha=0.85)
    legend.get_title().set_color(theme.foreground)
    for text in legend.get_texts():
        text.set_color(theme.foreground)


def add_legend(axes: "Axes", theme: Theme, title: str | None = None) -> None:
    """Add a legend where the panel has most room."""
    style_legend(axes.legend(title=title, fontsize=8, title_fontsize=8, frameon=True), theme)


def colors(theme: Theme) -> list[str]:
    """Return the palette without the colour that has too little contrast to the background."""
    low_contrast = PALETTE[6] if theme is LIGHT else PALETTE[5]  # yellow on white, blue on black
    return [color for color in PALETTE if color != low_contrast]


def plain(name: str) -> str:
    """Return a class name that matplotlib does not render as mathematics."""
    return name.replace("$", r"\$")


def save_figure(figure: "Figure", path: str | PathLike[str]) -> None:
    """Write a figure to a file in the format of the file's ending, names in whichever script.

    Warns:
        UserWarning: once, of characters that no font of the system has.
    """
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if not text.get_text().isascii():
            text.set_fontfamily(families_for(text.get_text()))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # which was said once
        figure.savefig(path, facecolor=figure.get_facecolor())


# True positives are green, errors have the palette's other colours, missed objects the grid's.
ERROR_COLORS = {
    "true positive": PALETTE[2],
    "duplicate": PALETTE[1],
    "localisation": PALETTE[3],
    "wrong class": PALETTE[4],
    "class and localisation": PALETTE[5],
    "background": PALETTE[0],
    "missed": None,
}

MAX_ROWS_WITH_COUNTS = 21  # of a confusion matrix


def plot_errors(
    path: str | PathLike[str], table: Mapping[str, Mapping[str, int]], theme: Theme = LIGHT
) -> None:
    """Write a PNG with a stacked bar for each class: its detections by kind, and missed objects.

    Each segment is a share of the class's total, which stands beside its name; ignored detections
    are left out, and classes without detections and objects.

    Args:
        path: the file to write.
        table: from `DetectionErrors.table`.
        theme: the colours.
    """
    rows = {name: [row[kind] for kind in ERROR_COLORS] for name, row in table.items()}
    rows = {name: row for name, row in rows.items() if sum(row)}
    counts = np.array(list(rows.values()), float).reshape(-1, len(ERROR_COLORS))
    total = counts.sum(axis=1)
    shares = counts / total[:, None]
    starts = np.cumsum(shares, axis=1) - shares
    figure, (axes,) = new_figure(theme, 1, 1, (7.2, 1.5 + 0.26 * max(len(rows), 2)))
    names = [f"{plain(name)}  ({number:.0f})" for name, number in zip(rows, total, strict=True)]
    positions = np.arange(len(rows))
    for i, (kind, color) in enumerate(ERROR_COLORS.items()):
        color = color or theme.grid
        axes.barh(positions, shares[:, i], 0.72, starts[:, i], color=color, label=kind)
    axes.set_yticks(positions, names)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)  # the first class on top
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
    axes.set_xlabel("share of detections and missed objects", color=theme.foreground, fontsize=8)
    style_legend(figure.legend(loc="outside upper center", ncols=4, fontsize=8), theme)
    save_figure(figure, path)


def plot_confusion(
    path: str | PathLike[str], counts: np.ndarray, names: Sequence[str], theme: Theme = LIGHT
) -> None:
    """Write a PNG of a confusion matrix: colours are shares of a row, numbers are counts.

    Args:
        path: the file to write.
        counts: `(n, n)`; row: the true class, column: the predicted class.
        names: n names, background among them.
        theme: the colours.

    Raises:
        ValueError: if there are not as many names as rows and columns.
    """
    from matplotlib.colors import LinearSegmentedColormap

    n = len(names)
    if counts.shape != (n, n):
        raise ValueError(f"plot_confusion: counts of shape {counts.shape} for {n} names")
    full = PALETTE[5] if theme is LIGHT else PALETTE[1]
    colors = LinearSegmentedColormap.from_list("shares", [theme.background, full])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    with_counts = n <= MAX_ROWS_WITH_COUNTS
    side = (0.5 if with_counts else 0.16) * n + 1.8
    figure, (axes,) = new_figure(theme, 1, 1, (max(side, 3.6), max(side, 3.2)))
    axes.imshow(shares, cmap=colors, vmin=0, vmax=1)
    axes.grid(False)
    texts = [plain(name) for name in names]
    axes.set_xticks(range(n), texts, rotation=90 if n > 4 else 0)
    axes.set_yticks(range(n), texts)
    if not with_counts:
        axes.tick_params(labelsize=5)
    for row, column in np.argwhere(counts) if with_counts else ():
        color = theme.background if shares[row, column] > 0.5 else theme.foreground
        text = str(counts[row, column])
        axes.text(column, row, text, color=color, fontsize=8, ha="center", va="center")
    axes.set_xlabel("found", color=theme.foreground)
    axes.set_ylabel("true", color=theme.foreground)
    save_figure(figure, path)


def ap_names(prefix: str = "") -> tuple[str, ...]:
    """Return the names in a history of the scores that are plotted: `val_mask_AP` and others."""
    return tuple(f"val_{prefix}{name}" for name in ("AP", "AP50", "AP75"))


SINGLE = (5.4, 3.6)  # inches, of a plot with one panel

MAX_NAMED_CLASSES = 12  # more lines are drawn gray, and only their mean is in the legend


def loss_names(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the training losses of a Keras history, the total first."""
    names = [name for name in history if name.endswith("loss") and not name.startswith("val_")]
    return sorted(names, key=lambda name: name != "loss")


def plot_losses(path: Path, history: Mapping[str, Sequence[float]], theme: Theme = LIGHT) -> None:
    """Write a PNG with one panel for each named loss: training, and validation if available.

    Args:
        path: the file to write.
        history: a Keras history; for each name one value per epoch. `loss` and the names that end
            in `_loss` are drawn, with their `val_` counterparts; NaN leaves a gap.
    """
    names = loss_names(history)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = new_figure(theme, rows, columns, (3.2 * columns, 2.4 * rows))
    for name, axes in zip(names, panels, strict=False):
        _plot_epochs(axes, history[name], "training", PALETTE[5] if theme is LIGHT else PALETTE[1])
        if f"val_{name}" in history:
            _plot_epochs(axes, history[f"val_{name}"], "validation", PALETTE[0])
        axes.set_title(name, color=theme.foreground, fontsize=10)
        axes.set_xlabel("epoch", color=theme.foreground, fontsize=8)
        axes.set_ylim(bottom=0)
    for axes in panels[len(names) :]:
        axes.remove()
    add_legend(panels[0], theme)
    save_figure(figure, path)


def plot_average_precision(
    path: Path,
    history: Mapping[str, Sequence[float]],
    theme: Theme = LIGHT,
    names: Sequence[str] = ap_names(),
) -> None:
    """Write a PNG of `val_AP`, `val_AP50` and `val_AP75` by epoch, or of other names.

    Those that are not in the history are left out.
    """
    figure, (axes,) = new_figure(theme, 1, 1, SINGLE)
    for name, color in zip(names, (theme.foreground, *colors(theme)), strict=False):
        if name in history:
            _plot_epochs(axes, history[name], name.removeprefix("val_"), color)
    axes.set_ylim(0, 1)
    axes.set_xlabel("epoch", color=theme.foreground)
    axes.set_ylabel("average precision", color=theme.foreground)
    add_legend(axes, theme)
    save_figure(figure, path)


def plot_precision_recall(
    path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], theme: Theme = LIGHT
) -> None:
    """Write a PNG of precision by recall for each class and their mean, with the area under each.

    Args:
        path: the file to write.
        curves: for each class recall `(R,)` and precision `(R,)` in 0..1 at one IoU threshold; the
            recall points are the same for all, as COCO's 101 are.
    """
    figure, (axes,) = new_figure(theme, 1, 1, SINGLE)
    named = len(curves) <= MAX_NAMED_CLASSES
    palette = colors(theme)
    for i, (name, (recall, precision)) in enumerate(curves.items()):
        if named:
            color, style = palette[i % len(palette)], ("-", "--")[i // len(palette) % 2]
            label = f"{np.mean(precision):.3f}  {plain(name)}"
            axes.plot(recall, precision, color=color, linestyle=style, linewidth=1.5, label=label)
        else:
            axes.plot(recall, precision, color=theme.foreground, linewidth=0.8, alpha=0.3)
    if len(curves) > 1:
        recall = next(iter(curves.values()))[0]
        mean = np.mean([precision for _, precision in curves.values()], axis=0)
        label = f"{mean.mean():.3f}  mean of {len(curves)} classes"
        axes.plot(recall, mean, color=theme.foreground, linewidth=2.5, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall", color=theme.foreground)
    axes.set_ylabel("precision", color=theme.foreground)
    add_legend(axes, theme, title="AP50")
    save_figure(figure, path)


def plot_voc_curves(
    path: str | PathLike[str],
    curves: Mapping[str, VocCurve],
    scores: Mapping[str, float],
    theme: Theme = LIGHT,
) -> None:
    """Write a PNG of precision by recall for each class: measured, thin, and interpolated.

    Args:
        path: the file to write.
        curves: of each class; those without objects that must be found are left out.
        scores: the average precision of each class, for the legend.
        theme: the colours. Of more than 12 classes only the interpolated curves are drawn, gray.
    """
    known = {name: curve for name, curve in curves.items() if curve.positives}
    figure, (axes,) = new_figure(theme, 1, 1, SINGLE)
    named = len(known) <= MAX_NAMED_CLASSES
    palette = colors(theme)
    for i, (name, curve) in enumerate(known.items()):
        color = palette[i % len(palette)] if named else theme.foreground
        style = ("-", "--")[i // len(palette) % 2] if named else "-"
        if named:
            axes.plot(curve.recall, curve.precision, color=color, linewidth=0.7, alpha=0.6)
        # a level holds from the recall before it to its own; after the last one it is 0
        recall = np.concatenate([[0], curve.recall, curve.recall[-1:]])
        levels = np.concatenate([curve.interpolated[:1], curve.interpolated, [0]])
        axes.step(
            recall,
            levels,
            color=color,
            linestyle=style,
            linewidth=1.5 if named else 0.8,
            alpha=1 if named else 0.3,
            label=f"{scores[name]:.3f}  {plain(name)}",
        )
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall", color=theme.foreground)
    axes.set_ylabel("precision", color=theme.foreground)
    if named and known:
        add_legend(axes, theme, title="AP")
    save_figure(figure, path)


def _plot_epochs(axes: "Axes", values: Sequence[float], label: str, color: str) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = np.arange(1, len(values) + 1)
    marker = "o" if len(values) <= 30 else None
    axes.plot(epochs, values, color=color, label=label, linewidth=1.6, marker=marker, markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
