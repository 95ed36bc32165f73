import json
import shutil

import keras
import pytest

import rcnn_keras as rk
from rcnn_keras.comparison import Settings, compare, place_models, study
from rcnn_keras.comparison.checks import check_folder, members
from rcnn_keras.comparison.sources import Sources
from rcnn_keras.comparison.trainings import FINISHED, ranks_of


@pytest.fixture(autouse=True)
def _no_work(monkeypatch):
    """Whatever is long fails: all of this is to be told before it."""

    def fail(*args, **kwargs):
        raise AssertionError("work began")

    for name in ("train_member", "time_detector", "score", "time_vgg16"):
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


def test_who_is_compared(val, boxes_alone, model_files, make_small, tmp_path):
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


def test_missing_files_are_named(val, tmp_path):
    none = tmp_path / "none.json"
    for settings in (Settings(val=none), Settings(val=val, data=none)):
        with pytest.raises(FileNotFoundError, match=r"none\.json: no such file"):
            compare(settings, tmp_path / "out")
    with pytest.raises(ValueError, match="proposals to train on are given without data"):
        compare(Settings(val=val, proposals=val), tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"model .*none\.json: no such file"):
        place_models((none,))
    assert not (tmp_path / "out").exists()


def test_models_find_their_places(model_files, tmp_path):
    assert place_models(tuple(model_files.values())) == model_files
    copy = shutil.copy(model_files["rcnn"], tmp_path / "copy.keras")
    with pytest.raises(ValueError, match=r"rcnn\.keras and .*copy\.keras are both R-CNN"):
        place_models((model_files["rcnn"], copy))
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match=r"other\.keras holds a Sequential, not a detector"):
        place_models((tmp_path / "other.keras",))


def test_models_of_other_classes_or_kinds(val, model_files, make_small, tmp_path):
    make_small("fast_rcnn", ["cat"]).save(tmp_path / "cat.keras")
    models = {"rcnn": model_files["rcnn"], "fast_rcnn": tmp_path / "cat.keras"}
    with pytest.raises(ValueError, match=r"classes of .*cat\.keras are \['cat'\]"):
        compare(Settings(val=val, models=models), tmp_path / "out")
    with pytest.raises(ValueError, match="unknown classes 'cat'"):
        compare(Settings(val=val, models={"fast_rcnn": tmp_path / "cat.keras"}), tmp_path / "out")
    with pytest.raises(ValueError, match=r"rcnn\.keras is a RCNN, not Mask R-CNN"):
        compare(Settings(val=val, models={"mask_rcnn": model_files["rcnn"]}), tmp_path / "out")


def test_a_folder_of_other_settings_is_refused(val, tmp_path):
    check_folder(Settings(val=val, data=val, epochs=3), tmp_path, ["rcnn"], train=True)
    check_folder(Settings(val=val, data=val, epochs=3, repeats=1), tmp_path, [], train=True)
    with pytest.raises(FileExistsError, match=r"other settings \(epochs: 3 there, 4 now\)"):
        check_folder(Settings(val=val, data=val, epochs=4), tmp_path, ["rcnn"], train=True)


def test_timing_alone_needs_trained_detectors(val, tmp_path):
    settings = Settings(val=val, data=val)
    (tmp_path / "rcnn").mkdir()
    (tmp_path / "rcnn" / FINISHED).write_text('{"model": "rcnn.keras"}')
    with pytest.raises(ValueError, match="no trained fast_rcnn, mask_rcnn to time"):
        check_folder(settings, tmp_path, ["rcnn", "fast_rcnn", "mask_rcnn"], train=False)
    check_folder(settings, tmp_path, ["rcnn"], train=False)
