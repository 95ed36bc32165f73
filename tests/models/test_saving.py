"""A model file is there whole or not at all."""

import keras
import numpy as np
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


@pytest.mark.parametrize("name", ["best.h5", "best.hdf5", "best", "best.weights.h5", "best.KERAS"])
def test_files_that_could_not_be_loaded_again_are_refused(name, scenes, make_detector, tmp_path):
    with pytest.raises(ValueError, match=r"a detector is saved to a \.keras file, or its weights"):
        make_detector(scenes.classes).save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["best.h5", "best.hdf5", "best"])
def test_keras_own_functions_refuse_them_too(name, scenes, make_detector, tmp_path):
    detector = make_detector(scenes.classes)
    pixels = keras.Input((None, None, 3))
    for model in (detector, keras.Model(pixels, detector(pixels))):
        with pytest.raises(ValueError, match=r"\.keras"):
            keras.saving.save_model(model, tmp_path / name)
    keras.saving.save_model(detector, tmp_path / "best.keras")
    assert keras.saving.load_model(tmp_path / "best.keras").get_config() == detector.get_config()


@pytest.mark.parametrize("name", ["best.h5", "best.weights.h5"])
@pytest.mark.parametrize("alone", [True, False])
def test_a_callback_that_would_save_such_a_file_stops_fit_before_it_begins(
    name, alone, scenes, make_detector, tmp_path
):
    detector = make_detector(scenes.classes)
    detector.compile(keras.optimizers.SGD())
    callback = keras.callbacks.ModelCheckpoint(tmp_path / name, monitor="loss")
    with pytest.raises(ValueError, match=rf"{name}: a detector is saved to a \.keras file"):
        detector.fit(None, callbacks=callback if alone else [callback])


def test_weights_alone_are_saved_and_loaded(scenes, make_detector, tmp_path):
    detector, other = make_detector(scenes.classes), make_detector(scenes.classes)
    detector.box_head.class_logits.bias.assign_add(detector.box_head.class_logits.bias + 1)
    detector.save_weights(tmp_path / "best.weights.h5")
    other.load_weights(tmp_path / "best.weights.h5")
    for ours, theirs in zip(other.get_weights(), detector.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
