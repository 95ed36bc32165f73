"""A whole run on drawn shapes: what it writes, what it refuses, and how it goes on."""

import csv
import json
import math
import shutil

import keras
import numpy as np
import pytest

from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.problems import DatasetError
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.datasets import check_images, read_data
from rcnn_keras.runs.document import ConfigurationError
from rcnn_keras.runs.folder import clear, resumes
from rcnn_keras.runs.run import build_callbacks, build_model, train
from rcnn_keras.runs.scoring import evaluate
from rcnn_keras.training.callbacks import CocoEvaluation, HistoryFile

SECTIONS = {
    "model": {"architecture": "faster_rcnn"},
    "data": {"augment": [{"RandomFlip": {}}]},
    "optimizer": {"weight_decay": 0.001, "ema_momentum": 0.9},
    "schedule": {"name": "step", "milestones": [1.5], "warmup_steps": 2, "warmup_factor": 0.5},
    "training": {"epochs": 2, "seed": 3},
}


@pytest.fixture(scope="module")
def config(tmp_path_factory, write_config):
    return write_config(tmp_path_factory.mktemp("config"), SECTIONS, train_images=4)


def test_a_run_writes_all_its_files(run):
    configuration, out, history = run
    assert load_configuration(out / "config.yaml") == configuration
    with (out / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for name in ("loss", "rpn_box_loss", "val_AP", "val_AP/circle"):
        np.testing.assert_allclose([float(row[name]) for row in rows], history.history[name])
    scores = json.loads((out / "scores.json").read_text())
    assert scores["AP"] == pytest.approx(max(history.history["val_AP"]), abs=1e-6)
    assert "shapes" in (out / "report.html").read_text()
    names = [path.name for path in (out / "pictures").glob("*.png")]
    assert len([name for name in names if not name.startswith("error_")]) == 2
    objects = [
        row["objects"] for row in json.loads((out / "errors.json").read_text())["errors"].values()
    ]
    _, val_set = read_data(configuration.data)
    assert sum(objects) == sum(map(len, val_set))
    assert not (out / "checkpoints").exists()


def test_the_best_model_has_the_scores_logged_in_training(run):
    """With `ema_momentum`, measured and saved are the averaged weights."""
    configuration, out, history = run
    _, val_set = read_data(configuration.data)
    best = evaluate(keras.models.load_model(out / "best.keras"), val_set).scores.summary()
    epoch = int(np.argmax(history.history["val_AP"]))
    for name in ("AP", "AP50", "AP75"):
        assert best[name] == pytest.approx(history.history[f"val_{name}"][epoch], abs=1e-6)


def test_a_finished_run_is_overwritten_only_if_requested(run):
    configuration, out, _ = run
    before = (out / "best.keras").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match=r"holds a finished run: .*--out.*--overwrite"):
        train(configuration, out)
    assert (out / "best.keras").stat().st_mtime_ns == before


def test_an_unfinished_run_is_overwritten_only_if_requested(config, tmp_path):
    configuration = load_configuration(config, ["training.checkpoint=null"])
    (tmp_path / "config.yaml").write_text(configuration.to_yaml())
    assert not resumes(tmp_path, configuration)  # nothing to lose
    for name in ("best.keras", "last.keras", "scores.json", "losses.png"):
        (tmp_path / name).write_text("")
        message = f"holds config.yaml, {name} of a run that has no checkpoint.*--out.*--overwrite"
        with pytest.raises(FileExistsError, match=message):
            train(configuration, tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "config.yaml").write_text("model: {}  # my own")
    with pytest.raises(FileExistsError, match="another configuration"):
        train(configuration, tmp_path)


def test_nothing_is_overwritten_before_the_data_was_checked(config, tmp_path):
    (tmp_path / "best.keras").write_text("good")
    configuration = load_configuration(config, ["data.val.annotations=none.json"])
    with pytest.raises(DatasetError):
        train(configuration, tmp_path, overwrite=True)
    assert (tmp_path / "best.keras").read_text() == "good"


def test_overwriting_removes_what_a_run_wrote_and_nothing_else(run, tmp_path):
    _, finished, _ = run
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    clear(out)
    assert list(out.iterdir()) == []
    shutil.copytree(finished, out, dirs_exist_ok=True)
    mine = [out / "pictures" / "mine_1.png", out / "notes.txt", out / "plot.png"]
    for path in mine:
        path.write_text("mine")
    clear(out)
    assert sorted(path for path in out.rglob("*") if path.is_file()) == sorted(mine)


def test_a_trained_run_without_a_report_is_only_scored(run, tmp_path):
    configuration, finished, _ = run
    for name in ("config.yaml", "history.csv"):
        shutil.copy(finished / name, tmp_path)
    assert resumes(tmp_path, configuration)


def test_the_model_is_compiled_as_configured(config):
    configuration = load_configuration(config)
    train_set, _ = read_data(configuration.data)
    model = build_model(configuration, train_set)
    optimizer = model.optimizer
    # 2 steps an epoch; warm-up over 2 steps from a half; a tenth from step 3
    rates = [float(optimizer._learning_rate(step)) for step in range(4)]
    np.testing.assert_allclose(rates, [0.005, 0.0075, 0.01, 0.001], rtol=1e-6)
    assert (optimizer.weight_decay, optimizer.momentum) == (0.001, 0.9)
    assert (optimizer.use_ema, optimizer.ema_momentum) == (True, 0.9)
    assert not model.jit_compile  # XLA has no kernel for RoIAlign
    assert (model.anchor_sampler.seed, model.roi_sampler.seed) == (3, 4)


def test_precision_applies_to_the_model_only(config):
    configuration = load_configuration(config, ["training.precision=mixed_bfloat16"])
    train_set, _ = read_data(configuration.data)
    model = build_model(configuration, train_set)
    assert {layer.compute_dtype for layer in model.backbone.layers} >= {"bfloat16"}
    assert keras.config.dtype_policy().name == "float32"


class Stopped(Exception):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("epoch", [0, 1])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(epoch, config, run, tmp_path):
    """Stopped while an epoch is scored, it has the same history and weights, bit by bit."""
    configuration, whole, history = run
    score = CocoEvaluation.on_epoch_end

    def stop(self, number, logs=None):
        if number == epoch:
            raise Stopped
        score(self, number, logs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CocoEvaluation, "on_epoch_end", stop)
        with pytest.raises(Stopped):
            train(configuration, tmp_path)
    (tmp_path / ".best.keras.torn").mkdir()
    with pytest.raises(
        FileExistsError, match=r"of another configuration .*training\.seed was 3, is"
    ):
        train(load_configuration(config, ["training.seed=4"]), tmp_path, resume=True)
    resumed = train(configuration, tmp_path, resume=True).history
    np.testing.assert_equal(resumed, history.history)  # a class without objects has the score NaN
    for name in ("history.csv", "scores.json", "detections.json"):
        assert (tmp_path / name).read_text() == (whole / name).read_text()
    for name in ("last.keras", "best.keras"):
        ours, theirs = (keras.models.load_model(out / name) for out in (tmp_path, whole))
        for model in (ours, theirs):
            model.optimizer.build(model.trainable_variables)
        for side in (lambda m: m.variables, lambda m: m.optimizer.variables):
            for a, b in zip(side(ours), side(theirs), strict=True):
                np.testing.assert_array_equal(a, b)
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_a_run_is_resumed_only_if_one_was_started(config, tmp_path):
    configuration = load_configuration(config)
    with pytest.raises(FileNotFoundError, match=r"holds no run to resume.*--out.*--resume"):
        train(configuration, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="either resumed or overwritten"):
        train(configuration, tmp_path, resume=True, overwrite=True)
    (tmp_path / "config.yaml").write_text(configuration.to_yaml())
    (tmp_path / "checkpoints").mkdir()
    assert not resumes(tmp_path, configuration, required=True)  # killed before the first step


def test_classes_of_validation_must_be_those_of_training(config, tmp_path):
    content = json.loads((config.parent / "val" / "annotations.json").read_text())
    content["categories"][0]["name"] = "disc"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    configuration = load_configuration(
        config,
        [f"data.val.annotations={other}", f"data.val.images={config.parent / 'val'}"],
    )
    with pytest.raises(
        ConfigurationError, match=r"only here \['disc'\], missing here \['circle'\]"
    ):
        read_data(configuration.data)


def test_classes_in_another_order_are_mapped_to_those_of_training(config, tmp_path):
    content = json.loads((config.parent / "val" / "annotations.json").read_text())
    renumbered = {1: 4, 2: 3, 3: 2, 4: 1}
    for category in content["categories"]:
        category["id"] = renumbered[category["id"]]
    for annotation in content["annotations"]:
        annotation["category_id"] = renumbered[annotation["category_id"]]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(content))
    images = config.parent / "val"
    configuration = load_configuration(
        config, [f"data.val.annotations={other}", f"data.val.images={images}"]
    )
    train_set, val_set = read_data(configuration.data)
    assert val_set.classes == train_set.classes
    plain = load_coco(images / "annotations.json")
    for ours, theirs in zip(val_set, plain, strict=True):
        np.testing.assert_array_equal(ours.labels, theirs.labels)


def test_several_files_are_concatenated(config):
    sources = "[{annotations: train/annotations.json}, {annotations: val/annotations.json}]"
    configuration = load_configuration(config, [f"data.train={sources}"])
    train_set, val_set = read_data(configuration.data)
    assert (len(train_set), len(val_set)) == (6, 2)
    assert len({record.image_id for record in train_set}) == 6


def test_problems_of_all_files_are_reported_at_once(config):
    configuration = load_configuration(
        config, ["data.train.annotations=one.json", "data.val.annotations=two.json"]
    )
    with pytest.raises(DatasetError) as caught:
        read_data(configuration.data)
    assert "one.json" in str(caught.value)
    assert "two.json" in str(caught.value)


def without_objects(config, part, path):
    """Return overrides of a configuration, one part of whose data has no object."""
    content = json.loads((config.parent / part / "annotations.json").read_text())
    content["annotations"] = []
    path.write_text(json.dumps(content))
    return [f"data.{part}.annotations={path}", f"data.{part}.images={config.parent / part}"]


def test_training_data_without_objects_are_refused(config, tmp_path):
    overrides = without_objects(config, "train", tmp_path / "empty.json")
    configuration = load_configuration(config, overrides)
    with (
        pytest.warns(UserWarning, match="without any object"),
        pytest.raises(ConfigurationError, match=r"data\.train: no image has an object"),
    ):
        read_data(configuration.data)


@pytest.mark.filterwarnings("ignore:empty")
def test_validation_data_without_objects_are_read(config, tmp_path):
    """No early stopping waits for scores that never come."""
    overrides = without_objects(config, "val", tmp_path / "empty.json")
    overrides += ["training.early_stopping_patience=1"]
    configuration = load_configuration(config, overrides)
    train_set, val_set = read_data(configuration.data)
    assert [len(record) for record in val_set] == [0] * len(val_set)
    stops = {
        len(data): [
            callback
            for callback in build_callbacks(configuration, data, tmp_path, None)
            if isinstance(callback, keras.callbacks.EarlyStopping)
        ]
        for data in (val_set, train_set)
    }
    assert [len(found) for found in stops.values()] == [0, 1]


@pytest.mark.slow
def test_validation_data_without_objects_give_a_run_without_scores(config, tmp_path):
    """Best is the last epoch."""
    overrides = without_objects(config, "val", tmp_path / "empty.json")
    more = ["training.epochs=2", "training.early_stopping_patience=1"]
    configuration = load_configuration(config, [*overrides, *more])
    out = tmp_path / "run"
    with pytest.warns(UserWarning) as caught:  # noqa: PT030, there may be others
        train(configuration, out)
    found = [w for w in caught if "no image has an object to find" in str(w.message)]
    assert len(found) == 1
    assert str(found[0].message).startswith("data.val: ")
    scores = json.loads((out / "scores.json").read_text())
    assert set(scores.values()) == {None}
    assert "report.html" in [path.name for path in out.iterdir()]
    best, last = (keras.models.load_model(out / f"{name}.keras") for name in ("best", "last"))
    assert len(HistoryFile(out / "history.csv", resumes=True).rows) == 2
    for one, other in zip(best.weights, last.weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_images_are_decoded_before_training(tmp_path, write_config, capsys):
    path = write_config(tmp_path, SECTIONS, val_images=1)
    picture = tmp_path / "train" / "shapes_000001.png"
    content = bytearray(picture.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = b"\0" * 20  # the header and the end stay sound
    picture.write_bytes(content)
    configuration = load_configuration(path)
    datasets = read_data(configuration.data)  # takes them on trust
    with pytest.raises(
        DatasetError, match=r"1 problem .*\n.*shapes_000001\.png: cannot be decoded"
    ):
        check_images(*datasets)
    assert capsys.readouterr().out == "checking 3 images\n"


def test_optional_callbacks_are_added_and_removed_by_the_configuration(config, tmp_path):
    configuration = load_configuration(
        config,
        [
            "training.early_stopping_patience=2",
            "training.checkpoint=null",
            "optimizer.ema_momentum=",
        ],
    )
    _, val_set = read_data(configuration.data)
    names = [
        type(callback).__name__
        for callback in build_callbacks(
            configuration, val_set, tmp_path, HistoryFile(tmp_path / "history.csv")
        )
    ]
    assert names == [
        "CocoEvaluation",
        "ModelCheckpoint",
        "ModelCheckpoint",
        "HistoryFile",
        "EarlyStopping",
    ]


def test_the_history_file_has_columns_of_later_epochs_and_is_resumed(tmp_path):
    path = tmp_path / "history.csv"
    first = HistoryFile(path)
    first.on_epoch_end(0, {"loss": 2.0})
    first.on_epoch_end(1, {"loss": 1.5, "val_AP": 0.25})
    resumed = HistoryFile(path, resumes=True)
    resumed.on_epoch_end(2, {"loss": 1.0, "val_AP": 0.5})
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert [row["val_AP"] for row in rows] == ["", "0.25", "0.5"]
    again = HistoryFile(path)
    again.set_state(resumed.get_state())
    assert again.rows == resumed.rows
    columns = resumed.columns()
    assert columns["loss"] == [2.0, 1.5, 1.0]
    assert math.isnan(columns["val_AP"][0])
    assert HistoryFile(path).rows == {}
