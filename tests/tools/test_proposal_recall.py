"""tools/benchmarks/proposal_recall.py."""

import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.proposals import Objectness

TOOL = Path(__file__).parents[2] / "tools" / "benchmarks" / "proposal_recall.py"
SEARCH = "rcnn_keras.proposals.selective_search"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


def test_the_first_box_that_finds_an_object_counts(tool):
    objects = np.float32([[0, 0, 10, 10], [20, 20, 30, 30], [50, 50, 60, 60]])
    boxes = np.float32([[0, 0, 10, 5], [0, 0, 10, 8], [21, 20, 30, 30], [0, 0, 10, 10]])
    hits = tool["first_hits"](boxes, objects)  # IoUs of 0.5, 0.8, 0.9 and 1
    np.testing.assert_array_equal(hits, [[0, 2, np.inf], [1, 2, np.inf]])
    assert tool["IOUS"] == (0.5, 0.7)
    np.testing.assert_array_equal(tool["first_hits"](boxes[:0], objects), np.full((2, 3), np.inf))


def test_table_has_recall_at_each_number(tool):
    found = {"some": np.array([[0, 9, 10, np.inf], [50, 99, 2000, np.inf]])}
    rows = tool["table"](found, {"some": 2500.4}).splitlines()
    assert rows == [
        "| proposals | IoU | 10 | 30 | 100 | 300 | 1000 | all | an image |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| some | 0.5 | 0.500 | 0.750 | 0.750 | 0.750 | 0.750 | 0.750 | 2500 |",
        "| some | 0.7 | 0.000 | 0.000 | 0.500 | 0.500 | 0.500 | 0.750 | 2500 |",
    ]


@pytest.mark.parametrize("with_search", [False, True])
def test_the_tool_runs_on_drawn_scenes(with_search, tmp_path, monkeypatch, capsys):
    for name, seed in (("train", 0), ("test", 1)):
        rk.data.draw_shapes(3, size=(64, 80), seed=seed, out=tmp_path / name)
    module = ModuleType(SEARCH)
    if with_search:
        module.selective_search = lambda image, mode: np.float32([[0, 0, 9, 9], [5, 5, 60, 60]])
    monkeypatch.setitem(sys.modules, SEARCH, module if with_search else None)
    arguments = {
        "train": tmp_path / "train" / "annotations.json",
        "test": tmp_path / "test" / "annotations.json",
        "candidates": 300,
        "save": tmp_path / "learnt.json",
        "plot": tmp_path / "recall.png",
    }
    options = [text for name, value in arguments.items() for text in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", [TOOL.name, *options])
    runpy.run_path(str(TOOL), run_name="__main__")
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == (12 if with_search else 6)
    assert sum(row.startswith("| selective search") for row in rows) == (6 if with_search else 0)
    for row in rows:
        recalls = [float(cell) for cell in row.strip("| ").split(" | ")[2:-1]]
        assert recalls == sorted(recalls)
    assert rk.data.read_image(tmp_path / "recall.png").shape == (560, 1400, 3)
    assert Objectness.load(tmp_path / "learnt.json").prior > 0
