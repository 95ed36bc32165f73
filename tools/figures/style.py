"""What all figures have in common: size, colours, scenes, boxes, blocks of a diagram, files.

Figures are 7 inches wide, so that 9 points read well at the 700 pixels of a page's column.
"""

import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.data.dataset import Record

WIDTH, DPI = 7.0, 180  # inches, pixels per inch
# Okabe and Ito's colours, apart for all common kinds of colour blindness.
RED, SKY, GREEN, ORANGE, PINK, BLUE, YELLOW = rk.visualize.PALETTE
GREY, LIGHT, INK = "#8A8A8A", "#E4E4E4", "#222222"
SCENES = 24  # of each size and seed
FOLDERS: list[tempfile.TemporaryDirectory] = []  # of drawn scenes, which go when the program ends
LINE_COLORS = (BLUE, RED, GREEN, ORANGE, PINK, SKY)

mpl.rcParams.update(
    {
        "font.family": "DejaVu Sans",  # comes with matplotlib
        "font.size": 9,
        "axes.titlesize": 9,
        "axes.labelsize": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": GREY,
        "text.color": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "mathtext.fontset": "dejavusans",
    }
)


@cache
def scenes(size: tuple[int, int] = (240, 320), count: int = SCENES, seed: int = 7) -> Any:
    """Return drawn scenes as a dataset, the same in every call."""
    folder = tempfile.TemporaryDirectory(prefix="figures_")
    FOLDERS.append(folder)
    return rk.data.draw_shapes(count, size=size, seed=seed, out=folder.name)


def scene(number: int, size: tuple[int, int] = (240, 320)) -> tuple[np.ndarray, Record]:
    """Return a drawn image `(H, W, 3)` uint8 and its ground truth."""
    record = scenes(size)[number]
    return rk.data.read_image(record.path), record


@cache
def detector() -> rk.models.MaskRCNN:
    """Return the small trained detector of such scenes that comes with the package."""
    return rk.models.from_preset("shapes")


def canvas(height: float, *rows_and_columns: int, **options: Any) -> tuple[Figure, Any]:
    """Return a figure as wide as a page's column and its axes."""
    fig = Figure(figsize=(WIDTH, height), dpi=DPI, layout=options.pop("layout", "constrained"))
    return fig, fig.subplots(*rows_and_columns, **options)


def show(ax: Axes, image: np.ndarray, title: str | None = None, fade: float = 0.0) -> None:
    """Show an image `(H, W, 3)` in its own pixels, lightened so that lines on it stand out."""
    shown = image if not fade else np.uint8(np.rint(image * (1 - fade) + 255 * fade))
    height, width = image.shape[:2]
    ax.imshow(shown, extent=(0, width, height, 0), interpolation="nearest")
    ax.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    ax.spines[:].set_visible(False)
    if title:
        ax.set_title(title, loc="left")


def box(
    ax: Axes,
    corners: Sequence[float] | np.ndarray,
    color: str,
    text: str | None = None,
    *,
    style: str = "-",
    width: float = 1.8,
    at: str = "top",
    **options: Any,
) -> None:
    """Draw a box `xyxy`, and a tag at its top left, inside it, or at its bottom."""
    x1, y1, x2, y2 = (float(v) for v in corners)
    options = {"fill": False, "edgecolor": color} | options
    ax.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, linewidth=width, linestyle=style, **options))
    if text:
        place = {"top": (x1, y1), "bottom": (x1, y2), "inside": (x1, y1)}[at]
        tag(ax, *place, text, color, va="bottom" if at == "top" else "top")


def tag(ax: Axes, x: float, y: float, text: str, color: str, **options: Any) -> None:
    """Write a text on a ground of a colour."""
    ground = {"facecolor": color, "edgecolor": "none", "pad": 1.2}
    ink = "black" if color in (SKY, ORANGE, YELLOW, PINK, LIGHT, "white") else "white"
    options = {"fontsize": 7.5, "va": "bottom", "ha": "left", "color": ink} | options
    ax.text(x, y, text, bbox=ground, **options)


def block(
    ax: Axes,
    x: float,
    y: float,
    width: float,
    height: float,
    text: str,
    ground: str = LIGHT,
    **options: Any,
) -> None:
    """Draw a block of a diagram about a centre; options are those of its text."""
    corner = (x - width / 2, y - height / 2)
    ax.add_patch(
        FancyBboxPatch(
            corner,
            width,
            height,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=ground,
            edgecolor=INK,
            linewidth=0.8,
            linestyle=options.pop("linestyle", "-"),
        )
    )
    options = {"fontsize": 8, "ha": "center", "va": "center", "linespacing": 1.25} | options
    ax.text(x, y, text, **options)


def arrow(
    ax: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    text: str = "",
    color: str = INK,
    **options: Any,
) -> None:
    """Draw an arrow with an optional text above its middle."""
    shape = {"arrowstyle": "-|>", "color": color, "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=shape | options)
    if text:
        middle = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2 + 0.06
        ax.text(*middle, text, fontsize=7.5, ha="center", va="bottom", color=color)


def diagram(ax: Axes, width: float, height: float) -> None:
    """Prepare axes for blocks and arrows, with a unit the same across and up."""
    ax.set(xlim=(0, width), ylim=(0, height), aspect="equal")
    ax.axis("off")


def numbers(ax: Axes, values: np.ndarray, form: str = "{:.0f}", **options: Any) -> None:
    """Write the values `(H, W)` into the positions of a map, which are unit squares."""
    for y, row in enumerate(values):
        for x, value in enumerate(row):
            text = form.format(value) if np.isfinite(value) else ""
            style = {"ha": "center", "va": "center", "fontsize": 8} | options
            ax.text(x + 0.5, y + 0.5, text, **style)


def cells(ax: Axes, rows: int, columns: int) -> None:
    """Prepare axes for a map of unit squares."""
    ax.set(xlim=(-0.05, columns + 0.05), ylim=(rows + 0.05, -0.05), aspect="equal")
    ax.axis("off")
    for y in range(rows + 1):
        ax.plot([0, columns], [y, y], color=GREY, linewidth=0.5, zorder=2)
    for x in range(columns + 1):
        ax.plot([x, x], [0, rows], color=GREY, linewidth=0.5, zorder=2)


def picture(fig: Figure, dpi: int = DPI) -> Image.Image:
    """Render a figure."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    fig.set_dpi(dpi)
    agg = FigureCanvasAgg(fig)
    agg.draw()
    return Image.fromarray(np.asarray(agg.buffer_rgba())[..., :3])


def save(fig: Figure, path: Path) -> None:
    """Write a PNG of 256 colours, or, for what shows scenes, a WebP, by the path's ending."""
    image = picture(fig)
    if path.suffix == ".png":
        image.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(
            path, optimize=True
        )
    else:
        image.save(path, quality=82, method=6)


def save_animation(frames: Sequence[Image.Image], milliseconds: Sequence[int], path: Path) -> None:
    """Write frames as a GIF that repeats, all in the palette of a sheet of them."""
    few = frames[:: max(1, len(frames) // 10)]
    sheet = Image.new("RGB", (frames[0].width, frames[0].height * len(few)))
    for i, frame in enumerate(few):
        sheet.paste(frame, (0, i * frame.height))
    palette = sheet.quantize(128, method=Image.Quantize.MEDIANCUT)
    reduced = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    reduced[0].save(
        path,
        save_all=True,
        append_images=reduced[1:],
        duration=list(milliseconds),
        loop=0,
        optimize=True,
    )
