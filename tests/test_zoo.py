"""Where the models that come with the package are looked for, and what is told of them."""

import json

import pytest

from rcnn_keras import zoo


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with a package in it whose models are looked for."""
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "rcnn_keras" / "zoo.py"))
    return tmp_path


def put(folder, **content):
    folder.mkdir(parents=True)
    (folder / zoo.MODEL).write_text(json.dumps(content))
    (folder / zoo.WEIGHTS).write_bytes(bytes(2_600_000))


def test_none(root):
    assert zoo.saved_models() == {}


def test_of_a_checkout(root):
    put(root / "saved_models" / "cells")
    (root / "saved_models" / "notes").mkdir()
    assert list(zoo.saved_models()) == ["cells"]


def test_of_an_installed_package(root):
    put(root / "saved_models" / "somebody_elses")
    put(root / "rcnn_keras" / "saved_models" / "cells")
    assert list(zoo.saved_models()) == ["cells"]


def test_what_is_told(root):
    scores = {"AP": 0.625, "mask_AP": 0.25}
    config = {"classes": ["a", "b"]}
    put(root / "saved_models" / "cells", config=config, licence="MIT", scores=scores)
    model = zoo.saved_models()["cells"]
    assert (model.name, model.megabytes, model.classes, model.licence) == ("cells", 3, 2, "MIT")
    assert (model.box_ap, model.mask_ap, model.top1) == (62.5, 25.0, None)
    put(root / "saved_models" / "boxes", config=config, licence="MIT", scores={"AP": 0.5})
    assert zoo.saved_models()["boxes"].mask_ap is None
