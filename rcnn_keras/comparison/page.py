"""The page of a comparison, tables and pictures, as HTML and as Markdown."""

import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont

from rcnn_keras import visualize
from rcnn_keras.comparison.timing import STAGES
from rcnn_keras.data.dataset import Record
from rcnn_keras.data.detections import Detections
from rcnn_keras.utils.atomic import atomic_write

# What the papers, and those who quote them, report; nothing here was measured by this package.
FAST = "Fast R-CNN (Girshick 2015), table 4: VGG-16, one K40, proposals not counted"
FASTER = "Faster R-CNN (Ren et al. 2015), table 5: VGG-16, one K40"
FASTER_AP = "Faster R-CNN (Ren et al. 2015), table 3: trained on VOC 2007, 300 proposals"
MASK = "Mask R-CNN (He et al. 2017), 4.4 and table 3: ResNet-101-FPN, one M40, COCO test-dev"
QUOTED = "widely quoted, for instance in Stanford's CS231n of 2017, lecture 11"


class Figure(NamedTuple):
    """Published seconds an image, in stages and as a whole, and mAP; None where it is not said.

    `voc07` is the mAP of VOC 2007 test in percent, `coco` the box AP of COCO in percent.
    """

    what: str
    source: str
    total: float | None = None
    voc07: float | None = None
    proposals: float | None = None
    features: float | None = None
    regions: float | None = None
    coco: float | None = None


FIGURES = (
    Figure("R-CNN", QUOTED, 49.0),
    Figure("Fast R-CNN", QUOTED, 2.3),
    Figure("Faster R-CNN", QUOTED, 0.2),
    Figure("R-CNN", FAST, 47.0, 66.0),
    Figure("Fast R-CNN", FAST, 0.32, 66.9),
    Figure("Fast R-CNN, truncated SVD", FAST, 0.22, 66.6),
    Figure("Fast R-CNN on selective search", FASTER, 1.83, None, 1.51, 0.146, 0.174),
    Figure("Faster R-CNN", FASTER, 0.198, None, 0.010, 0.141, 0.047),
    Figure("Faster R-CNN", FASTER_AP, None, 69.9),
    Figure("Mask R-CNN", MASK, 0.195, coco=38.2),
)

# Recall at IoU 0.5, boxes and seconds an image: Uijlings et al. 2013, tables 4 (time) and 5.
SELECTIVE_SEARCH = {
    "published, fast, VOC 2007 test": {"recall": 0.980, "boxes": 2134, "seconds": 3.79},
    "published, quality, VOC 2007 test": {"recall": 0.991, "boxes": 10097, "seconds": 17.15},
}


NOTHING, FACTS = "-", ("", "value")  # an empty cell, the header of a table of facts
COLUMNS, LONG_SIDE, TITLE_HEIGHT = 3, 320, 24  # small images are enlarged to LONG_SIDE pixels


class Table(NamedTuple):
    """A header and rows of as many cells; the first cell of a row is its name."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def write_pages(
    folder: Path, studies: Sequence[dict[str, Any]], *, forms: Sequence[str] = ("html", "md")
) -> Path:
    """Write what was found on one data set or more into one page of each form.

    Args:
        folder: made if missing; links to pictures are relative to it.
        studies: what `compare` wrote as `study.json`, of one data set each.
        forms: `"html"` and `"md"`, of `family.html` and `family.md`.

    Returns:
        The path of the first form's page.
    """
    from jinja2 import Environment, StrictUndefined

    for form in forms:
        source = resources.files("rcnn_keras.comparison").joinpath(f"page.{form}.j2")
        blocks: Any = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
        environment = Environment(autoescape=form == "html", undefined=StrictUndefined, **blocks)
        page = environment.from_string(source.read_text("utf-8")).render(
            tables=[published_table(), search_table(studies)],
            studies=[study | {"tables": study_tables(study)} for study in studies],
        )
        with atomic_write(folder / f"family.{form}") as temporary:
            temporary.write_text(page, "utf-8")
    return folder / f"family.{forms[0]}"


def published_table() -> Table:
    """Return the published times and scores with their sources."""
    header = ("", *STAGES[:3], "whole", "VOC07 mAP", "COCO box AP", "source")
    rows = []
    for figure in FIGURES:
        seconds = (figure.proposals, figure.features, figure.regions, figure.total)
        scores = (_number(value, 1) for value in (figure.voc07, figure.coco))
        rows.append((figure.what, *map(_seconds, seconds), *scores, figure.source))
    return Table("Published, seconds an image", header, rows)


def search_table(studies: Sequence[dict[str, Any]]) -> Table:
    """Return recall, boxes and time of selective search, published and measured."""
    found: dict[str, Any] = dict(SELECTIVE_SEARCH)
    found |= {f"measured, {s['data']['name']}": s["search"] for s in studies if s["search"]}
    rows = [
        (name, _number(f["recall"], 3), f"{f['boxes']:,.0f}", _seconds(f["seconds"]))
        for name, f in found.items()
    ]
    return Table("Selective search", ("", "recall at IoU 0.5", "boxes an image", "seconds"), rows)


def study_tables(study: dict[str, Any]) -> list[Table]:
    """Return the tables of one data set: the data, AP, and test times with their machine."""
    data = [(name.replace("_", " "), str(value)) for name, value in study["data"].items()]
    tables = [Table("Data and training", FACTS, data), score_table(study["rows"])]
    titles = {"timing": "Test time an image", "vgg16": "Test time an image, untrained VGG-16"}
    for name, title in titles.items():
        if timing := study[name]:
            tables.append(time_table(title, timing["rows"]))
            tables.append(Table("", FACTS, list(timing["circumstances"].items())))
    return tables


def score_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return AP and training time of each detector."""
    titles = {"AP": "AP", "AP50": "AP50", "voc07": "VOC07 mAP"}
    if any("mask_AP" in row["scores"] for row in rows):
        titles |= {"mask_AP": "mask AP", "mask_AP50": "mask AP50"}
    cells = []
    for row in rows:
        scores = (_number(row["scores"].get(name), 3) for name in titles)
        cells.append((row["title"], *scores, row["training"]))
    return Table("Scores", ("", *titles.values(), "training"), cells)


def time_table(title: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Return the seconds of each stage of each detector, and their sums.

    The whole is not known where the search for proposals could not be timed.
    """
    stages = [stage for stage in STAGES if any(stage in row["seconds"] for row in rows)]
    header = ("", "boxes", *stages, "without proposals", "whole", "CPU time but search")
    cells = []
    for row in rows:
        seconds = row["seconds"]
        without = sum(value for stage, value in seconds.items() if stage != "proposals")
        searched = seconds.get("proposals", 0.0)
        sums = (without, None if searched is None else without + searched, row["cpu"])
        values = (*(seconds.get(stage) for stage in stages), *sums)
        cells.append((row["title"], f"{row['boxes']:,.0f}", *map(_seconds, values)))
    return Table(title, header, cells)


def draw_side_by_side(
    path: Path, record: Record, classes: tuple[str, ...], found: dict[str, Detections]
) -> None:
    """Write an image's ground truth, and what each detector finds by its title, as a PNG file."""
    zoom = max(1, LONG_SIDE // max(record.height, record.width))
    drawn = {"ground truth": visualize.draw(record.image, record, classes=classes, zoom=zoom)}
    drawn |= {title: visualize.draw(record.image, d, zoom=zoom) for title, d in found.items()}
    panels = []
    for title, picture in drawn.items():
        panel = Image.new("RGB", (picture.width, picture.height + TITLE_HEIGHT), "white")
        panel.paste(picture, (0, TITLE_HEIGHT))
        ImageDraw.Draw(panel).text((2, 2), title, "black", ImageFont.load_default(size=15))
        panels.append(panel)
    sheet = visualize.grid(panels, COLUMNS).quantize(128, dither=Image.Dither.NONE)
    with atomic_write(path) as temporary:
        sheet.save(temporary, optimize=True)  # with 128 colours a third of the bytes


def _seconds(value: float | None) -> str:  # with about three digits
    return NOTHING if value is None else f"{value:.{1 if value >= 20 else 2 if value >= 1 else 3}f}"


def _number(value: float | None, digits: int) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.{digits}f}"
