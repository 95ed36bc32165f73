"""A model file is there whole or not at all."""

import keras
import pytest


def test_a_save_that_fails_on_the_way_leaves_the_file_that_was_there(
    scenes, make_detector, tmp_path, monkeypatch
):
    detector = make_detector(scenes.classes)
    path = tmp_path / "best.keras"
    callback = keras.callbacks.ModelCheckpoint(path)
    callback.set_model(detector)
    callback.on_epoch_end(0, {})
    before = path.read_bytes()
    loaded = keras.saving.load_model(path)
    assert len(loaded.weights) == len(detector.weights)

    def full(store):
        raise OSError("no space left on device")

    monkeypatch.setattr(detector.layers[-1], "save_own_variables", full)
    with pytest.raises(OSError, match="no space left"):
        callback.on_epoch_end(1, {})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_there_is_not_overwritten_unasked(
    scenes, make_detector, tmp_path, monkeypatch
):
    path = tmp_path / "best.keras"
    path.write_text("mine")
    monkeypatch.setattr("builtins.input", lambda question: "n")
    make_detector(scenes.classes).save(path, overwrite=False)
    assert path.read_text() == "mine"
