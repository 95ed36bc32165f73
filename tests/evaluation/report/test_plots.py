"""Plots of errors: the colours that must be there, by pixels."""

import numpy as np
import pytest
from PIL import Image, ImageColor

from rcnn_keras.evaluation import ConfusionMatrix, DetectionErrors, VocScores
from rcnn_keras.evaluation.errors import KINDS, MISSED
from rcnn_keras.evaluation.report.plots import (
    DARK,
    ERROR_COLORS,
    LIGHT,
    MAX_ROWS_WITH_COUNTS,
    plot_confusion,
    plot_errors,
    plot_voc_curves,
)
from rcnn_keras.visualize import PALETTE

A, FAR = [0, 0, 40, 40], [120, 120, 160, 160]


def count_color(path, color):
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return int((pixels == ImageColor.getrgb(color)).all(1).sum())


def table(**rows):
    names = ("objects", *KINDS, MISSED)
    return {name: dict.fromkeys(names, 0) | row for name, row in rows.items()}


def test_every_kind_but_ignored_has_a_colour():
    assert set(ERROR_COLORS) == {*KINDS, MISSED} - {"ignored"}
    colors = [color for color in ERROR_COLORS.values() if color]
    assert len(set(colors)) == len(colors)


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_bar_lengths_are_shares(tmp_path, theme):
    """Of one class three quarters are right; the other, ten times as many, is all background."""
    rows = {"a$": {"true positive": 30, MISSED: 10, "ignored": 99}, "b": {"background": 400}}
    plot_errors(tmp_path / "a.png", table(**rows, nothing={}), theme)
    right = count_color(tmp_path / "a.png", ERROR_COLORS["true positive"])
    background = count_color(tmp_path / "a.png", ERROR_COLORS["background"])
    assert right / background == pytest.approx(0.75, abs=0.03)  # patches in the legend are alike
    assert count_color(tmp_path / "a.png", theme.background) > 1000
    assert count_color(tmp_path / "a.png", ERROR_COLORS["wrong class"]) < 0.03 * background


def test_plots_without_data_are_drawn_empty(tmp_path, scene):
    DetectionErrors(scene.dataset, {}).plot(tmp_path / "errors.png")
    ConfusionMatrix(scene.dataset, {}).plot(tmp_path / "confusion.png", DARK)
    plot_voc_curves(tmp_path / "voc.png", VocScores(scene.dataset, {}).curves, {})
    for name in ("errors", "confusion", "voc"):
        Image.open(tmp_path / f"{name}.png").verify()


@pytest.mark.parametrize("n", [3, MAX_ROWS_WITH_COUNTS + 1])
@pytest.mark.parametrize(("theme", "full"), [(LIGHT, PALETTE[5]), (DARK, PALETTE[1])])
def test_a_cell_is_coloured_by_its_share_of_the_row(tmp_path, n, theme, full):
    counts = np.zeros((n, n), int)
    counts[0, 0], counts[1, :2] = 7, [50, 50]  # a whole row, and two halves
    names = [f"class {i} $" for i in range(n)]
    plot_confusion(tmp_path / "a.png", counts, names, theme)
    whole = count_color(tmp_path / "a.png", full)
    ends = np.array([ImageColor.getrgb(color) for color in (theme.background, full)])
    pixels = np.asarray(Image.open(tmp_path / "a.png").convert("RGB")).astype(int)
    half = int((np.abs(pixels - ends.mean(axis=0)).max(axis=2) < 2).sum())
    assert whole > 100
    assert half / whole == pytest.approx(2, abs=0.25)


def test_a_number_of_names_unlike_the_counts_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"counts of shape \(2, 2\) for 3 names"):
        plot_confusion(tmp_path / "a.png", np.zeros((2, 2), int), "abc")


def test_voc_curves_are_drawn_for_few_and_many_classes(tmp_path, scene):
    scene.image([(0, A), (0, FAR)], [(0, 0.9, FAR), (0, 0.8, [60, 60, 80, 80]), (0, 0.7, A)])
    curves = VocScores(scene.dataset, scene.detections).curves
    plot_voc_curves(tmp_path / "few.png", curves, {"cat": 5 / 6})
    assert count_color(tmp_path / "few.png", PALETTE[0]) > 500
    many = {f"class {i}": curves["cat"] for i in range(13)}
    plot_voc_curves(tmp_path / "many.png", many, dict.fromkeys(many, 0.5))
    assert count_color(tmp_path / "many.png", PALETTE[0]) == 0
