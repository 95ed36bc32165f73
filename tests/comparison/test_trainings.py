import json

import pytest

from rcnn_keras.comparison import Settings, trainings
from rcnn_keras.comparison.sources import Sources
from rcnn_keras.comparison.stopwatch import elapsed
from rcnn_keras.comparison.trainings import STOPWATCH, train_member, trained
from rcnn_keras.models.loading import load_detector


@pytest.fixture
def sources(val, tmp_path):
    return Sources(Settings(val=val, data=val), tmp_path)


def test_a_stopped_run_goes_on_and_a_finished_one_is_not_run_again(sources, tmp_path, monkeypatch):
    calls = []

    def train(run, folder):
        calls.append(run.model.architecture)
        if len(calls) == 1:
            raise KeyboardInterrupt
        (folder / "best.keras").touch()
        (folder / "report.html").touch()

    monkeypatch.setattr(trainings, "train", train)
    with pytest.raises(KeyboardInterrupt):
        train_member("mask_rcnn", sources.settings, sources, tmp_path)
    assert trained("mask_rcnn", tmp_path) is None
    file = train_member("mask_rcnn", sources.settings, sources, tmp_path)
    assert file == trained("mask_rcnn", tmp_path) == tmp_path / "mask_rcnn" / "best.keras"
    (tmp_path / "mask_rcnn" / "finished.json").unlink()  # killed between the run's end and ours
    assert train_member("mask_rcnn", sources.settings, sources, tmp_path) == file
    assert calls == ["mask_rcnn", "mask_rcnn"]
    assert elapsed(tmp_path / "mask_rcnn" / STOPWATCH).unfinished == 0


def test_rcnn_is_trained_on_proposals(sources, tmp_path, monkeypatch):
    sources.propose()
    seen = {}

    def train_rcnn(model, dataset, folder, **arguments):
        seen.update(arguments, proposals=all(r.proposals is not None for r in dataset))

    monkeypatch.setattr(trainings, "train_rcnn", train_rcnn)
    file = train_member("rcnn", sources.settings, sources, tmp_path)
    assert file == tmp_path / "rcnn" / "rcnn.keras"
    assert seen.pop("proposals")
    assert seen.pop("learning_rate") is not None
    assert seen == {"steps": 1000, "seed": 0}


def test_truncation_is_made_of_the_trained_one(sources, model_files, tmp_path):
    folder = "fast_rcnn_svd"
    file = train_member(folder, sources.settings, sources, tmp_path, model_files["fast_rcnn"])
    assert load_detector(file).get_config()["box_ranks"] == (16, 16)
    assert json.loads((tmp_path / folder / "finished.json").read_text())["model"] == file.name
