"""Plots of what a detector gets wrong: kinds of errors by class, and the confusion matrix."""

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np

from rcnn_keras.evaluation.figures import (
    LIGHT,
    Theme,
    new_figure,
    plain,
    save_figure,
    style_legend,
)
from rcnn_keras.visualize import PALETTE

# Right is green, the faults have the palette's other colours, what is missed has the grid's.
ERROR_COLORS = {
    "true positive": PALETTE[2],
    "duplicate": PALETTE[1],
    "localisation": PALETTE[3],
    "wrong class": PALETTE[4],
    "class and localisation": PALETTE[5],
    "background": PALETTE[0],
    "missed": None,
}
COUNTED = 21  # rows up to which a confusion matrix has its counts written into it


def plot_errors(
    path: str | PathLike[str], table: Mapping[str, Mapping[str, int]], theme: Theme = LIGHT
) -> None:
    """Write a PNG with a stacked bar for each class: what its detections are, and what is missed.

    The parts are shares of all of the class, whose number stands beside its name; ignored
    detections are left out, and classes of which there is nothing.

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
    places = np.arange(len(rows))
    for i, (kind, color) in enumerate(ERROR_COLORS.items()):
        color = color or theme.faint
        axes.barh(places, shares[:, i], 0.72, starts[:, i], color=color, label=kind)
    axes.set_yticks(places, names)
    axes.set_ylim(max(len(rows), 1) - 0.5, -0.5)  # the first class on top
    axes.set_xlim(0, 1)
    axes.grid(False, axis="y")
    axes.set_xlabel("share of detections and missed objects", color=theme.ink, fontsize=8)
    style_legend(figure.legend(loc="outside upper center", ncols=4, fontsize=8), theme)
    save_figure(figure, path)


def plot_confusion(
    path: str | PathLike[str], counts: np.ndarray, names: Sequence[str], theme: Theme = LIGHT
) -> None:
    """Write a PNG of a confusion matrix: colours are shares of a row, numbers are counts.

    Args:
        path: the file to write.
        counts: `(n, n)`; row: the true class, column: the class found.
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
    colors = LinearSegmentedColormap.from_list("shares", [theme.ground, full])
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    written = n <= COUNTED
    side = (0.5 if written else 0.16) * n + 1.8
    figure, (axes,) = new_figure(theme, 1, 1, (max(side, 3.6), max(side, 3.2)))
    axes.imshow(shares, cmap=colors, vmin=0, vmax=1)
    axes.grid(False)
    texts = [plain(name) for name in names]
    axes.set_xticks(range(n), texts, rotation=90 if n > 4 else 0)
    axes.set_yticks(range(n), texts)
    if not written:
        axes.tick_params(labelsize=5)
    for row, column in np.argwhere(counts) if written else ():
        ink = theme.ground if shares[row, column] > 0.5 else theme.ink
        text = str(counts[row, column])
        axes.text(column, row, text, color=ink, fontsize=8, ha="center", va="center")
    axes.set_xlabel("found", color=theme.ink)
    axes.set_ylabel("true", color=theme.ink)
    save_figure(figure, path)
