"""Finding the detectors that come with the package, and what is known of them."""

import json

import pytest

from rcnn_keras import preset_table


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A folder with a package whose models are searched."""
    monkeypatch.setattr(preset_table, "__file__", str(tmp_path / "rcnn_keras" / "preset_table.py"))
    return tmp_path


def put(folder, **content):
    folder.mkdir(parents=True)
    (folder / preset_table.MODEL).write_text(json.dumps(content))
    (folder / preset_table.WEIGHTS).write_bytes(bytes(2_600_000))


def test_without_the_folder_there_are_no_models(root):
    assert preset_table.saved_models() == {}


def test_models_of_a_checkout_are_found(root):
    put(root / "saved_models" / "cells")
    (root / "saved_models" / "notes").mkdir()
    assert list(preset_table.saved_models()) == ["cells"]


def test_models_of_an_installed_package_are_found(root):
    put(root / "saved_models" / "somebody_elses")
    put(root / "rcnn_keras" / "saved_models" / "cells")
    assert list(preset_table.saved_models()) == ["cells"]


def test_size_classes_scores_and_licence_are_those_of_the_files(root):
    scores = {"AP": 0.625, "mask_AP": 0.25}
    config = {"classes": ["a", "b"]}
    put(root / "saved_models" / "cells", config=config, licence="MIT", scores=scores)
    model = preset_table.saved_models()["cells"]
    assert (model.name, model.megabytes, model.num_classes, model.licence) == ("cells", 3, 2, "MIT")
    assert (model.box_ap, model.mask_ap, model.top1) == (62.5, 25.0, None)
    put(root / "saved_models" / "boxes", config=config, licence="MIT", scores={"AP": 0.5})
    assert preset_table.saved_models()["boxes"].mask_ap is None
