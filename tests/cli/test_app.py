"""`rcnn app`: which models it serves where, and errors of one line that come before it does."""

import socket

import pytest
from click.testing import CliRunner

import rcnn_keras.app
from rcnn_keras import preset_table
from rcnn_keras.cli import main
from rcnn_keras.convert.saved_detectors import save_half_precision
from rcnn_keras.models import FasterRCNN

SMALL = {"backbone": "zf", "box_units": 8, "min_size": 64, "max_size": 64}


@pytest.fixture
def served(monkeypatch):
    """What `serve` was called with, in place of a server."""
    calls = []
    monkeypatch.setattr(rcnn_keras.app, "serve", lambda *arguments: calls.append(arguments))
    return calls


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "own.keras"
    FasterRCNN(classes=["cat"], **SMALL).save(path)
    return path


def rcnn(*arguments):
    return CliRunner().invoke(main, ["app", *(str(argument) for argument in arguments)])


def error_of(*arguments):
    result = rcnn(*arguments)
    assert result.exit_code in (1, 2)
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_own_models_by_their_names(served, model_file):
    result = rcnn(model_file, model_file, "--port", 7999)
    assert result.exit_code == 0, result.output
    ((models, host, port),) = served
    assert list(models) == [str(model_file)]
    assert models[str(model_file)].classes == ("cat",)
    assert (host, port) == ("127.0.0.1", 7999)


def test_unknown_models_are_refused_before_anything_is_served(served, model_file, tmp_path):
    assert "model file none.keras: no such file" in error_of(model_file, "none.keras")
    message = error_of(model_file, "fasterrcnn_resnet50_fpn_coc")
    assert "did you mean 'fasterrcnn_resnet50_fpn_coco'?" in message
    assert "classes or num_classes is needed" in error_of("resnet18_imagenet")
    assert served == []


def test_all_that_come_with_the_package(served, monkeypatch, tmp_path):
    for name in ("first", "second"):
        model = FasterRCNN(classes=[name], **SMALL)
        save_half_precision(model, tmp_path / name, licence="MIT", scores={})
    monkeypatch.setattr(preset_table, "FOLDER", str(tmp_path))
    result = rcnn()
    assert result.exit_code == 0, result.output
    ((models, _, port),) = served
    assert {name: model.classes for name, model in models.items()} == {
        "first": ("first",),
        "second": ("second",),
    }
    assert port is None


def test_without_trained_models_one_must_be_named(served, monkeypatch):
    monkeypatch.setattr(preset_table, "FOLDER", "not there")
    assert "has no trained models: name a .keras file" in error_of()
    assert served == []


def test_a_place_that_is_taken(served, model_file):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        message = error_of(model_file, "--port", port)
    assert f"cannot listen at 127.0.0.1, port {port}: Address already in use" in message
    assert "cannot listen at 203.0.113.7" in error_of(model_file, "--host", "203.0.113.7")
    assert served == []


def test_missing_gradio_is_reported_with_the_cure(served, model_file, monkeypatch):
    found = rcnn_keras.app.page.importlib.util.find_spec
    monkeypatch.setattr(
        rcnn_keras.app.page.importlib.util,
        "find_spec",
        lambda name, *more: None if name == "gradio" else found(name, *more),
    )
    assert "pip install 'rcnn-keras[app]'" in error_of(model_file)
    assert served == []
