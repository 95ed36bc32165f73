import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image, ImageColor

from rcnn_keras.evaluation.report import plots
from rcnn_keras.evaluation.report.page import write_report
from rcnn_keras.visualize import PALETTE

SCORES = {"AP": 0.5114, "AP50": 0.873, "APl": float("nan"), "AP/cat": 0.4, "AP/<b>&dog": 0.6228}
HISTORY = {
    "loss": [3.0, 2.0, 1.0],
    "val_loss": [3.5, 2.5, 2.0],
    "box_loss": [1.0, 0.5, 0.2],
    "learning_rate": [0.1, 0.1, 0.01],
    "val_AP": [0.1, 0.3, 0.5],
    "val_AP50": [0.3, float("nan"), 0.8],
}
RECALL = np.linspace(0, 1, 101)
PRECISION_RECALL = {
    "cat": (RECALL, np.where(RECALL <= 0.745, 1.0, 0.0)),  # 75 of 101 points: 0.743
    "<b>&dog": (RECALL, np.full(101, 0.25)),
}


class Page(HTMLParser):
    """Collects links, cell texts and element names of an HTML page."""

    def __init__(self, path):
        super().__init__()
        self.links, self.texts, self.tags = [], [], set()
        self.feed(path.read_text("utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [v for k, v in attributes if k in ("src", "href", "srcset")]

    def handle_data(self, data):
        self.texts.append(data.strip())


@pytest.fixture
def pictures(tmp_path):
    paths = [tmp_path / "a" / "one #1.png", tmp_path / "b" / "one #1.png"]
    for path, color in zip(paths, ("red", "blue"), strict=True):
        path.parent.mkdir()
        Image.new("RGB", (8, 8), color).save(path)
    return paths


@pytest.fixture
def report(tmp_path, pictures):
    return write_report(
        tmp_path / "runs" / "report",
        title="Shapes <1>",
        scores=SCORES,
        history=HISTORY,
        precision_recall=PRECISION_RECALL,
        pictures=pictures,
        command="rcnn train a.yaml && echo 'done'",
        notes=["First.", "Second & last."],
    )


def test_the_page_has_all_scores(report):
    page = Page(report)
    for text in ("Shapes <1>", "0.511", "0.873", "n/a", "0.400", "0.623", "0.743", "0.250"):
        assert text in page.texts
    for text in ("First.", "Second & last.", "rcnn train a.yaml && echo 'done'"):
        assert text in page.texts
    assert any(re.search(r"keras \d+\.\d+", text) for text in page.texts)


def test_names_are_escaped(report):
    page = Page(report)
    assert "<b>&dog" in page.texts
    assert "b" not in page.tags


def test_every_link_is_a_file_of_the_folder_also_after_a_move(report, tmp_path):
    moved = Path(shutil.move(report.parent, tmp_path / "elsewhere"))
    for path in ("a", "b"):
        shutil.rmtree(tmp_path / path)
    links = Page(moved / "report.html").links
    assert len(links) == 3 * 2 + 2 * 2  # light and dark plots; pictures, each linked to itself
    for link in links:
        assert "/" not in link or link.startswith("pictures/")
        Image.open(moved / unquote(link)).verify()


def test_pictures_of_the_same_name_are_not_mixed_up(report):
    links = dict.fromkeys(x for x in Page(report).links if x.startswith("pictures/"))
    colors = [Image.open(report.parent / unquote(x)).getpixel((0, 0)) for x in links]
    assert colors == [(255, 0, 0), (0, 0, 255)]


def test_pictures_inside_the_folder_are_linked_where_they_are(tmp_path):
    picture = tmp_path / "samples" / "x.png"
    picture.parent.mkdir()
    Image.new("RGB", (8, 8)).save(picture)
    report = write_report(tmp_path, title="t", scores={"AP": 0.1}, pictures=[picture])
    assert set(Page(report).links) == {"samples/x.png"}
    assert not (tmp_path / "pictures").exists()


def test_missing_parts_are_left_out(tmp_path):
    report = write_report(tmp_path, title="t", scores={"AP": 0.1})
    page = Page(report)
    assert page.links == []
    assert page.tags.isdisjoint({"table", "img", "pre"})
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_a_history_without_average_precision_has_loss_curves_only(tmp_path):
    history = {"loss": [1.0, 0.5], "learning_rate": [0.1, 0.1]}
    report = write_report(tmp_path, title="t", scores={"AP": 0.1}, history=history)
    assert set(Page(report).links) == {"losses.png", "losses_dark.png"}


@pytest.fixture
def mask_report(tmp_path):
    history = HISTORY | {"val_mask_AP": [0.1, 0.2, 0.4], "mask_loss": [0.7, 0.5, 0.4]}
    scores = {"AP": 0.3217, "AP50": 0.7011, "AP/cat": 0.25, "AP/<b>&dog": float("nan")}
    return write_report(
        tmp_path,
        title="t",
        scores=SCORES,
        mask_scores=scores,
        history=history,
        precision_recall=PRECISION_RECALL,
        mask_precision_recall={"cat": (RECALL, np.full(101, 0.5))},
    )


def test_boxes_and_masks_stand_side_by_side(mask_report):
    page = Page(mask_report)
    assert [text for text in page.texts if text.endswith("scores")] == ["Box scores", "Mask scores"]
    header = page.texts.index("box AP")
    columns = [text for text in page.texts[header : header + 8] if text]
    assert columns[:4] == ["box AP", "box AP50", "mask AP", "mask AP50"]
    first = page.texts.index("cat", header)
    row = [text for text in page.texts[first : first + 12] if text]
    assert row[:5] == ["cat", "0.400", "0.743", "0.250", "0.500"]
    second = page.texts.index("<b>&dog", header)
    row = [text for text in page.texts[second : second + 12] if text]
    assert row[:5] == ["<b>&dog", "0.623", "0.250", "n/a", "n/a"]
    for text in ("0.511", "0.322", "0.701", "Mask precision by recall at IoU 0.50"):
        assert text in page.texts


def test_masks_have_plots_of_their_own(mask_report):
    names = ["losses", "average_precision", "precision_recall"]
    names += ["mask_average_precision", "mask_precision_recall"]
    files = {f"{name}{page}.png" for name in names for page in ("", "_dark")}
    assert set(Page(mask_report).links) == files
    folder = mask_report.parent
    for name in names[1:3]:
        boxes, masks = (folder / f"{kind}{name}.png" for kind in ("", "mask_"))
        assert boxes.read_bytes() != masks.read_bytes()


def test_the_page_loads_nothing_from_the_network(report):
    assert not re.search(r"https?:|//", report.read_text("utf-8"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"scores": {"AP": 51.1}}, ValueError, r"AP .* 51\.1"),
        ({"scores": {"AP75": -1}}, ValueError, "AP75 .* -1"),
        ({"mask_scores": {"AP": 2.5}}, ValueError, r"mask score AP .* 2\.5"),
        ({"precision_recall": {"a": (RECALL, RECALL[1:])}}, ValueError, "precision_recall"),
        ({"pictures": ["nowhere.png"]}, FileNotFoundError, "nowhere"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_written(
    tmp_path, arguments, error, message
):
    with pytest.raises(error, match=message):
        write_report(tmp_path / "new", **{"title": "t", "scores": {"AP": 0.5}, **arguments})
    assert not (tmp_path / "new").exists()


def has_color(path, color, pixels_at_least=50):
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return bool((pixels == ImageColor.getrgb(color)).all(1).sum() >= pixels_at_least)


def test_losses_are_plotted_with_their_validation_losses(tmp_path):
    training, validation = PALETTE[5], PALETTE[0]
    plots.plot_losses(tmp_path / "both.png", {"loss": [2, 1], "val_loss": [3, 2]})
    plots.plot_losses(tmp_path / "one.png", {"loss": [2, 1], "val_box_loss": [3, 2]})
    assert has_color(tmp_path / "both.png", training)
    assert has_color(tmp_path / "both.png", validation)
    assert has_color(tmp_path / "one.png", training)
    assert not has_color(tmp_path / "one.png", validation)


def test_the_total_loss_comes_first():
    history = {"box_loss": [1], "val_loss": [1], "loss": [1], "AP": [1], "class_loss": [1]}
    assert plots.loss_names(history) == ["loss", "box_loss", "class_loss"]


@pytest.mark.parametrize("count", [1, 2, plots.MAX_NAMED_CLASSES + 1])
def test_precision_by_recall_is_plotted_for_few_and_many_classes(tmp_path, count):
    """Hostile names are text too: a lone dollar, mathematics, and what legends hide."""
    names = ["$a_{$ \\frac", "_hidden", *(f"class {i}" for i in range(20))][:count]
    data = {name: (RECALL, np.full(101, (i + 1) / 20)) for i, name in enumerate(names)}
    plots.plot_precision_recall(tmp_path / "a.png", data)
    assert has_color(tmp_path / "a.png", PALETTE[0]) == (count <= plots.MAX_NAMED_CLASSES)
    # the mean is a thick line over the whole width; text alone has far fewer pixels
    assert has_color(tmp_path / "a.png", plots.LIGHT.foreground, 2500) == (count > 1)


def test_the_global_state_of_matplotlib_is_unchanged(tmp_path):
    from matplotlib import pyplot, rcParams

    before = dict(rcParams), pyplot.get_backend(), pyplot.get_fignums()
    plots.plot_losses(tmp_path / "a.png", {"loss": [2.0, 1.0]})
    assert (dict(rcParams), pyplot.get_backend(), pyplot.get_fignums()) == before
