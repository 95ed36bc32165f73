"""saved_models/: every model loads by its name and performs as its card says."""

import json
import re
import tomllib
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.cli import main
from rcnn_keras.export.fixed_size import letterboxed
from rcnn_keras.models.arguments import argument_errors
from rcnn_keras.preset_table import CARD, MODEL, WEIGHTS, saved_models
from rcnn_keras.presets import fetch, from_preset, list_presets
from rcnn_keras.runs.configuration import ARCHITECTURES, load_configuration
from rcnn_keras.runs.scoring import evaluate

ROOT = Path(__file__).parents[1]
NAMES = ("blood_cells", "nuclei", "playing_cards", "shapes")
MAX_BYTES = 15e6
# Of some images, a little less than measured: the file, how many images, AP50.
REAL = {
    "blood_cells": ("bccd/test.json", 8, 0.75),
    "nuclei": ("nuclei/val.json", 6, 0.6),
    "playing_cards": ("cards/val.json", 10, 0.7),
}


@pytest.fixture(scope="module")
def models():
    """Every model, loaded where no network can be reached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(urllib.request, "urlopen", None)
        return {name: from_preset(name) for name in NAMES}


def test_all_shipped_models_are_presets():
    assert tuple(saved_models()) == NAMES
    assert [preset.name for preset in list_presets()][: len(NAMES)] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_loads_as_its_recipe_configures_it(models, name):
    model = models[name]
    config = model.get_config()
    assert argument_errors({k: v for k, v in config.items() if k != "name"}) == {}
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    assert model.count_params() * 2 < fetch(name).stat().st_size < model.count_params() * 2.02
    recipe = load_configuration(ROOT / "configs" / f"saved_{name}.yaml")
    assert type(model) is ARCHITECTURES[recipe.model.architecture]
    # The model fills in its name, and the mean and deviation of its images.
    stated = {k: v for k, v in recipe.model_arguments.items() if v is not None}
    assert {key: config[key] for key in stated} == stated


@pytest.mark.parametrize("name", NAMES)
def test_a_folder_is_small_and_its_card_has_the_scores(models, name):
    folder = saved_models()[name].folder
    assert sum(path.stat().st_size for path in folder.iterdir()) < MAX_BYTES
    card = (folder / CARD).read_text("utf-8")
    assert f"python tools/saved_models/train.py {name}" in card
    assert f"configs/saved_{name}.yaml" in card
    content = saved_models()[name].content
    assert content["licence"].split("-")[0] in card
    scores = content["scores"]
    assert {f"AP/{c}" for c in models[name].classes} <= set(scores)
    for score, value in scores.items():
        if score.removeprefix("mask_") in ("AP", "AP50"):
            assert re.search(rf"\b{value:.3f}\b", card), score
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", card):
        assert (folder / picture).is_file()


def test_the_shapes_model_finds_drawn_shapes(models, tmp_path):
    scenes = rk.data.draw_shapes(12, size=(128, 128), seed=77, out=tmp_path)
    scores = evaluate(models["shapes"], scenes, batch_size=4).summary()
    assert scores["AP50"] > 0.8
    assert scores["mask_AP50"] > 0.8


@pytest.mark.parametrize("name", REAL)
def test_the_other_models_find_objects_in_real_images(models, shared_data, name):
    file, count, min_ap50 = REAL[name]
    whole = rk.data.load_coco(shared_data / file)
    some = rk.data.DetectionDataset(
        [whole[i] for i in range(count)], whole.classes, category_ids=whole.category_ids
    )
    assert evaluate(models[name], some, batch_size=4).summary()["AP50"] > min_ap50


def test_the_litert_file_finds_what_the_model_finds(models, shared_data):
    """The LiteRT file finds what the model finds, in the pixels of its own input."""
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    file = saved_models()["playing_cards"].folder / "playing_cards_int8.tflite"
    runner = litert.Interpreter(str(file)).get_signature_runner()
    record = next(r for r in rk.data.load_coco(shared_data / "cards/val.json") if len(r) == 1)
    image, scale = letterboxed(record.path, models["playing_cards"], (384, 384))
    found = runner(images=image)
    assert found["labels"][0, 0] == record.labels[0]
    expected = models["playing_cards"].detect(record.path)[0]
    np.testing.assert_allclose(found["boxes"][0, 0] * np.tile(scale, 2), expected.boxes[0], atol=8)


def test_other_classes_keep_the_weights(models, logged):
    model = from_preset("shapes", classes=["cell"], frozen_stages=2)
    assert model.classes == ("cell",)
    assert logged().startswith("shapes: weights kept in backbone, fpn, ")
    for ours, theirs in zip(model.fpn.weights, models["shapes"].fpn.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(ValueError, match=r"shapes: backbone_width must be 0\.5, as the weights"):
        from_preset("shapes", classes=["cell"], backbone_width=1.0)


@pytest.mark.parametrize(
    ("name", "message"),
    [("blood_cell", "did you mean 'blood_cells'"), ("shape", "did you mean 'shapes'")],
)
def test_an_unknown_name_is_refused_with_the_nearest_one(name, message):
    with pytest.raises(ValueError, match=f"no preset is named '{name}', {message}"):
        from_preset(name)


def test_the_command_accepts_the_name_of_a_model(tmp_path, monkeypatch):
    """Also where the folder of the images has that name."""
    monkeypatch.chdir(tmp_path)
    rk.data.draw_shapes(1, size=(128, 128), seed=78, out=tmp_path / "shapes")
    arguments = ["detect", "shapes", "--model", "shapes", "--out", "found"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    rows = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert len(rows) > 0
    assert {row["class"] for row in rows} <= {"circle", "triangle", "square", "star"}
    assert Image.open(tmp_path / "found" / "shapes_000000.png").size == (128, 128)


@pytest.mark.parametrize(
    "command", [["detect", "a.png", "--out", "found", "--model"], ["evaluate"]]
)
def test_the_command_suggests_the_nearest_name(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    more = ["--data", "a.json"] if command == ["evaluate"] else []
    result = CliRunner().invoke(main, [*command, "blood-cells", *more])
    assert result.exit_code == 1
    assert "no preset is named 'blood-cells', did you mean 'blood_cells'?" in result.output


def test_a_wheel_holds_the_models_and_every_package():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    found = [path.parent.relative_to(ROOT) for path in ROOT.glob("rcnn_keras/**/__init__.py")]
    found = [".".join(folder.parts) for folder in found]
    saved = [f"rcnn_keras.saved_models.{name}" for name in NAMES]
    assert setuptools["packages"] == sorted(found + saved)
    assert setuptools["package-dir"] == {"rcnn_keras.saved_models": "saved_models"}
    for folder in (ROOT / "saved_models").iterdir():
        held = {
            path for pattern in setuptools["package-data"]["*"] for path in folder.glob(pattern)
        }
        assert held == set(folder.iterdir())
        assert {folder / name for name in (CARD, MODEL, WEIGHTS)} <= held
