"""`rcnn export`: options reach the functions that write, and the wrong ones are refused."""

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from PIL import Image

import rcnn_keras.export
import rcnn_keras.export.serving
from rcnn_keras.cli import main

COMMAND = sys.modules["rcnn_keras.cli.export"]  # the name in the package is the command's
MODEL = SimpleNamespace(name="cells")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a file of a model, an image and a folder of images; the working directory."""
    (tmp_path / "best.keras").write_text("")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "photos" / "b.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def called(monkeypatch):
    """What the functions that write were called with."""
    calls = []

    def exporter(format):
        def write(model, path, **options):
            assert model is MODEL
            warnings.warn("cells was never trained", stacklevel=1)
            calls.append((format, str(path), options))
            return path

        return write

    def serve(model, root, name, **options):
        calls.append(("serve", str(root), name, options))
        return root / name / "1"

    monkeypatch.setattr(COMMAND, "from_preset", lambda path: MODEL)
    monkeypatch.setattr(rcnn_keras.export, "exporter", exporter)
    monkeypatch.setattr(rcnn_keras.export.serving, "serve", serve)
    return calls


def rcnn_export(*arguments):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_saved_model_is_the_default(folder, called):
    result = rcnn_export("best.keras", "--out", "served", "--detection-api", "--warm-up", "a.png")
    assert result.exit_code == 0, result.output
    ((format, path, options),) = called
    assert (format, path) == ("tf_saved_model", "served")
    assert options.pop("warm_up") == (Path("a.png"),)
    assert options == {"overwrite": False, "detection_names": True}
    assert result.output.splitlines()[-1] == "served"
    assert "warning: cells was never trained" in result.output


def test_litert_options_reach_its_function(folder, called):
    result = rcnn_export(
        *("best.keras", "--format", "litert", "--out", "cells.tflite", "--size", "240x320"),
        *("--quantize", "int8", "--calibrate", "photos", "--overwrite"),
    )
    assert result.exit_code == 0, result.output
    ((format, path, options),) = called
    assert (format, path) == ("litert", "cells.tflite")
    assert options.pop("calibrate") == Path("photos")
    assert options == {"size": (240, 320), "quantize": "int8", "overwrite": True}


@pytest.mark.parametrize(("format", "out"), [("onnx", "new.onnx"), ("openvino", "new.xml")])
def test_exchange_formats_take_a_size_and_a_number_of_proposals(format, out, folder, called):
    shape = ("--size", "64x96", "--num-proposals", "40")
    result = rcnn_export("best.keras", "--format", format, "--out", out, *shape)
    assert result.exit_code == 0, result.output
    options = {"size": (64, 96), "num_proposals": 40, "overwrite": False}
    assert called == [(format, out, options)]
    assert rcnn_export("best.keras", "--out", out, *shape).exit_code == 0  # by the ending
    assert called == 2 * [(format, out, options)]


def test_serve_config_writes_a_version(folder, called):
    result = rcnn_export("best.keras", "--out", "serving", "--serve-config", "--paste-masks")
    assert result.exit_code == 0, result.output
    assert called == [("serve", "serving", "best", {"paste_masks": True})]
    assert result.output.splitlines()[-2:] == [
        "serving/best/1",
        "docker compose -f serving/compose.yaml up",
    ]
    rcnn_export("best.keras", "--out", "serving", "--serve-config", "--name", "cells")
    assert called[-1][2] == "cells"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--quantize float16", "--quantize is for --format litert, not tf_saved_model"),
        ("--size 8x8", "--size is for --format litert or onnx or openvino, not tf_saved_model"),
        ("--num-proposals 9", "--num-proposals is for --format litert or onnx or openvino, not"),
        ("--format litert --num-proposals 0", "0 is not in the range x>=1"),
        ("--format onnx --warm-up a.png", "--warm-up is for --format tf_saved_model, not onnx"),
        ("--format litert --serve-config", "--serve-config is for --format tf_saved_model"),
        ("--format litert --quantize int8", "--quantize int8 needs --calibrate DIR"),
        ("--format litert --calibrate photos", "--calibrate is for --quantize int8"),
        ("--name cells", "--name goes with --serve-config"),
        ("--serve-config --overwrite", "--overwrite does not go with --serve-config"),
        (
            "--format coreml",
            "'coreml' is not one of 'tf_saved_model', 'litert', 'onnx', 'openvino'",
        ),
        ("--format litert --size 320", "'320' is not a height and a width in pixels"),
        ("--format litert --size 0x320", "'0x320' is not a height and a width in pixels"),
        ("--format litert", "new has not the ending of format 'litert': its file ends in .tflite"),
        ("--warm-up gone.png", "image gone.png: no such file"),
        ("--format litert --quantize int8 --calibrate gone", "folder gone: no such file"),
    ],
)
def test_options_that_do_not_go_together(arguments, message, folder, called):
    result = rcnn_export("best.keras", "--out", "new", *arguments.split())
    assert result.exit_code in (1, 2)
    assert message in " ".join(result.output.split())
    assert called == []


def test_a_missing_model_is_reported(folder, called):
    result = rcnn_export("gone.keras", "--out", "new")
    assert result.exit_code == 1
    assert "model file gone.keras: no such file" in result.output


def test_a_package_that_is_missing_takes_a_line(folder, called, monkeypatch):
    def exporter(format):
        raise ImportError("pip install 'rcnn-keras[litert]'")

    monkeypatch.setattr(rcnn_keras.export, "exporter", exporter)
    result = rcnn_export("best.keras", "--out", "new.tflite")
    assert result.exit_code == 1
    assert result.output == "Error: pip install 'rcnn-keras[litert]'\n"
