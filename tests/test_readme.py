"""README: its example runs as it stands, its commands parse, and what it names is there."""

import importlib
import re
import shlex
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import rcnn_keras as rk
from rcnn_keras.cli import main
from rcnn_keras.runs.configuration import load_configuration

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs" / "design" / "architecture.md").read_text("utf-8")


def block(language, section):
    """The first block of code of a language in a section."""
    text = README.split(f"\n## {section}\n")[1].split("\n## ")[0]
    return re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)[1]


COMMANDS = block("sh", "On the command line").replace("\\\n", " ").splitlines()


# the example in Python


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the files that the example reads; the working directory of the test."""
    images = tmp_path / "images"
    drawn = rk.data.draw_shapes(6, size=(96, 96), out=images)
    for name, part in {"train.json": drawn[:4], "val.json": drawn[4:]}.items():
        part.save_coco(images / name)
        (images / name).rename(tmp_path / name)
    for name, record in zip(("a.jpg", "b.png"), drawn, strict=False):
        Image.open(record.path).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_python_example_runs(folder):
    example = block("python", "In Python")
    smaller = {
        "epochs=12": "epochs=1",
        "min_size=240, max_size=320": "min_size=96, max_size=96, backbone_width=0.25",
    }
    for text, small in smaller.items():
        assert example.count(text) == 1
        example = example.replace(text, small)
    names = {"some_numpy_image": np.full((70, 90, 3), 128, np.uint8)}
    training, load, detecting = example.partition("model = keras.models.load_model")
    exec(training, names)
    trained = names["model"]
    exec(load + detecting, names)
    assert names["model"] is not trained
    assert (folder / "cells.keras").exists()
    assert Image.open(folder / "a_boxes.png").size == (96, 96)
    expected = trained.detect(["a.jpg", "b.png", names["some_numpy_image"]])
    for found, before in zip(names["found"], expected, strict=True):
        assert len(found.boxes) > 0
        for part in ("boxes", "scores", "labels"):
            np.testing.assert_array_equal(getattr(found, part), getattr(before, part))


# the commands


def commands_of(group):
    for command in group.commands.values():
        yield from commands_of(command) if isinstance(command, click.Group) else [command]


@pytest.mark.parametrize("line", COMMANDS)
def test_command_parses(line, monkeypatch):
    called = []
    for command in commands_of(main):
        monkeypatch.setattr(command, "callback", lambda **arguments: called.append(arguments))
    program, *arguments = shlex.split(line, comments=True)
    result = CliRunner().invoke(main, arguments)
    assert program == "rcnn"
    assert result.exit_code == 0, result.output
    assert len(called) == 1


def test_train_command_is_a_valid_configuration():
    (line,) = [line for line in COMMANDS if line.startswith("rcnn train ")]
    arguments = shlex.split(line.replace("$PWD", "/data"))
    changes = [b for a, b in pairwise(arguments) if a == "--set"]
    data = load_configuration(ROOT / arguments[2], changes).data
    files = [source.annotations for source in (*data.train, *data.val)]
    assert files == ["/data/train.json", "/data/val.json", "/data/test.json"]


# what it names


def test_files_it_names_exist():
    paths = set(re.findall(r"\b(?:configs|docs|examples|tests|tools|rcnn_keras)/[\w./]*\w", README))
    paths |= {f"configs/{name}" for name in re.findall(r"(?<![\w/])\w+\.yaml", README)}
    paths |= set(re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", README))
    assert len(paths) > 10
    assert sorted(path for path in paths if not (ROOT / path).exists()) == []


def test_the_architecture_page_has_every_module_and_no_other():
    tree = re.search(r"```\nrcnn_keras/\n(.*?)```", ARCHITECTURE, re.DOTALL)[1]
    named, room = set(), ""
    for line in tree.splitlines():
        if found := re.match(r"  (\w+/)", line):
            room = found[1]
        elif not line.startswith("   "):
            room = ""
        named |= {f"{room}{name}" for name in re.findall(r"\b([\w/]+\.py)\b", line)}
    package = ROOT / "rcnn_keras"
    modules = {path.relative_to(package).as_posix() for path in package.rglob("*.py")}
    assert named == {name for name in modules if not name.endswith("__init__.py")}


def test_anchors_it_links_to_exist():
    headings = re.findall(r"^#+ (.*)", README, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", README)) <= anchors


def test_names_of_the_package_exist():
    names = set(re.findall(r"\b(?:rk|rcnn_keras)((?:\.[A-Za-z_]\w*)+)", README))
    assert len(names) > 5
    for name in sorted(names):
        *path, last = name.split(".")[1:]
        owner = rk
        for part in path:
            owner = getattr(owner, part, None) or importlib.import_module(
                f"{owner.__name__}.{part}"
            )
        module = hasattr(owner, "__path__") and find_spec(f"{owner.__name__}.{last}")
        assert hasattr(owner, last) or module, f"rcnn_keras{name}"


def test_no_placeholder_is_left():
    assert "@@" not in README
