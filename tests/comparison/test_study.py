import json
import os
from dataclasses import replace

import pytest
from PIL import Image

from rcnn_keras.comparison import Settings, compare, study
from rcnn_keras.comparison.sources import Sources


@pytest.fixture(scope="module")
def compared(val, model_files, tmp_path_factory):
    """A comparison of a given model, and of the one that is made of it."""
    out = tmp_path_factory.mktemp("compared")
    models = {"fast_rcnn": model_files["fast_rcnn"]}
    settings = Settings(
        val=val, models=models, timed_images=1, repeats=1, vgg16_images=0, most_proposals=8
    )
    return settings, out, compare(settings, out, command="rcnn compare --val v.json")


def test_what_it_writes(compared):
    _, out, page = compared
    assert page == out / "family.html"
    found = json.loads((out / "study.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["fast_rcnn", "fast_rcnn_svd"]
    for row in found["rows"]:
        assert set(row["scores"]) == {"AP", "AP50", "voc07"}
        assert row["boxes"] <= 8
        assert set(row["parts"]) == {"proposals", "features", "regions"}
        assert all(seconds > 0 for seconds in row["parts"].values())
    assert 0 < found["search"]["recall"] <= 1
    for picture in found["pictures"]:
        with Image.open(out / picture) as image:
            assert image.width > 2 * 64  # ground truth and detections side by side
        assert f'src="{picture}"' in page.read_text()
    assert "rcnn compare --val v.json" in (out / "family.md").read_text()


def test_a_second_call_measures_nothing_again(compared, monkeypatch):
    settings, out, page = compared
    before = page.read_text()
    for name in ("train_member", "time_detector", "score", "_draw"):
        monkeypatch.setattr(study, name, None)
    pictures = json.loads((out / "study.json").read_text())["pictures"]
    monkeypatch.setattr(study, "_draw", lambda *_: pictures)
    monkeypatch.setattr("rcnn_keras.comparison.sources.propose", None)
    compare(settings, out, command="rcnn compare --val v.json")
    assert page.read_text() == before


def test_timing_alone_is_taken_anew(compared, monkeypatch):
    settings, out, _ = compared
    monkeypatch.setattr(study, "time_detector", lambda *_: {"regions": 1234.0, "cpu": 1.0})
    monkeypatch.setattr(study, "time_search", lambda *_: 0.5)
    monkeypatch.setattr(study, "_draw", lambda *_: [])
    monkeypatch.setattr(study, "score", None)
    compare(settings, out, only_timing=True)
    assert "1234.0 s" in (out / "family.md").read_text()


def test_times_of_other_models_are_not_taken_for_theirs(tmp_path):
    def once(key, value):
        return study._once(tmp_path / "t.json", {"files": key}, lambda: {"seconds": value})

    assert once("a", 1) == {"seconds": 1}
    assert once("a", 2) == {"seconds": 1}
    assert once("b", 3) == {"seconds": 3}
    assert study._once(tmp_path / "t.json", {"files": "b"}, dict, again=True) == {}


def test_scores_of_a_file_that_changed_are_taken_anew(compared, model_files, monkeypatch):
    settings, out, _ = compared
    sources = Sources(settings, out)
    monkeypatch.setattr(study, "score", lambda *_: {"AP": 0.75})
    before = model_files["fast_rcnn"].stat().st_mtime
    assert study._scores(model_files["fast_rcnn"], sources, out / "fast_rcnn") != {"AP": 0.75}
    os.utime(model_files["fast_rcnn"], (before + 5, before + 5))
    assert study._scores(model_files["fast_rcnn"], sources, out / "fast_rcnn") == {"AP": 0.75}


def test_scores_on_other_images_are_taken_anew(compared, val, model_files, tmp_path, monkeypatch):
    settings, out, _ = compared
    other = tmp_path / "other.json"
    other.write_text(val.read_text())
    monkeypatch.setattr(study, "score", lambda *_: {"AP": 0.25})
    sources = Sources(replace(settings, val=other, val_images=val.parent), out)
    assert study._scores(model_files["fast_rcnn"], sources, out / "fast_rcnn") == {"AP": 0.25}
