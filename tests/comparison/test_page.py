"""Tables, sentences and pages from numbers that are known."""

import re
from html.parser import HTMLParser

import pytest

from rcnn_keras.comparison import write_pages
from rcnn_keras.comparison.tables import time_table
from rcnn_keras.comparison.words import conclusions


def row(name, title, boxes=2000, **parts):
    scores = {"AP": 0.25, "AP50": 0.5, "voc07": None}
    cpu = 2 * sum(seconds for part, seconds in parts.items() if part != "proposals")
    return {
        "name": name,
        "title": title,
        "boxes": boxes,
        "parts": parts,
        "cpu": cpu,
        "minutes": "1.5 min (2.0 of CPU)",
        "scores": scores,
    }


def study(**changes):
    rows = [
        row("rcnn", "R-CNN", proposals=2.0, regions=47.0),
        row("fast_rcnn", "Fast R-CNN", proposals=1.98, features=0.2, regions=0.12),
        row("fast_rcnn_svd", "SVD & more", proposals=1.98, features=0.2, regions=0.02),
        row("faster_rcnn", "Faster R-CNN", 300, proposals=0.02, features=0.14, regions=0.04),
    ]
    timing = {"when": "2026-01-02", "busy": 0.25, "machine": "A <fast> one", "repeats": 3}
    timing |= {"images": 4}
    return {
        "data": {
            "name": "cells",
            "classes": ["a", "b"],
            "train_images": 10,
            "val_images": 5,
            "val_objects": 20,
            "sizes": "64x48",
            "has_masks": False,
            "min_size": 240,
            "epochs": 2,
            "steps": 9,
        },
        "search": {"recall": 0.75, "boxes": 1234.5, "minutes": "0.5 min (0.6 of CPU)"},
        "rows": rows,
        "timing": timing,
        "vgg16": timing | {"rows": rows, "sizes": "64x48"},
        "pictures": ["pictures/scene_1.png"],
        "command": "rcnn compare --val a.json",
    } | changes


class Cells(HTMLParser):
    """The text of the cells of all tables of a page, row by row."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.inside = [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.inside = False

    def handle_data(self, data):
        if self.inside:
            self.rows[-1][-1] += data


def markdown_rows(page):
    lines = [line for line in page.splitlines() if line.startswith("|")]
    lines = [line for line in lines if not re.fullmatch(r"[|\- ]+", line)]
    return [line.removeprefix("| ").removesuffix(" |").split(" | ") for line in lines]


def test_both_forms_have_the_same_tables(tmp_path):
    page = write_pages(tmp_path, [study(), study(vgg16=None, search=None)])
    assert page == tmp_path / "family.html"
    ours = Cells(page.read_text()).rows
    theirs = markdown_rows((tmp_path / "family.md").read_text())
    assert [[c.strip() for c in r] for r in theirs] == [[c.strip() for c in r] for r in ours]
    assert ["SVD & more", "0.250", "0.500", "-", "none"] in ours
    assert ["here, cells", "0.750", "1,234", "2.00 s"] in ours
    assert not any("undefined" in cell.lower() for line in ours for cell in line)


def test_html_escapes_and_markdown_does_not(tmp_path):
    html = write_pages(tmp_path, [study()]).read_text()
    assert "A &lt;fast&gt; one" in html
    assert "<strong>147 times</strong>" in html
    text = (tmp_path / "family.md").read_text()
    assert "A <fast> one" in text
    assert "**147 times**" in text
    assert "was 25%" in html
    assert "](pictures/scene_1.png)" in text


def test_times_by_hand():
    table = time_table(study()["rows"])
    fast = dict(zip(table.header, table.rows[1], strict=True))
    assert fast == {
        "": "Fast R-CNN",
        "boxes an image": "2,000",
        "proposals": "1.98 s",
        "features": "0.200 s",
        "regions": "0.120 s",
        "without proposals": "0.320 s",
        "whole": "2.30 s",
        "CPU time but search": "0.640 s",
    }


def test_the_quoted_times_give_the_quoted_ratios():
    said = " ".join(conclusions(study()))
    assert "**147 times** as fast as R-CNN (0.32 s and 47.0 s)" in said
    assert "changes less, it is 147 and 214 here" in said
    assert "R-CNN, Fast R-CNN, Faster R-CNN, as in the papers" in said
    assert said.count("245.0 : 11.5 : 1.0") == 2  # ours, and those that are quoted
    assert "saves a smaller share" not in said
    assert "fewer regions" not in said


def test_another_order_is_said():
    slow = [row("faster_rcnn", "Faster R-CNN", proposals=9.0, features=9.0, regions=9.0)]
    rows = [*study()["rows"][:3], *slow]
    said = " ".join(conclusions(study(vgg16={"rows": rows})))
    assert "R-CNN, Faster R-CNN, Fast R-CNN, not that of the papers" in said
    assert "saves a smaller share" in said


@pytest.mark.parametrize("busy", [None, 0.5])
def test_the_load_is_said(busy, tmp_path):
    timing = study()["timing"] | {"busy": busy}
    text = write_pages(tmp_path, [study(timing=timing, vgg16=None)], forms=("md",)).read_text()
    assert ("is not known" if busy is None else "was 50%") in text


def test_given_models_without_training_data(tmp_path):
    data = study()["data"] | {"train_images": None, "has_masks": True}
    rows = [study()["rows"][3] | {"minutes": None}]
    rows[0]["scores"] = rows[0]["scores"] | {"mask_AP": 0.125, "mask_AP50": None}
    changed = study(data=data, rows=rows, vgg16=None, search=None, command="")
    text = write_pages(tmp_path, [changed], forms=("md",)).read_text()
    assert "the models were given" in text
    assert "not to be compared" not in text
    assert "no masks" not in text
    assert "| Faster R-CNN | 0.250 | 0.500 | - | 0.125 | - | given |" in text


def test_given_models_beside_trained_ones(tmp_path):
    rows = [*study()["rows"][1:], study()["rows"][0] | {"minutes": None}]
    text = write_pages(tmp_path, [study(rows=rows)], forms=("md",)).read_text()
    assert "Not trained here but given, and not necessarily so: R-CNN." in text
    assert "Not trained here" not in write_pages(tmp_path, [study()], forms=("md",)).read_text()
