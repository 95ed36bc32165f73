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


@pytest.mark.parametrize("name", ["saved_model", "litert", "onnx", "openvino"])
def test_formats_reach_their_functions(name, called, tmp_path):
    model = SimpleNamespace()
    assert Detector.export(model, tmp_path / "new", name, overwrite=True) == tmp_path / "new"
    assert called == [(name, model, tmp_path / "new", {"overwrite": True})]


def test_saved_model_is_the_default(called, tmp_path):
    rk.export.export(SimpleNamespace(), str(tmp_path))
    assert called[0][0] == "saved_model"


def test_another_format_is_named():
    with pytest.raises(ValueError, match="format must be one of saved_model, litert, onnx, openv"):
        Detector.export(SimpleNamespace(), "new", "coreml")
