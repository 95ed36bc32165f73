"""A place to write to is tried before the work."""

import os
import tempfile
from pathlib import Path

import click
import keras
import numpy as np
import pytest
from PIL import Image

from rcnn_keras.cli import main
from rcnn_keras.models import FasterRCNN
from rcnn_keras.utils.output_paths import check_output_file, check_output_folder

COMMANDS = {
    "train": ("train", "config.yaml"),
    "evaluate": ("evaluate", "shapes", "--data", "data.json"),
    "detect": ("detect", "image.png", "--model", "shapes"),
    "export": ("export", "shapes"),
    "compare": ("compare", "--val", "data.json"),
    "data pack": ("data", "pack", "data.json"),
}
FILES = {
    "explain": ("explain", "image.png", "--model", "shapes", ".html"),
    "init": ("init", "data.json", ".yaml"),
    "detect": ("detect", "image.png", "--model", "shapes", ".json"),
    "export": ("export", "shapes", ".tflite"),
    "proposals": ("proposals", "image.png", ".png"),
    "proposals of a dataset": ("proposals", "data.json", ".npz"),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data.json").write_text("{}")
    Path("config.yaml").write_text("{}")
    Path("file").write_text("mine")
    Path("broken").symlink_to("nowhere")
    for ending in (".json", ".tflite", ".png", ".npz", ".html", ".yaml"):
        Path(f"folder{ending}").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("image.png")
    return tmp_path


def commands_with_out(group, name=""):
    for key, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_with_out(command, f"{name}{key} ")
        elif "out" in [parameter.name for parameter in command.params]:
            yield f"{name}{key}"


def test_every_command_that_writes_is_tried_here():
    assert set(commands_with_out(main)) == {*COMMANDS, "proposals", "explain", "init", "convert"}


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_cannot_be_made_is_named_before_the_work(command, folder, error_of):
    for out in ("file/a/b", "broken/a"):
        message = error_of(*COMMANDS[command], "--out", out)
        place = out.split("/")[0]
        assert f"{out} cannot be written: {place} is a" in message
    assert "file" in error_of(*COMMANDS[command], "--out", "file")
    assert Path("file").read_text() == "mine"


@pytest.mark.parametrize("name", ["found.png", "report.HTML", "best.keras", "rows.csv"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_does_not_get_the_name_of_a_file(command, name, folder, error_of):
    message = error_of(*COMMANDS[command], "--out", name)
    assert "has the ending of a file" in message
    assert not Path(name).exists()


def test_a_folder_that_is_there_may_have_any_name(tmp_path):
    for name in ("run.2", "run.v0.1", "2026.11.28"):
        check_output_folder(tmp_path / name)
    (tmp_path / "run.json").mkdir()
    check_output_folder(tmp_path / "run.json")


@pytest.mark.parametrize("command", FILES)
def test_a_file_that_cannot_be_made_is_named_before_the_work(command, folder, error_of):
    *arguments, ending = FILES[command]
    message = error_of(*arguments, "--out", f"file/x{ending}")
    assert f"file/x{ending} cannot be written: file is a file, not a folder" in message
    message = error_of(*arguments, "--out", f"folder{ending}")
    assert "is a folder" in message or "is a directory" in message or "is there already" in message


@pytest.mark.skipif(os.getuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_may_not_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="a/b cannot be written: Permission denied"):
        check_output_folder(tmp_path / "a" / "b")


@pytest.mark.parametrize("check", [check_output_file, check_output_folder])
def test_the_reason_of_the_system_is_given_with_the_place(check, tmp_path, monkeypatch):
    def full(dir):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(OSError, match=rf"a/b cannot be written: No space left.*: {tmp_path}"):
        check(tmp_path / "a" / "b")


def test_what_can_be_written_leaves_nothing_behind(tmp_path):
    check_output_file(tmp_path / "a" / "b.json")
    check_output_folder(tmp_path / "a" / "b")
    check_output_folder(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_fit_tries_the_place_of_checkpoints_first(small_arguments, tmp_path):
    (tmp_path / "file").write_text("")
    model = FasterRCNN(classes=["a"], **small_arguments)
    model.compile(keras.optimizers.SGD())
    for place in ("file/best.keras", "file/{epoch}.keras"):
        callback = keras.callbacks.ModelCheckpoint(tmp_path / place)
        with pytest.raises(NotADirectoryError, match="file is a file, not a folder"):
            model.fit(None, callbacks=[callback])
