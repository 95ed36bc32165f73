"""How plots look: a light and a dark theme, and figures without a screen.

Figures are drawn on their own canvas; matplotlib's global backend, style and open figures stay as
they are.
"""

from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

from rcnn_keras.visualize import PALETTE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend


@dataclass(frozen=True)
class Theme:
    """Colours of a plot, as matplotlib takes them."""

    ground: str
    ink: str
    faint: str


LIGHT = Theme(ground="#ffffff", ink="#1f2933", faint="#d3d9e0")
DARK = Theme(ground="#1b2027", ink="#e4e8ed", faint="#3d4651")


def new_figure(
    theme: Theme, rows: int, columns: int, size: tuple[float, float]
) -> "tuple[Figure, list[Axes]]":
    """Return a figure of `size` inches and its panels, row by row."""
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


def style_legend(legend: "Legend", theme: Theme) -> None:
    """Give a legend the colours of a theme."""
    legend.get_frame().set(facecolor=theme.ground, edgecolor=theme.faint, alpha=0.85)
    legend.get_title().set_color(theme.ink)
    for text in legend.get_texts():
        text.set_color(theme.ink)


def add_legend(axes: "Axes", theme: Theme, title: str | None = None) -> None:
    """Add a legend where the panel has most room."""
    style_legend(axes.legend(title=title, fontsize=8, title_fontsize=8, frameon=True), theme)


def colors(theme: Theme) -> list[str]:
    """Return the palette without what is too near to the ground to be seen on it."""
    unseen = PALETTE[6] if theme is LIGHT else PALETTE[5]  # yellow on white, blue on black
    return [color for color in PALETTE if color != unseen]


def plain(name: str) -> str:
    """Return a class name that matplotlib does not read as mathematics."""
    return name.replace("$", r"\$")


def save_figure(figure: "Figure", path: str | PathLike[str]) -> None:
    """Write a figure to a file, whose ending says in which format."""
    figure.savefig(path, facecolor=figure.get_facecolor())
