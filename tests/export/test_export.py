"""One method for all formats, which finds their functions when it is called."""

import sys
from types import SimpleNamespace

import pytest

import rcnn_keras as rk
from rcnn_keras.models import Detector


@pytest.fixture
def called(monkeypatch):
    """Stand-ins for the functions of other formats, and what they were called with."""
    calls = []

    def stand_in(name):
        def function(model, path, **options):
            calls.append((name, model, path, options))
            return path

        return function

    homes = {
        "rcnn_keras.export.litert": SimpleNamespace(litert=stand_in("litert")),
        "rcnn_keras.export.onnx_openvino": SimpleNamespace(
            onnx=stand_in("onnx"), openvino=stand_in("openvino")
        ),
        "rcnn_keras.export.saved_model": SimpleNamespace(saved_model=stand_in("saved_model")),
    }
    for home, stand_in_module in homes.items():
        monkeypatch.setitem(sys.modules, home, stand_in_module)
    return calls


PATHS = {
    "tf_saved_model": "new",
    "litert": "new.tflite",
    "onnx": "new.onnx",
    "openvino": "new.xml",
}


@pytest.mark.parametrize("name", PATHS)
@pytest.mark.parametrize("stated", [True, False])
def test_formats_reach_their_functions_by_name_and_by_ending(name, stated, called, tmp_path):
    model, path = SimpleNamespace(), tmp_path / PATHS[name]
    assert Detector.export(model, path, name if stated else None, overwrite=True) == path
    function = "saved_model" if name == "tf_saved_model" else name
    assert called == [(function, model, path, {"overwrite": True})]


@pytest.mark.parametrize("folder", ["cells-1.0", "cells.v2", "a.b/c", "cells.savedmodel", "1"])
def test_a_folder_of_any_name_is_a_saved_model(folder, called):
    rk.export.export(SimpleNamespace(), folder)
    assert called[0][0] == "saved_model"


def test_a_folder_of_any_ending_is_written_if_its_format_is_given(called):
    rk.export.export(SimpleNamespace(), "cells.foo", "tf_saved_model")
    assert called[0][0] == "saved_model"


@pytest.mark.parametrize(
    ("format", "path", "reason"),
    [
        ("tf_saved_model", "x.tflite", "has not the ending of format 'tf_saved_model'"),
        ("onnx", "x.tflite", "'onnx': its file ends in .onnx"),
        ("litert", "x.onnx", "'litert': its file ends in .tflite"),
        ("openvino", "x", "'openvino': its file ends in .xml"),
        (None, "x.keras", "ending of a file, and a SavedModel is a folder"),
        ("tf_saved_model", "saved_model.pb", "ending of a file"),
        (None, "x.h5", "ending of a file"),
        (None, "x.lite.foo", "ending of a file.*; format='tf_saved_model' writes such a folder"),
        (None, "cells.engine", "ending of a file"),
    ],
)
def test_an_ending_that_is_not_of_the_format_is_refused(format, path, reason, called):
    with pytest.raises(ValueError, match=reason):
        Detector.export(SimpleNamespace(), path, format)
    assert called == []


@pytest.mark.parametrize("name", ["coreml", "saved_model"])
def test_another_format_is_named(name):
    message = "format must be one of tf_saved_model, litert, onnx, openvino; received"
    with pytest.raises(ValueError, match=message):
        Detector.export(SimpleNamespace(), "new", name)
