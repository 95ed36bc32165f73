"""Figures of docs/review/comparison.md: what runs how often, and test times."""

import re
from pathlib import Path

from figures import style
from figures.style import BLUE, GREEN, INK, LIGHT, ORANGE, PINK, RED, SKY, arrow, block
from rcnn_keras.comparison.page import FIGURES as PUBLISHED
from rcnn_keras.comparison.page import QUOTED

DOCS = Path(__file__).parents[2] / "docs"
NAMES = ("R-CNN", "Fast R-CNN", "Faster R-CNN")


def measured(section: str = "Measured: VGG-16, as in the papers") -> dict[str, dict[str, str]]:
    """Return a table of test times of the page on the family: columns of each row by name."""
    [page] = DOCS.rglob("family.md")
    text = page.read_text("utf-8").split(f"## {section}")[1].split("\n## ")[0]
    tables = re.findall(r"((?:^\|.*\n)+)", text, re.MULTILINE)
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in tables[-1].splitlines()]
    return {row[0]: dict(zip(rows[0][1:], row[1:], strict=True)) for row in rows[2:]}


def seconds(text: str) -> float:
    """Return the number of `1.02 s`."""
    return float(text.removesuffix(" s"))


def whole_times() -> dict[str, tuple[float, float]]:
    """Return the seconds an image of each detector, as quoted and as measured here."""
    quoted = {f.what: f.total for f in PUBLISHED if f.source == QUOTED}
    own = {name.split(",")[0]: row for name, row in measured().items() if "SVD" not in name}
    return {name: (float(quoted[name] or 0), seconds(own[name]["whole"])) for name in NAMES}


def times(path: Path) -> None:
    """Quoted test times beside those measured here, each relative to Faster R-CNN's."""
    fig, (left, right) = style.canvas(2.5, 1, 2)
    for k, (ax, title) in enumerate(
        ((left, "quoted: a GPU of 2015"), (right, "measured here: two cores, no GPU"))
    ):
        values = [pair[k] for pair in whole_times().values()]
        ax.barh(NAMES, values, color=(RED, ORANGE, BLUE), height=0.6)
        for y, value in enumerate(values):
            text = f"{value:g} s, {value / values[-1]:.3g} x"
            ax.text(value * 1.15, y, text, va="center", fontsize=8.5)
        ax.set(
            xscale="log", xlim=(0.05, values[0] * 25), xlabel="seconds an image, search included"
        )
        ax.invert_yaxis()
        ax.set_title(title, loc="left")
    style.save(fig, path)


def architectures(path: Path) -> None:
    """What each member of the family runs once an image and once a region."""
    fig, ax = style.canvas(4.0, layout="none")
    ax.set_position((0, 0, 1, 1))
    style.diagram(ax, 14, 8)
    ax.add_patch(style.Rectangle((8.05, 0.1), 5.85, 7.35, facecolor="#F5F0E6", edgecolor="none"))
    ax.text(2.0, 7.6, "once an image", fontsize=9, weight="bold")
    ax.text(8.2, 7.6, "once a region", fontsize=9, weight="bold")
    search, rpn = ("selective\nsearch", LIGHT), ("RPN", PINK)
    convs, pyramid = ("conv layers", SKY), ("conv layers,\npyramid", SKY)
    rows = (
        (
            "R-CNN",
            [search],
            [
                ("warp the\nimage", ORANGE),
                ("all conv and\ndense layers", SKY),
                ("SVMs,\nridge regr.", GREEN),
            ],
        ),
        (
            "Fast\nR-CNN",
            [search, convs],
            [("RoIPool", ORANGE), ("dense layers", SKY), ("softmax,\ndeltas", GREEN)],
        ),
        (
            "Faster\nR-CNN",
            [convs, rpn],
            [("RoIPool", ORANGE), ("dense layers", SKY), ("softmax,\ndeltas", GREEN)],
        ),
        (
            "Mask\nR-CNN",
            [pyramid, rpn],
            [
                ("RoIAlign", ORANGE),
                ("dense layers,\nconv layers", SKY),
                ("softmax, del-\ntas, masks", GREEN),
            ],
        ),
    )
    for k, (name, once, each) in enumerate(rows):
        y = 6.6 - 1.8 * k
        ax.text(0.1, y, name, va="center", fontsize=9, weight="bold")
        for n, (text, color) in enumerate(once):
            block(ax, 3.0 + 2.9 * n + (1.45 if len(once) == 1 else 0), y, 2.2, 1.15, text, color)
        if once[-1] is rpn:
            arrow(ax, (4.1, y), (4.8, y))
        elif len(once) == 2:
            ax.text(4.45, y, "and", ha="center", va="center", fontsize=8)
        end = 7.0 if len(once) == 2 else 5.55
        arrow(ax, (end, y), (8.2, y), color=INK)
        for n, (text, color) in enumerate(each):
            x = 9.1 + 1.95 * n
            block(ax, x, y, 1.7, 1.15, text, color, fontsize=7)
            if n:
                arrow(ax, (x - 1.1, y), (x - 0.85, y))
    style.save(fig, path)


FIGURES = {"architectures.png": architectures, "test_times.png": times}
