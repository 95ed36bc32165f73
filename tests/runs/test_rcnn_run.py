"""R-CNN on the command line: training in stages, interrupted and resumed, scores, detections."""

import inspect
import json
import shutil

import keras
import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from rcnn_keras.cli import main
from rcnn_keras.data import draw_shapes
from rcnn_keras.models import RCNN
from rcnn_keras.proposals import save_proposals
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.document import ConfigurationError
from rcnn_keras.runs.folder import clear, remove_unfinished
from rcnn_keras.runs.run import build_model
from rcnn_keras.training import train_rcnn
from rcnn_keras.training.rcnn import stages

pytest.importorskip("sklearn")

CONFIG = {
    "model": {
        "architecture": "rcnn",
        "crop_size": 67,
        "context": 6,
        "channels": [4, 4, 4, 4, 4],
        "units": 16,
        "box_score_thresh": 0.0,
    },
    "data": {"format": "coco"},
    "training": {"steps": 3, "positives": 4, "negatives": 8, "learning_rate": 0.01, "seed": 5},
    "schedule": {"name": "step", "milestones": [1, 2]},
}


def rcnn(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def fail(*args, **kwargs):
    raise AssertionError("a finished stage was run again")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Drawn data, proposals near its objects and anywhere, and a configuration that names both."""
    folder = tmp_path_factory.mktemp("rcnn")
    rng = np.random.default_rng(0)
    for seed, part in enumerate(("train", "val")):
        drawn = draw_shapes(3, size=(64, 64), seed=seed, out=folder / part)
        boxes = {}
        for record in drawn:
            near = np.clip(record.boxes + rng.uniform(-3, 3, record.boxes.shape), 0, 64)
            corners = rng.uniform(0, 64, (6, 2, 2))
            anywhere = np.concatenate([corners.min(axis=1), corners.max(axis=1) + 1], axis=1)
            boxes[record.image_id] = np.concatenate([near, anywhere])
        save_proposals(folder / f"{part}.npz", boxes, method="drawn")
    sources = {
        part: {"annotations": f"{part}/annotations.json", "proposals": f"{part}.npz"}
        for part in ("train", "val")
    }
    values = CONFIG | {"data": CONFIG["data"] | sources}
    (folder / "rcnn.yaml").write_text(yaml.safe_dump(values))
    return folder


@pytest.fixture(scope="module")
def run(folder):
    out = folder / "run"
    result = rcnn("train", folder / "rcnn.yaml", "--out", out)
    assert result.exit_code == 0, result.output
    return out


def test_a_run_writes_the_files_of_every_run(folder, run):
    assert load_configuration(run / "config.yaml") == load_configuration(folder / "rcnn.yaml")
    model = keras.models.load_model(run / "best.keras")
    assert isinstance(model, RCNN)
    scores = json.loads((run / "scores.json").read_text())
    analysis = json.loads((run / "stages" / "error_analysis.json").read_text())
    # The detector is one of the four ways, scored through the whole network once more.
    assert scores["AP50"] == pytest.approx(analysis["svm + box regression"]["AP50"], abs=2e-3)
    report = (run / "report.html").read_text()
    for name, values in analysis.items():
        row = report[report.index(f">{name}<") :]
        cells = row[: row.index("</tr>")]
        assert f">{values['AP']:.3f}<" in cells
    assert not (run / "stages" / "features").exists()
    assert not (run / "stages" / "fine_tuning").exists()


def test_the_resulting_model_is_scored_and_detects(folder, run):
    data, best = folder / "val" / "annotations.json", run / "best.keras"
    result = rcnn(
        *("evaluate", best, "--data", data, "--proposals", folder / "val.npz"),
        *("--out", folder / "scored"),
    )
    assert result.exit_code == 0, result.output
    first, again = (
        json.loads((out / "scores.json").read_text()) for out in (run, folder / "scored")
    )
    for name in first:
        assert again[name] == pytest.approx(first[name], abs=1e-6), name
    photo = folder / "val" / "shapes_000000.png"
    result = rcnn("detect", photo, "--model", best, "--out", folder / "found", "--min-score", 0)
    assert result.exit_code == 0, result.output
    assert (folder / "found" / "shapes_000000.png").exists()
    assert json.loads((folder / "found" / "detections.json").read_text())


@pytest.mark.slow
def test_an_interrupted_run_resumes_and_a_finished_one_is_kept(folder, run, tmp_path, monkeypatch):
    result = rcnn("train", folder / "rcnn.yaml", "--out", run)
    assert result.exit_code == 1
    assert "holds a finished run" in result.output

    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(run / "config.yaml", out)
    shutil.copytree(run / "stages", out / "stages")
    (out / "stages" / "box_regressor.npz").unlink()
    for name in ("fine_tune", "train_svms"):
        monkeypatch.setattr(stages, name, fail)
    result = rcnn("train", folder / "rcnn.yaml", "--out", out)
    assert result.exit_code == 0, result.output
    weights = [keras.models.load_model(path / "best.keras").get_weights() for path in (run, out)]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-7)


def test_another_configuration_is_refused_in_the_same_folder(folder, run, tmp_path):
    shutil.copytree(run / "stages", tmp_path / "stages")
    shutil.copy(run / "config.yaml", tmp_path)
    other = "training.svm_c=0.01"
    result = rcnn("train", folder / "rcnn.yaml", "--out", tmp_path, "--set", other)
    assert result.exit_code == 1
    assert "unfinished run of another configuration" in result.output


def test_overwriting_removes_the_files_of_a_run(run, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(run, out)
    (out / ".stages.abc").mkdir()  # of a run that was killed
    (out / "notes.txt").write_text("mine")
    clear(out)
    remove_unfinished(out)
    assert [path.name for path in out.iterdir()] == ["notes.txt"]


def test_the_keys_of_training_are_the_arguments_of_the_stages(folder):
    training = load_configuration(folder / "rcnn.yaml").training
    parameters = inspect.signature(train_rcnn).parameters
    given = {"model", "dataset", "out", "val", "engine"}  # `features` makes the engine
    assert set(dict(training)) - {"features"} == set(parameters) - given
    plain = {name: value for name, value in CONFIG.items() if name != "schedule"}
    plain |= {"data": yaml.safe_load((folder / "rcnn.yaml").read_text())["data"], "training": {}}
    (folder / "plain.yaml").write_text(yaml.safe_dump(plain))
    for name, value in load_configuration(folder / "plain.yaml").training:
        assert value == parameters[{"features": "engine"}.get(name, name)].default, name


def test_the_seed_determines_the_initial_weights(folder):
    drawn = draw_shapes(1, size=(64, 64))
    first, again, other = (
        build_model(load_configuration(folder / "rcnn.yaml", change), drawn).get_weights()
        for change in ([], [], ["training.seed=6"])
    )
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(np.any(a != b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epochs=2", "--set training.epochs: training.epochs = 2: unknown key"),
        ("training.step=2", "training.step = 2: unknown key, did you mean 'steps'?"),
        ("training.steps=0", "training.steps = 0: must be above 0"),
        ("training.positives=-1", "training.positives = -1: must be at least 0"),
        ("training.svm_c=0.0", "training.svm_c = 0.0: must be above 0"),
        ("training.learning_rate=0", "training.learning_rate = 0: should be greater than 0"),
        ("training.steps=1.5", "training.steps = 1.5: should be a valid integer"),
        ("schedule.milestones=[2, 3]", "should rise and end before training.steps = 3"),
        ("data.batch_size=2", "data.batch_size = 2: unknown key"),
        ("data.augment=[{RandomFlip: {}}]", "unknown key"),
        ("optimizer={name: sgd, learning_rate: 0.1}", "optimizer = {'name': 'sgd', 'l"),
        ("data.val.proposals=null", "data.val.proposals = None: rcnn needs a file that"),
        ("model.crop_size=8", "model.crop_size = 8: must be a whole number of at least"),
        ("model.backbone=resnet18", "model.backbone = 'resnet18': must be one of alexnet, vgg16"),
        ("model.preset=x.keras", "model.preset"),
        ("model.min_size=600", "model.min_size = 600: unknown key"),
        ("model.architecture=rcn", "'faster_rcnn', 'keypoint_rcnn', 'mask_rcnn', 'rcnn'"),
    ],
)
def test_wrong_configurations_of_stages_are_refused(change, message, folder):
    with pytest.raises(ConfigurationError) as caught:
        load_configuration(folder / "rcnn.yaml", [change])
    assert any(message in error for error in caught.value.errors), caught.value.errors


def test_without_scikit_learn_the_error_says_how_to_install_it(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = rcnn("train", folder / "rcnn.yaml", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    assert f"{folder / 'rcnn.yaml'}: training" in result.output
    assert "pip install 'rcnn-keras[rcnn]'" in result.output
    assert not (tmp_path / "run").exists()
