from pathlib import Path

import pytest

from rcnn_keras.utils.atomic import atomic_write


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "scores.npz"
    with atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert temporary.name == "scores.npz"  # numpy and Keras look at the ending
        assert not path.exists()
    assert path.read_text() == "whole"
    assert names(path.parent) == ["scores.npz"]


def test_a_file_replaces_an_older_one(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with atomic_write(str(path)) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_folder_replaces_all_of_an_older_one(tmp_path):
    path = tmp_path / "model"
    (path / "variables").mkdir(parents=True)
    (path / "variables" / "left").write_text("old")
    with atomic_write(path) as temporary:
        (temporary / "assets").mkdir(parents=True)
        (temporary / "assets" / "classes").write_text("new")
        assert names(path) == ["variables"]
    assert names(path) == ["assets"]
    assert (path / "assets" / "classes").read_text() == "new"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("there", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path, there):
    path = tmp_path / "scores.json"
    if there:
        path.write_text("old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as temporary:
        temporary.write_text(f"half {1 / 0}" if temporary.write_text("half") else "")
    assert names(tmp_path) == (["scores.json"] if there else [])
    assert not there or path.read_text() == "old"


def test_a_block_that_writes_nothing(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), atomic_write(path):
        pass
    assert path.read_text() == "old"


def test_a_renaming_that_fails_leaves_the_older_folder(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no such right")

    def write():
        with atomic_write(path) as temporary:
            temporary.mkdir()
            monkeypatch.setattr(Path, "replace", fail)

    path = tmp_path / "model"
    path.mkdir()
    (path / "left").write_text("old")
    with pytest.raises(OSError, match="no such right"):
        write()
    assert (path / "left").read_text() == "old"
    assert names(tmp_path) == ["model"]
