"""Plots of a training run: losses and average precision by epoch, precision by recall."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rcnn_keras.evaluation.figures import (
    LIGHT,
    Theme,
    add_legend,
    colors,
    new_figure,
    plain,
    save_figure,
)
from rcnn_keras.evaluation.voc import VocCurve
from rcnn_keras.visualize import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AP_NAMES = ("val_AP", "val_AP50", "val_AP75")
MASK_AP_NAMES = ("val_mask_AP", "val_mask_AP50", "val_mask_AP75")
SINGLE = (5.4, 3.6)  # inches, of a plot with one panel
NAMED_CLASSES = 12  # more lines than this are drawn gray, and only their mean has a name


def loss_names(history: Mapping[str, Sequence[float]]) -> list[str]:
    """Return the training losses of a Keras history, the total first."""
    names = [name for name in history if name.endswith("loss") and not name.startswith("val_")]
    return sorted(names, key=lambda name: name != "loss")


def plot_losses(path: Path, history: Mapping[str, Sequence[float]], theme: Theme = LIGHT) -> None:
    """Write a PNG with one panel for each named loss: training, and validation if there is any.

    Args:
        path: the file to write.
        history: a Keras history; for each name one value an epoch. `loss` and the names that end
            in `_loss` are drawn, with their `val_` twins; NaN leaves a gap.
    """
    names = loss_names(history)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, panels = new_figure(theme, rows, columns, (3.2 * columns, 2.4 * rows))
    for name, axes in zip(names, panels, strict=False):
        _plot_epochs(axes, history[name], "training", PALETTE[5] if theme is LIGHT else PALETTE[1])
        if f"val_{name}" in history:
            _plot_epochs(axes, history[f"val_{name}"], "validation", PALETTE[0])
        axes.set_title(name, color=theme.ink, fontsize=10)
        axes.set_xlabel("epoch", color=theme.ink, fontsize=8)
        axes.set_ylim(bottom=0)
    for axes in panels[len(names) :]:
        axes.remove()
    add_legend(panels[0], theme)
    save_figure(figure, path)


def plot_average_precision(
    path: Path,
    history: Mapping[str, Sequence[float]],
    theme: Theme = LIGHT,
    names: Sequence[str] = AP_NAMES,
) -> None:
    """Write a PNG of `val_AP`, `val_AP50` and `val_AP75` by epoch, or of other names.

    Those that are not in the history are left out.
    """
    figure, (axes,) = new_figure(theme, 1, 1, SINGLE)
    for name, color in zip(names, (theme.ink, *colors(theme)), strict=False):
        if name in history:
            _plot_epochs(axes, history[name], name.removeprefix("val_"), color)
    axes.set_ylim(0, 1)
    axes.set_xlabel("epoch", color=theme.ink)
    axes.set_ylabel("average precision", color=theme.ink)
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
    named = len(curves) <= NAMED_CLASSES
    palette = colors(theme)
    for i, (name, (recall, precision)) in enumerate(curves.items()):
        if named:
            color, style = palette[i % len(palette)], ("-", "--")[i // len(palette) % 2]
            label = f"{np.mean(precision):.3f}  {plain(name)}"
            axes.plot(recall, precision, color=color, linestyle=style, linewidth=1.5, label=label)
        else:
            axes.plot(recall, precision, color=theme.ink, linewidth=0.8, alpha=0.3)
    if len(curves) > 1:
        recall = next(iter(curves.values()))[0]
        mean = np.mean([precision for _, precision in curves.values()], axis=0)
        label = f"{mean.mean():.3f}  mean of {len(curves)} classes"
        axes.plot(recall, mean, color=theme.ink, linewidth=2.5, label=label)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("recall", color=theme.ink)
    axes.set_ylabel("precision", color=theme.ink)
    add_legend(axes, theme, title="AP50")
    save_figure(figure, path)


def plot_voc_curves(
    path: str | PathLike[str],
    curves: Mapping[str, VocCurve],
    scores: Mapping[str, float],
    theme: Theme = LIGHT,
) -> None:
    """Write a PNG of precision by recall for each class: the zig-zag, thin, and interpolated.

    Args:
        path: the file to write.
        curves: of each class; those without objects to be found are left out.
        scores: the average precision of each class, for the legend.
        theme: the colours. Of more than 12 classes only the interpolated curves are drawn, gray.
    """
    known = {name: curve for name, curve in curves.items() if curve.positives}
    figure, (axes,) = new_figure(theme, 1, 1, SINGLE)
    named = len(known) <= NAMED_CLASSES
    palette = colors(theme)
    for i, (name, curve) in enumerate(known.items()):
        color = palette[i % len(palette)] if named else theme.ink
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
    axes.set_xlabel("recall", color=theme.ink)
    axes.set_ylabel("precision", color=theme.ink)
    if named and known:
        add_legend(axes, theme, title="AP")
    save_figure(figure, path)


def _plot_epochs(axes: "Axes", values: Sequence[float], label: str, color: str) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = np.arange(1, len(values) + 1)
    marker = "o" if len(values) <= 30 else None
    axes.plot(epochs, values, color=color, label=label, linewidth=1.6, marker=marker, markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
