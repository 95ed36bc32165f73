"""`rcnn compare`: its options, and what it says before any long work."""

import sys

import pytest
from click.testing import CliRunner

import rcnn_keras as rk
from rcnn_keras import comparison
from rcnn_keras.cli import main
from rcnn_keras.cli.compare import NAMES


def rcnn(*arguments):
    return CliRunner().invoke(main, ["compare", *map(str, arguments)])


@pytest.fixture
def val(tmp_path):
    rk.data.draw_shapes(2, size=(64, 64), out=tmp_path / "val")
    return tmp_path / "val" / "annotations.json"


@pytest.fixture
def called(monkeypatch):
    """What the command would do, and with how many threads."""
    calls = []
    monkeypatch.setattr(comparison, "use_threads", calls.append)
    monkeypatch.setattr(
        comparison, "compare", lambda *args, **kwargs: calls.append((args, kwargs)) or "page.html"
    )
    return calls


def test_its_names_are_those_of_the_family():
    assert tuple(comparison.FAMILY) == NAMES


def test_options_become_settings(val, called, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/bin/rcnn", "compare", "--val", "a b"])
    result = rcnn("--val", val, "--data", val, "--out", tmp_path / "out", "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert result.output == "page.html\n"
    threads, ((settings, out), options) = called
    assert threads == 2
    assert settings == comparison.Settings(val=val, data=val, epochs=3)
    assert out == tmp_path / "out"
    assert options["only_timing"] is False
    assert options["command"] == "rcnn compare --val 'a b'"


def test_defaults_are_those_of_the_settings(val, called, tmp_path):
    rcnn("--val", val, "--out", tmp_path, "--skip", "rcnn", "--skip", "mask_rcnn")
    settings = called[1][0][0]
    assert settings == comparison.Settings(val=val, skip=("rcnn", "mask_rcnn"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--val", "none.json"], "none.json: no such file"),
        (["--val", "VAL", "--data", "none.json"], "none.json: no such file"),
        (["--val", "VAL", "--model", "none.keras"], "none.keras: no such file"),
        (["--val", "VAL", "--only-timing"], "holds no comparison"),
        (["--val", "VAL", "--skip", "fast"], "'fast' is not one of"),
        (["--val", "VAL", "--epochs", "0"], "--epochs"),
        ([], "Missing option '--val'"),
    ],
)
def test_wrong_arguments_are_reported(arguments, message, val, called, tmp_path):
    arguments = [str(val) if a == "VAL" else a for a in arguments]
    result = rcnn(*arguments, "--out", tmp_path / "out")
    assert result.exit_code != 0
    assert message in result.output
    assert not isinstance(result.exception, AttributeError)
    assert not any(isinstance(call, tuple) for call in called)
    assert not (tmp_path / "out").exists()
