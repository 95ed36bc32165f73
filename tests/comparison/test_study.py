"""A comparison of drawn scenes: who takes part, what is refused, what a second call does."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import pytest
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.comparison import FAMILY, Settings, compare, study
from rcnn_keras.comparison.study import (
    FINISHED,
    Sources,
    configuration,
    load_given,
    members,
    ranks_of,
    train_member,
)
from rcnn_keras.models import load_detector
from rcnn_keras.proposals import save_proposals
from rcnn_keras.runs.configuration import ARCHITECTURES

TRAINED = ["rcnn", "fast_rcnn", "faster_rcnn", "faster_rcnn_alternating", "mask_rcnn"]


@pytest.fixture
def no_work(monkeypatch):
    """Whatever is long fails: all that can be wrong is reported before it."""

    def fail(*args, **kwargs):
        raise AssertionError("work began")

    for name in ("train_member", "_time", "_score"):
        monkeypatch.setattr(study, name, fail)
    monkeypatch.setattr(Sources, "propose", fail)


@pytest.fixture(scope="module")
def boxes_alone(scenes, tmp_path_factory):
    """The same scenes without masks."""
    file = tmp_path_factory.mktemp("boxes") / "val.json"
    content = json.loads((scenes / "annotations.json").read_text())
    for annotation in content["annotations"]:
        del annotation["segmentation"]
    for image in content["images"]:
        image["file_name"] = str(scenes / image["file_name"])
    file.write_text(json.dumps(content))
    return file


def test_given_models_and_presets_of_the_same_classes_are_compared(
    val, boxes_alone, make_small, tmp_path
):
    def names(given=(), **settings):
        settings = Settings(**({"val": val} | settings))
        models = {name: make_small(name, rk.data.load_coco(val).classes) for name in given}
        return members(settings, Sources(settings, tmp_path), models)

    everybody = ["rcnn", "fast_rcnn", "fast_rcnn_svd", "faster_rcnn", "faster_rcnn_alternating"]
    assert names(data=val) == [*everybody, "mask_rcnn"]
    assert names(data=boxes_alone) == everybody
    assert names(data=val, val=boxes_alone) == everybody
    assert names(data=val, skip=("fast_rcnn", "mask_rcnn")) == ["rcnn", *everybody[3:]]
    assert names(data=val, skip=("fast_rcnn_svd",)) == [
        *("rcnn", "fast_rcnn", "faster_rcnn", "faster_rcnn_alternating", "mask_rcnn"),
    ]
    assert names(given=("fast_rcnn",)) == ["fast_rcnn", "fast_rcnn_svd"]
    with pytest.raises(ValueError, match="nothing to compare"):
        names()


def test_truncation_keeps_the_paper_s_shares(make_small):
    assert ranks_of(make_small("fast_rcnn", ["a"])) == (16, 16)  # all of them
    assert ranks_of(make_small("rcnn", ["a"])) is None


def test_missing_files_are_named(no_work, val, tmp_path):
    none = tmp_path / "none.json"
    for settings in (
        Settings(val=none),
        Settings(val=val, data=none),
        Settings(val=val, models=(none,)),
    ):
        with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
            compare(settings, tmp_path / "out")
    with pytest.raises(ValueError, match="proposals to train on are given without data"):
        compare(Settings(val=val, proposals=val), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_given_models_find_their_places(val, model_files, tmp_path):
    given = load_given(Settings(val=val, models=tuple(model_files.values())))
    assert {name: path for name, (path, _) in given.items()} == model_files
    copy = shutil.copy(model_files["rcnn"], tmp_path / "copy.keras")
    with pytest.raises(ValueError, match=r"rcnn\.keras and .*copy\.keras are both R-CNN"):
        load_given(Settings(val=val, models=(model_files["rcnn"], Path(copy))))
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"other\.keras holds a Sequential, not a detector"):
        load_given(Settings(val=val, models=(tmp_path / "other.keras",)))
    with pytest.raises(ValueError, match=r"annotations\.json"):
        load_given(Settings(val=val, models=(val,)))


def test_models_of_other_classes_are_refused(no_work, val, model_files, make_small, tmp_path):
    cat = tmp_path / "cat.keras"
    make_small("fast_rcnn", ["cat"]).save(cat)
    with pytest.raises(ValueError, match=r"classes of .*cat\.keras are \['cat'\]"):
        compare(Settings(val=val, models=(model_files["rcnn"], cat)), tmp_path / "out")
    with pytest.raises(ValueError, match="unknown classes 'cat'"):
        compare(Settings(val=val, models=(cat,)), tmp_path / "out")


def test_a_folder_of_other_settings_is_refused(no_work, val, tmp_path):
    for settings in ({"epochs": 3}, {"epochs": 3, "repeats": 1}):
        with pytest.raises(AssertionError, match="work began"):
            compare(Settings(val=val, data=val, **settings), tmp_path)
    with pytest.raises(ValueError, match=r"holds other detectors .*: epochs is '3', not '4'"):
        compare(Settings(val=val, data=val, epochs=4), tmp_path)


def test_timing_alone_needs_trained_detectors(no_work, val, tmp_path):
    settings = Settings(val=val, data=val, skip=tuple(set(FAMILY) - {"rcnn", "mask_rcnn"}))
    with pytest.raises(AssertionError, match="work began"):
        compare(settings, tmp_path)
    (tmp_path / "trained" / "rcnn").mkdir()
    (tmp_path / "trained" / "rcnn" / FINISHED).touch()
    with pytest.raises(ValueError, match="no trained mask_rcnn to time"):
        compare(settings, tmp_path, only_timing=True)


# The data


def test_missing_proposals_are_searched_once(val, tmp_path, monkeypatch):
    sources = Sources(Settings(val=val), tmp_path)
    assert sources.has_masks
    sources.propose()
    found = sources.dataset("val", proposals=True)
    assert all(len(record.proposals) for record in found)
    monkeypatch.setattr(study, "propose", None)  # not called again
    sources.propose()


def test_a_search_of_unknown_method_is_not_timed(val, tmp_path, monkeypatch):
    dataset = rk.data.load_coco(val)
    proposals = {record.image_id: record.boxes for record in dataset}
    save_proposals(tmp_path / "val.npz", proposals, method="by hand")
    settings = Settings(val=val, val_proposals=tmp_path / "val.npz")
    sources = Sources(settings, tmp_path)
    monkeypatch.setattr(study.timing, "time_search", None)
    monkeypatch.setattr(study.timing, "time_detector", lambda *_: {"cpu": 1.0, "boxes": 2.0})

    class Takes:
        takes_proposals = True

    times = study._time({"fast_rcnn": Takes}, settings, sources, 1).values
    assert times["search"] is None
    assert times["rows"][0]["seconds"] == {"proposals": None}


def test_proposals_of_other_images_are_reported(val, tmp_path):
    other = tmp_path / "other.npz"
    save_proposals(other, {99: [[0, 0, 1, 1]]}, method="by hand")
    with pytest.raises(ValueError, match="6 of 6 images have no proposals"):
        Sources(Settings(val=val, val_proposals=other), tmp_path / "out")


# The recipes


@pytest.fixture
def recipe(val, tmp_path):
    def build(name, **settings):
        settings = Settings(val=val, data=val, **settings)
        return configuration(name, settings, Sources(settings, tmp_path))

    return build


@pytest.mark.parametrize("name", TRAINED)
def test_every_recipe_is_a_sound_configuration(recipe, name):
    run = recipe(name, epochs=6, seed=3)
    assert ARCHITECTURES[run.model.architecture] is FAMILY[name].model
    assert (run.data.train[0].proposals is None) == (name not in ("rcnn", "fast_rcnn"))
    assert run.training.seed == 3


def test_they_differ_in_what_the_papers_changed_alone(recipe):
    """The same network and images; Faster R-CNN's two ways have the same model."""
    models = {name: recipe(name).model.model_dump() for name in TRAINED[1:]}
    shared = ("backbone", "min_size", "max_size", "fpn_channels", "box_units", "norm")
    for model in models.values():
        assert {k: model[k] for k in shared} == {k: models["faster_rcnn"][k] for k in shared}
    assert models["faster_rcnn"] == models["faster_rcnn_alternating"]


def test_each_of_four_steps_has_half_the_epochs(recipe):
    joint, steps = recipe("faster_rcnn", epochs=6), recipe("faster_rcnn_alternating", epochs=6)
    assert joint.training.epochs == 6
    assert joint.training.alternating is None
    assert (steps.training.epochs, steps.training.alternating.detector_epochs) == (3, 3)
    assert recipe("faster_rcnn_alternating", epochs=1).training.epochs == 1


def test_anchors_are_scaled_with_the_images(recipe):
    def anchors(min_size):
        return [size for (size,) in recipe("faster_rcnn", min_size=min_size).model.anchor_sizes]

    assert anchors(800) == [32, 64, 128, 256, 512]
    assert anchors(240) == [10, 19, 38, 77, 154]


def test_rcnn_s_fine_tuning_has_the_steps_that_are_asked_for(recipe):
    run = recipe("rcnn", steps=7)
    assert run.training.steps == 7
    assert run.model.channels == (32, 64, 96, 96, 64)


# Training


@pytest.fixture
def sources(val, tmp_path):
    return Sources(Settings(val=val, data=val), tmp_path)


def test_a_stopped_run_goes_on_and_a_finished_one_is_not_run_again(sources, tmp_path, monkeypatch):
    calls, folder = [], tmp_path / "mask_rcnn"

    def train(run, out):
        calls.append(run.model.architecture)
        if len(calls) == 1:
            out.mkdir()
            raise KeyboardInterrupt
        (out / "report.html").touch()

    monkeypatch.setattr(study, "train", train)
    with pytest.raises(KeyboardInterrupt):
        train_member("mask_rcnn", sources.settings, sources, folder)
    assert not (folder / FINISHED).exists()
    found = train_member("mask_rcnn", sources.settings, sources, folder)
    assert found == {"model": "best.keras", "minutes": "at least 0.0 min"}
    assert train_member("mask_rcnn", sources.settings, sources, folder) == found
    (folder / FINISHED).unlink()  # killed between the run's end and ours
    assert train_member("mask_rcnn", sources.settings, sources, folder) == found
    assert calls == ["mask_rcnn", "mask_rcnn"]


def test_truncation_is_made_of_the_trained_one(sources, model_files, tmp_path):
    fast = shutil.copy(model_files["fast_rcnn"], tmp_path / "fast.keras")
    arguments = ("fast_rcnn_svd", sources.settings, sources, tmp_path / "svd", Path(fast))
    found = train_member(*arguments)
    assert found == {"model": "model.keras", "minutes": "none"}
    file = tmp_path / "svd" / "model.keras"
    assert load_detector(file).get_config()["box_ranks"] == (16, 16)
    written = file.stat().st_mtime_ns
    train_member(*arguments)
    assert file.stat().st_mtime_ns == written
    os.utime(fast, (1, 1))  # another training
    train_member(*arguments)
    assert file.stat().st_mtime_ns != written


# The whole


@pytest.fixture(scope="module")
def compared(val, model_files, tmp_path_factory):
    """A comparison of a given model, and of the one that is made of it."""
    out = tmp_path_factory.mktemp("compared")
    numbers = {"timed_images": 1, "repeats": 1, "vgg16_images": 0, "most_proposals": 8}
    settings = Settings(val=val, models=(model_files["fast_rcnn"],), **numbers)
    return settings, out, compare(settings, out, command="rcnn compare --val v.json")


def test_the_study_writes_its_page_and_its_numbers(compared):
    _, out, page = compared
    assert page == out / "family.html"
    found = json.loads((out / "study.json").read_text())
    titles = ["Fast R-CNN", "Fast R-CNN, truncated SVD"]
    assert [row["title"] for row in found["rows"]] == titles
    assert [row["training"] for row in found["rows"]] == ["given", "none"]
    for row in found["rows"]:
        assert set(row["scores"]) == {"AP", "AP50", "voc07"}
    for row, title in zip(found["timing"]["rows"], titles, strict=True):
        assert row["title"] == title
        assert row["boxes"] <= 8
        assert set(row["seconds"]) == {"proposals", "features", "regions"}
        assert all(seconds > 0 for seconds in row["seconds"].values())
    assert 0 < found["search"]["recall"] <= 1
    for picture in found["pictures"]:
        with Image.open(out / picture) as image:
            assert image.width > 2 * 64  # ground truth and detections side by side
        assert f'src="{picture}"' in page.read_text()
    assert "rcnn compare --val v.json" in (out / "family.md").read_text()


def test_a_second_call_measures_nothing_again(compared, no_work, monkeypatch):
    settings, out, page = compared
    before = page.read_text()
    pictures = json.loads((out / "study.json").read_text())["pictures"]
    monkeypatch.setattr(study, "_draw", lambda *_: pictures)
    monkeypatch.setattr(study, "train_member", train_member)
    monkeypatch.setattr(Sources, "propose", lambda _: None)
    compare(settings, out, command="rcnn compare --val v.json")
    assert page.read_text() == before


def test_only_timing_measures_the_times_again(compared, monkeypatch):
    settings, out, _ = compared
    times = {"regions": 1234.0, "cpu": 1.0, "boxes": 3.0}
    monkeypatch.setattr(study.timing, "time_detector", lambda *_: dict(times))
    monkeypatch.setattr(study.timing, "time_search", lambda *_: 0.5)
    monkeypatch.setattr(study, "_draw", lambda *_: [])
    monkeypatch.setattr(study, "_score", lambda *_: pytest.fail("scored again"))
    compare(settings, out, only_timing=True)
    assert "| 1234.0 |" in (out / "family.md").read_text()


def test_a_changed_model_or_other_images_are_scored_again(
    compared, val, model_files, tmp_path, monkeypatch
):
    settings, out, _ = compared
    scored = []

    def score(file, sources):
        scored.append(file.name)
        return study.Result({"AP": 0.75})

    monkeypatch.setattr(study, "_score", score)
    monkeypatch.setattr(study.timing, "time_detector", lambda *_: {"cpu": 1.0, "boxes": 2.0})
    monkeypatch.setattr(study, "_draw", lambda *_: [])
    compare(settings, out)
    assert scored == []
    before = model_files["fast_rcnn"].stat().st_mtime
    os.utime(model_files["fast_rcnn"], (before + 5, before + 5))
    compare(settings, out)
    assert scored == ["fast_rcnn.keras", "model.keras"]
    other = tmp_path / "other.json"
    other.write_text(val.read_text())
    compare(replace(settings, val=other, val_images=val.parent), out)
    assert scored == ["fast_rcnn.keras", "model.keras"] * 2
