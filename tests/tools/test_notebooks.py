"""examples/*.ipynb: built from their scripts, small, and what they do works."""

import importlib.util
import json
import os
from pathlib import Path

import keras
import nbformat
import pytest
import tensorflow as tf

import rcnn_keras as rk

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def _load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _load(ROOT / "tools" / "build_notebooks.py")
NAMES = ("evaluate", "fine_tune", "inside_a_detector", "quick_start", "serve")
NAME = pytest.mark.parametrize("name", NAMES)
# Settings that make the whole of a notebook a matter of seconds.
SMALL = {
    "evaluate": {"drawn_images": 3},
    "fine_tune": {"drawn_images": 2, "batch_size": 2, "epochs": 1},
    "inside_a_detector": {},
    "quick_start": {},
    "serve": {"size": (64, 64)},
}


def built(name):
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def test_each_script_has_its_notebook_and_each_notebook_its_script():
    assert sorted(TOOL.SCRIPTS) == sorted(NAMES)
    assert sorted(path.stem for path in EXAMPLES.glob("*.ipynb")) == sorted(NAMES)


def cells_of(notebook):
    return [(c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]


@NAME
def test_the_notebook_is_that_of_its_script(name):
    """A script that changed needs `make notebooks`."""
    assert cells_of(built(name)) == cells_of(TOOL.read(name))


def test_a_changed_script_is_noticed(tmp_path, monkeypatch):
    script = tmp_path / "serve.py"
    script.write_text(TOOL.SCRIPTS["serve"].read_text("utf-8").replace("0.5", "0.6", 1), "utf-8")
    monkeypatch.setitem(TOOL.SCRIPTS, "serve", script)
    assert cells_of(built("serve")) != cells_of(TOOL.read("serve"))


@NAME
def test_the_notebook_ran_from_top_to_bottom_without_errors(name):
    code = [cell for cell in built(name).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert len(outputs) >= 4
    assert {output.output_type for output in outputs} <= {
        "stream",
        "display_data",
        "execute_result",
    }
    assert any({"image/png", "image/jpeg"} & set(output.get("data", {})) for output in outputs)


@NAME
def test_the_notebook_is_small_and_names_no_folder_of_its_machine(name):
    path = EXAMPLES / f"{name}.ipynb"
    assert path.stat().st_size < 300_000
    nbformat.validate(built(name))
    text = json.dumps([cell.get("outputs", []) for cell in built(name).cells])
    assert not any(folder in text for folder in ("/home/", "/tmp/", "/root/", str(ROOT)))


@NAME
def test_it_says_where_ones_own_data_go(name):
    [settings] = [c for c in TOOL.read(name).cells if "parameters" in c.metadata.get("tags", [])]
    assert "<- " in settings.source


def test_a_parameter_that_the_notebook_has_not_is_refused():
    with pytest.raises(ValueError, match="quick_start: the cell of parameters sets no epochs"):
        TOOL.read("quick_start", {"epochs": 1})


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A detector of few layers, whose scores all count as detections."""
    inputs = keras.Input((None, None, 3))
    features = inputs
    for _ in range(2):
        features = keras.layers.Conv2D(8, 4, strides=4, padding="same", activation="relu")(features)
    detector = rk.models.FasterRCNN(
        keras.Model(inputs, features),
        ("circle", "triangle", "square", "star"),
        min_size=64,
        max_size=64,
        anchor_sizes=((16.0, 32.0),),
        box_units=8,
        box_score_thresh=0.0,
        box_detections_per_img=5,
    )
    path = tmp_path_factory.mktemp("tiny") / "tiny.keras"
    detector.save(path)
    return str(path)


@NAME
def test_its_code_runs_with_small_settings(name, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    tf.config.run_functions_eagerly(name != "serve")  # tracing would take most of the time
    try:
        names = {"__name__": "__main__"}
        for cell in TOOL.read(name, {"detector": tiny, **SMALL[name]}).cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, f"{name}.py", "exec"), names)
    finally:
        tf.config.run_functions_eagerly(False)


@pytest.mark.slow
@NAME
def test_the_whole_notebook_runs_in_a_kernel(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    notebook = TOOL.run(TOOL.read(name), tmp_path)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
