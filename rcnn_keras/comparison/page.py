"""The page of a comparison, as HTML and as Markdown from the same tables."""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from rcnn_keras.comparison import recipes
from rcnn_keras.comparison.tables import (
    Table,
    architecture_table,
    published_table,
    score_table,
    search_table,
    time_table,
)
from rcnn_keras.comparison.words import conclusions
from rcnn_keras.data.written_aside import written_aside

FORMS = ("html", "md")


def write_pages(
    folder: Path,
    studies: Sequence[dict[str, Any]],
    *,
    name: str = "family",
    forms: Sequence[str] = FORMS,
) -> Path:
    """Write what was found on one data set or more into one page of each form.

    Args:
        folder: made if missing; links to pictures are relative to it.
        studies: what `compare` wrote as `study.json`, of one data set each.
        name: of the files, without ending.
        forms: `"html"` and `"md"`.

    Returns:
        The path of the first form's page.
    """
    from jinja2 import Environment, StrictUndefined

    parts = [
        {
            **study,
            "scores": score_table(study),
            "times": time_table(study["rows"]),
            "vgg16_times": time_table(study["vgg16"]["rows"]) if study["vgg16"] else None,
            "conclusions": conclusions(study),
            "given": [row["title"] for row in study["rows"] if row["minutes"] is None],
        }
        for study in studies
    ]
    for form in forms:
        source = resources.files("rcnn_keras.comparison").joinpath(f"page.{form}.j2")
        environment = Environment(
            autoescape=form == "html",
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        environment.filters |= {"markdown": _markdown, "share": _share, "bold": _bold}
        page = environment.from_string(source.read_text("utf-8")).render(
            architectures=architecture_table(),
            published=published_table(),
            search=search_table(studies),
            studies=parts,
            recipes=recipes,
        )
        with written_aside(folder / f"{name}.{form}") as aside:
            aside.write_text(page, "utf-8")
    return folder / f"{name}.{forms[0]}"


def _markdown(table: Table) -> str:
    """Return a table in Markdown."""
    rows = [table.header, ["---"] * len(table.header), *table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _share(value: float | None) -> str:
    """Say how busy the machine was."""
    return "is not known" if value is None else f"was {value:.0%}"


def _bold(text: str) -> Any:
    """Turn Markdown's bold into HTML's; everything else is escaped."""
    from markupsafe import Markup, escape

    pieces = [escape(piece) for piece in text.split("**")]
    marked = (Markup("<strong>{}</strong>").format(p) if i % 2 else p for i, p in enumerate(pieces))
    return Markup("").join(marked)
