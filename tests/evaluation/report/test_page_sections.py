"""The sections of a report, on a page and by themselves."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from rcnn_keras.evaluation import ConfusionMatrix, DetectionErrors, VocScores
from rcnn_keras.evaluation.report.gallery import Picture, draw_worst
from rcnn_keras.evaluation.report.page import (
    Plot,
    Section,
    confusion_section,
    error_section,
    voc_section,
    write_report,
)

A, B, FAR = [0, 0, 40, 40], [60, 0, 100, 40], [120, 120, 160, 160]


@pytest.fixture
def mixed(scene):
    """A cat found, one missed; a dog detected as an owl twice; a cat on background."""
    scene.image(
        [(0, A), (0, B), (1, FAR)], [(0, 0.9, A), (2, 0.8, FAR), (0, 0.7, [60, 90, 99, 130])]
    )
    return scene.image([(1, A)], [(2, 0.6, A)])


class Tables(HTMLParser):
    """Collects the rows of all tables of a page, and its links."""

    def __init__(self, path):
        super().__init__()
        self.rows, self.links, self.cell = [], [], False
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.links += [v for k, v in attributes if k in ("src", "href", "srcset")]
        self.cell = tag in ("td", "th")
        if tag == "tr":
            self.rows.append([])
        elif self.cell:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        self.cell = False

    def handle_data(self, data):
        if self.cell:
            self.rows[-1][-1] += data


def test_the_page_has_the_tables_plots_and_pictures(mixed, tmp_path):
    args = mixed.dataset, mixed.detections
    errors, confusion = DetectionErrors(*args), ConfusionMatrix(*args)
    scores = VocScores(*args)
    worst = draw_worst(tmp_path / "elsewhere", errors, *args)
    sections = [voc_section(scores, scores), error_section(errors, worst)]
    report = write_report(
        tmp_path / "report",
        title="t",
        scores=scores.summary(),
        sections=[*sections, confusion_section(confusion)],
    )
    page = Tables(report)
    header = ["class", "objects", "true positive", "duplicate", "localisation", "wrong class"]
    header += ["class and localisation", "background", "missed", "ignored"]
    start = page.rows.index(header)
    assert page.rows[start + 1 : start + 4] == [
        ["cat", "2", "1", "0", "0", "0", "0", "1", "1", "0"],
        ["dog", "2", "0", "0", "0", "0", "0", "0", "2", "0"],
        ["owl", "0", "0", "0", "0", "2", "0", "0", "0", "0"],
    ]
    start = page.rows.index(["true", "found", "number"])
    assert page.rows[start + 1] == ["dog", "owl", "2"]
    assert sorted(page.rows[start + 2 :]) == [
        ["background", "cat", "1"],
        ["cat", "background", "1"],
    ]
    assert page.rows[0] == ["class", "AP", ""]  # the bars have no name
    assert page.rows[1][:2] == ["cat", "0.500"]
    names = ("precision_recall", "mask_precision_recall", "errors", "confusion")
    plots = {f"{name}{theme}.png" for name in names for theme in ("", "_dark")}
    pictures = {link for link in page.links if link.startswith("pictures/")}
    assert set(page.links) == plots | pictures
    assert len(pictures) == len(worst) == 6
    for link in page.links:
        Image.open(report.parent / link).verify()
    text = report.read_text("utf-8")
    for title in ("Precision and recall", "Errors", "Confusions"):
        assert f"<h2>{title}</h2>" in text
    assert "IoU of boxes: correct from 0.5, badly localised from 0.1" in text
    assert "wrong class: owl 0.80, IoU 1.00 with dog, 1.png" in text
    assert not re.search(r"https?:|//", text)


def test_empty_parts_are_left_out_and_names_are_escaped(tmp_path):
    report = write_report(
        tmp_path, title="t", scores={"mAP": 0.5}, sections=[Section("<b>&", rows=[("<i>", 3)])]
    )
    text = report.read_text("utf-8")
    assert "<h2>&lt;b&gt;&amp;</h2>" in text
    assert "&lt;i&gt;" in text
    assert "<img" not in text
    assert 'class="soft"></p>' not in text


def test_a_plot_is_drawn_light_and_dark(tmp_path):
    def draw(path, theme):
        Image.new("RGB", (4, 4), theme.background).save(path)

    section = Section("s", plots=[Plot("mine", "Mine", draw)])
    write_report(tmp_path, title="t", scores={"mAP": 0.5}, sections=[section])
    light, dark = (
        Image.open(tmp_path / f"mine{theme}.png").getpixel((0, 0)) for theme in ("", "_dark")
    )
    assert sum(light) > 700 > 200 > sum(dark)


def test_pictures_of_the_same_name_in_sections_and_page_are_not_mixed_up(tmp_path):
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    for path, color in zip(paths, ("red", "blue"), strict=True):
        path.parent.mkdir()
        Image.new("RGB", (8, 8), color).save(path)
    sections = [Section("s", pictures=[Picture(paths[1], "blue one")])]
    out = tmp_path / "out"
    write_report(out, title="t", scores={"mAP": 0.5}, pictures=paths[:1], sections=sections)
    colors = {Image.open(path).getpixel((0, 0)) for path in (out / "pictures").iterdir()}
    assert colors == {(255, 0, 0), (0, 0, 255)}
    missing = [Section("s", pictures=[Picture(tmp_path / "none.png", "?")])]
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        write_report(tmp_path / "new", title="t", scores={"mAP": 0.5}, sections=missing)


def test_the_most_frequent_confusions_come_first(mixed):
    matrix = ConfusionMatrix(mixed.dataset, mixed.detections)
    matrix.counts[:] = np.arange(16).reshape(4, 4)
    rows = confusion_section(matrix).rows
    assert rows[0] == ("background", "owl", 14)
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    assert all(truth != found for truth, found, _ in rows)
    assert len(rows) == 12
