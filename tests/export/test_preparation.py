"""Folders are there whole or not at all."""

import os

import pytest

from rcnn_keras.export.preparation import exported_folder


def write(folder, text, overwrite=False, fail=False):
    with exported_folder(folder, overwrite, "mark") as new:
        (new / "mark").write_text(text)
        assert not folder.exists() or overwrite
        if fail:
            raise RuntimeError("no room left")


def test_a_new_folder_and_its_parents(tmp_path):
    write(tmp_path / "deep" / "down", "first")
    assert (tmp_path / "deep" / "down" / "mark").read_text() == "first"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["down"]
    expected = tmp_path / "other"
    expected.mkdir()
    assert (tmp_path / "deep" / "down").stat().st_mode == expected.stat().st_mode


def test_what_fails_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="no room left"):
        write(tmp_path / "new", "first", fail=True)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_leaves_the_earlier_one(tmp_path):
    write(tmp_path / "new", "first")
    with pytest.raises(RuntimeError, match="no room left"):
        write(tmp_path / "new", "second", overwrite=True, fail=True)
    assert (tmp_path / "new" / "mark").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_an_earlier_one_is_replaced_when_asked(tmp_path):
    write(tmp_path / "new", "first")
    with pytest.raises(FileExistsError, match=r"new exists: name another folder"):
        write(tmp_path / "new", "second")
    write(tmp_path / "new", "second", overwrite=True)
    assert (tmp_path / "new" / "mark").read_text() == "second"
    assert [p.name for p in tmp_path.iterdir()] == ["new"]


def test_nothing_but_an_export_is_replaced(tmp_path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("Dear")
    with pytest.raises(FileExistsError, match="letters is not overwritten: without mark"):
        write(tmp_path / "letters", "first", overwrite=True)
    (tmp_path / "file").write_text("text")
    with pytest.raises(FileExistsError, match="file is not overwritten"):
        write(tmp_path / "file", "first", overwrite=True)
    assert (tmp_path / "letters" / "dear.txt").exists()


def test_one_that_came_into_being_meanwhile_stays(tmp_path):
    def slowly():
        with exported_folder(tmp_path / "new", False, "mark") as new:
            (new / "mark").write_text("slow")
            write(tmp_path / "new", "quick")

    with pytest.raises(FileExistsError, match="new exists"):
        slowly()
    assert (tmp_path / "new" / "mark").read_text() == "quick"


def test_places_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match="file"):
        write(tmp_path / "file" / "new", "first")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_rights_are_missing(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PermissionError, match="locked"):
        write(tmp_path / "locked" / "new", "first")
