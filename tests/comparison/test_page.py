"""Tables and pages from numbers that are known."""

import itertools
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.comparison import write_pages
from rcnn_keras.comparison.page import draw_side_by_side, time_table

SCORES = {"AP": 0.25, "AP50": 0.5, "voc07": None}


def timed(title, boxes=2000, **seconds):
    cpu = 2 * sum(value or 0 for stage, value in seconds.items() if stage != "proposals")
    return {"title": title, "boxes": boxes, "cpu": cpu, "seconds": seconds}


def study(**changes):
    times = [
        timed("R-CNN", proposals=2.0, regions=47.0),
        timed("Fast R-CNN", proposals=1.98, features=0.2, regions=0.12),
        timed("SVD & more", proposals=None, features=0.2, regions=0.02),
        timed("Faster R-CNN", 300, proposals=0.02, features=0.14, regions=0.04),
    ]
    timing = {"circumstances": {"processor": "A <fast> one"}, "search": 1.98, "rows": times}
    rows = [{"title": r["title"], "scores": SCORES, "training": "1.5 min"} for r in times]
    return {
        "data": {"name": "cells", "images to score on": 5, "min size": 240},
        "search": {"recall": 0.75, "boxes": 1234.5, "seconds": 1.98},
        "rows": rows,
        "timing": timing,
        "vgg16": timing,
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
    assert ["SVD & more", "0.250", "0.500", "-", "1.5 min"] in ours
    assert ["measured, cells", "0.750", "1,234", "1.98"] in ours
    assert ["images to score on", "5"] in ours
    assert not any("undefined" in cell.lower() for line in ours for cell in line)


def test_every_markdown_table_has_a_blank_line_around_it(tmp_path):
    lines = write_pages(tmp_path, [study()], forms=("md",)).read_text().splitlines()
    for line, following in itertools.pairwise(lines):
        if line.startswith("|") != following.startswith("|"):
            assert "" in (line, following)


def test_html_escapes_and_markdown_does_not(tmp_path):
    html = write_pages(tmp_path, [study()]).read_text()
    assert "A &lt;fast&gt; one" in html
    assert 'src="pictures/scene_1.png"' in html
    text = (tmp_path / "family.md").read_text()
    assert "A <fast> one" in text
    assert "](pictures/scene_1.png)" in text
    assert "rcnn compare --val a.json" in text


def test_times_are_those_computed_by_hand():
    table = time_table("times", study()["timing"]["rows"])
    fast, svd = (dict(zip(table.header, table.rows[i], strict=True)) for i in (1, 2))
    assert fast == {
        "": "Fast R-CNN",
        "boxes": "2,000",
        "proposals": "1.98",
        "features": "0.200",
        "regions": "0.120",
        "without proposals": "0.320",
        "whole": "2.30",
        "CPU time but search": "0.640",
    }
    assert (svd["proposals"], svd["whole"], svd["without proposals"]) == ("-", "-", "0.220")


def test_masks_have_columns_where_some_detector_has_them(tmp_path):
    rows = [*study()["rows"][2:], {"title": "Mask R-CNN", "training": "given"}]
    rows[-1]["scores"] = SCORES | {"mask_AP": 0.125, "mask_AP50": None}
    text = write_pages(tmp_path, [study(rows=rows, vgg16=None)], forms=("md",)).read_text()
    assert "| Faster R-CNN | 0.250 | 0.500 | - | - | - | 1.5 min |" in text
    assert "| Mask R-CNN | 0.250 | 0.500 | - | 0.125 | - | given |" in text
    assert "mask AP" not in write_pages(tmp_path, [study()], forms=("md",)).read_text()


def test_a_picture_has_a_panel_for_the_truth_and_for_each_detector(scenes, tmp_path):
    dataset = rk.data.load_coco(scenes / "annotations.json")
    one = dataset[0]
    nothing = np.zeros(0)
    found = rk.Detections(nothing.reshape(0, 4), nothing, nothing, dataset.classes, (64, 64))
    draw_side_by_side(tmp_path / "new" / "s.png", one, dataset.classes, {"Fast R-CNN": found})
    with Image.open(tmp_path / "new" / "s.png") as image:
        assert image.width >= 2 * 320
        assert image.height > 320
