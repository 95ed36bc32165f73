"""The tables of the page: a header and rows of text each, for HTML and Markdown alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rcnn_keras.comparison.architectures import ARCHITECTURES, NAMES
from rcnn_keras.comparison.parts import PARTS
from rcnn_keras.comparison.published import FIGURES, SELECTIVE_SEARCH
from rcnn_keras.comparison.words import whole, without_proposals

NOTHING = "-"


@dataclass(frozen=True)
class Table:
    """A header and rows of as many cells; the first cell of a row is its name."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


def architecture_table() -> Table:
    """Return what each detector is made of."""
    return Table(("", *NAMES), [(part, *cells) for part, cells in ARCHITECTURES.items()])


def published_table() -> Table:
    """Return the published times and scores with their sources."""
    header = ("", "proposals", "features", "regions", "whole", "VOC07 mAP", "source")
    rows = []
    for figure in FIGURES:
        total = _seconds(figure.total)
        if figure.total is not None and not figure.with_proposals:
            total += ", without proposals"
        score = NOTHING if figure.voc07 is None else f"{figure.voc07:.1f}"
        if figure.coco is not None:
            score = f"COCO box AP {figure.coco:.1f}"
        parts = (figure.proposals, figure.features, figure.regions)
        rows.append((figure.what, *map(_seconds, parts), total, score, figure.source))
    return Table(header, rows)


def search_table(studies: Sequence[dict[str, Any]]) -> Table:
    """Return recall, boxes and time of selective search, published and measured."""
    rows = [
        (
            f"published, {figure.mode}, VOC 2007 test",
            f"{figure.recall:.3f}",
            f"{figure.boxes:,}",
            f"{figure.seconds:.2f} s",
        )
        for figure in SELECTIVE_SEARCH
    ]
    for study in studies:
        if study["search"]:
            name, found = study["data"]["name"], study["search"]
            seconds = (r["parts"].get("proposals") for r in study["rows"] if _searches(r))
            cells = (f"{found['recall']:.3f}", f"{found['boxes']:,.0f}", _seconds(next(seconds)))
            rows.append((f"here, {name}", *cells))
    return Table(("", "recall at IoU 0.5", "boxes an image", "an image"), rows)


def score_table(study: dict[str, Any]) -> Table:
    """Return AP and training time of each detector."""
    masks = any("mask_AP" in row["scores"] for row in study["rows"])
    names = ["AP", "AP50", "voc07", *(["mask_AP", "mask_AP50"] if masks else [])]
    titles = [{"voc07": "VOC07 mAP"}.get(n, n.replace("mask_", "mask ")) for n in names]
    rows = []
    for row in study["rows"]:
        minutes = row["minutes"] or "given"
        if row["name"] == "fast_rcnn_svd":
            minutes = "none"
        rows.append((row["title"], *(_score(row["scores"].get(n)) for n in names), minutes))
    return Table(("", *titles, "training"), rows)


def time_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Return the seconds of each part of each detector."""
    parts = [part for part in PARTS if any(part in row["parts"] for row in rows)]
    header = ("", "boxes an image", *parts, "without proposals", "whole", "CPU time but search")
    lines = []
    for row in rows:
        cells = [_seconds(row["parts"].get(part)) for part in parts]
        sums = map(_seconds, (without_proposals(row), whole(row), row["cpu"]))
        lines.append((row["title"], f"{row['boxes']:,.0f}", *cells, *sums))
    return Table(header, lines)


def _searches(row: dict[str, Any]) -> bool:
    return row["name"] in ("rcnn", "fast_rcnn", "fast_rcnn_svd")


def _seconds(value: float | None) -> str:
    """Return seconds with about three digits."""
    if value is None:
        return NOTHING
    return f"{value:.1f} s" if value >= 10 else f"{value:.2f} s" if value >= 1 else f"{value:.3f} s"


def _score(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"
