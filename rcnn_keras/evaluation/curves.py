"""Plots of a training run: losses and average precision by epoch, precision by recall.

Figures are drawn off screen on their own canvas; matplotlib's global backend, style and open
figures stay as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from rcnn_keras.visualize import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

AP_NAMES = ("val_AP", "val_AP50", "val_AP75")
MASK_AP_NAMES = ("val_mask_AP", "val_mask_AP50", "val_mask_AP75")
SINGLE = (5.4, 3.6)  # inches, of a plot with one panel
NAMED_CLASSES = 12  # more lines than this are drawn gray, and only their mean has a name


@dataclass(frozen=True)
class Theme:
    """Colours of a plot, as matplotlib takes them."""

    ground: str
    ink: str
    faint: str


LIGHT = Theme(ground="#ffffff", ink="#1f2933", faint="#d3d9e0")
DARK = Theme(ground="#1b2027", ink="#e4e8ed", faint="#3d4651")


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
    figure, panels = _figure(theme, rows, columns, (3.2 * columns, 2.4 * rows))
    for name, axes in zip(names, panels, strict=False):
        _plot_epochs(axes, history[name], "training", PALETTE[5] if theme is LIGHT else PALETTE[1])
        if f"val_{name}" in history:
            _plot_epochs(axes, history[f"val_{name}"], "validation", PALETTE[0])
        axes.set_title(name, color=theme.ink, fontsize=10)
        axes.set_xlabel("epoch", color=theme.ink, fontsize=8)
        axes.set_ylim(bottom=0)
    for axes in panels[len(names) :]:
        axes.remove()
    _legend(panels[0], theme)
    _save(figure, path)


def plot_average_precision(
    path: Path,
    history: Mapping[str, Sequence[float]],
    theme: Theme = LIGHT,
    names: Sequence[str] = AP_NAMES,
) -> None:
    """Write a PNG of `val_AP`, `val_AP50` and `val_AP75` by epoch, or of other names.

    Those that are not in the history are left out.
    """
    figure, (axes,) = _figure(theme, 1, 1, SINGLE)
    for name, color in zip(names, (theme.ink, *_colors(theme)), strict=False):
        if name in history:
            _plot_epochs(axes, history[name], name.removeprefix("val_"), color)
    axes.set_ylim(0, 1)
    axes.set_xlabel("epoch", color=theme.ink)
    axes.set_ylabel("average precision", color=theme.ink)
    _legend(axes, theme)
    _save(figure, path)


def plot_precision_recall(
    path: Path, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], theme: Theme = LIGHT
) -> None:
    """Write a PNG of precision by recall for each class and their mean, with the area under each.

    Args:
        path: the file to write.
        curves: for each class recall `(R,)` and precision `(R,)` in 0..1 at one IoU threshold; the
            recall points are the same for all, as COCO's 101 are.
    """
    figure, (axes,) = _figure(theme, 1, 1, SINGLE)
    named = len(curves) <= NAMED_CLASSES
    colors = _colors(theme)
    for i, (name, (recall, precision)) in enumerate(curves.items()):
        if named:
            color, style = colors[i % len(colors)], ("-", "--")[i // len(colors) % 2]
            label = f"{np.mean(precision):.3f}  {_plain(name)}"
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
    _legend(axes, theme, title="AP50")
    _save(figure, path)


def _figure(
    theme: Theme, rows: int, columns: int, size: tuple[float, float]
) -> "tuple[Figure, list[Axes]]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.08, wspace=0.03, hspace=0.04)
    figure = Figure(figsize=size, dpi=160, facecolor=theme.ground, layout=layout)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_facecolor(theme.ground)
        axes.grid(color=theme.faint, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=theme.ink, labelsize=8, length=0)
        for side, spine in axes.spines.items():
            spine.set_color(theme.faint)
            spine.set_visible(side in ("left", "bottom"))
    return figure, panels


def _plot_epochs(axes: "Axes", values: Sequence[float], label: str, color: str) -> None:
    from matplotlib.ticker import MaxNLocator

    epochs = np.arange(1, len(values) + 1)
    marker = "o" if len(values) <= 30 else None
    axes.plot(epochs, values, color=color, label=label, linewidth=1.6, marker=marker, markersize=3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))


def _legend(axes: "Axes", theme: Theme, title: str | None = None) -> None:
    legend = axes.legend(
        title=title, fontsize=8, title_fontsize=8, labelcolor=theme.ink, frameon=True
    )
    legend.get_frame().set(facecolor=theme.ground, edgecolor=theme.faint, alpha=0.85)
    legend.get_title().set_color(theme.ink)


def _colors(theme: Theme) -> list[str]:
    """Return the palette without what is too near to the ground to be seen on it."""
    unseen = PALETTE[6] if theme is LIGHT else PALETTE[5]  # yellow on white, blue on black
    return [color for color in PALETTE if color != unseen]


def _plain(name: str) -> str:
    """Return a class name that matplotlib does not read as mathematics."""
    return name.replace("$", r"\$")


def _save(figure: "Figure", path: Path) -> None:
    figure.savefig(path, facecolor=figure.get_facecolor())
