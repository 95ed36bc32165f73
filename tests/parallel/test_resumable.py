"""What a stopped work leaves on disk is used again, and only for the same work."""

import json

import numpy as np
import pytest

from rcnn_keras.parallel.resumable import HEADER, Result, ResumableFolder, once, remove_finished


@pytest.fixture
def compute():
    """Counts how often it ran."""

    def run():
        run.calls += 1
        return Result({"calls": run.calls})

    run.calls = 0
    return run


def test_a_result_is_computed_once(tmp_path, compute):
    path = tmp_path / "new" / "result.json"
    assert once(path, "key", compute) == once(path, "key", compute) == Result({"calls": 1})
    assert compute.calls == 1
    assert json.loads(path.read_text()) == {"key": "key", "values": {"calls": 1}}


def test_arrays_keep_their_type_and_order(tmp_path):
    arrays = [np.arange(3, dtype=np.uint8), np.zeros((2, 0)), np.array(7.5, np.float32)]
    for _ in range(2):
        values, found = once(tmp_path / "r.npz", "key", lambda: Result(["note"], arrays))
        assert values == ["note"]
        for array, same in zip(arrays, found, strict=True):
            assert array.dtype == same.dtype
            np.testing.assert_array_equal(array, same)


@pytest.mark.parametrize("name", ["result.json", "result.npz"])
def test_a_result_of_other_work_is_refused_or_replaced(name, tmp_path, compute):
    path = tmp_path / name
    once(path, "a", compute)
    with pytest.raises(ValueError, match="made from other data, arguments or weights"):
        once(path, "b", compute)
    assert once(path, "b", compute, replace=True).values == {"calls": 2}
    assert once(path, "b", compute).values == {"calls": 2}


@pytest.mark.parametrize("name", ["result.json", "result.npz"])
def test_a_file_that_cannot_be_read_is_computed_again(name, tmp_path, compute):
    path = tmp_path / name
    path.write_bytes(b"[]")
    with pytest.warns(UserWarning, match="was altered"):
        assert once(path, "key", compute).values == {"calls": 1}
    assert once(path, "key", compute).values == {"calls": 1}


def test_work_that_is_stopped_leaves_no_file(tmp_path):
    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "result.json", "key", stopped)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_on_with_the_same_header_only(tmp_path):
    folder = tmp_path / "parts"
    ResumableFolder(folder, {"size": 1}, "boxes").path("one").touch()
    assert "one" in ResumableFolder(folder, {"size": 1}, "boxes")
    with pytest.raises(ValueError, match=r"parts holds other boxes .*: size is 1, not 2"):
        ResumableFolder(folder, {"size": 2}, "boxes")
    remove_finished(folder)
    remove_finished(folder)
    assert not folder.exists()


def test_a_folder_of_something_else_is_neither_used_nor_removed(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(ValueError, match="holds no parts of boxes"):
        ResumableFolder(tmp_path, {}, "boxes")
    remove_finished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]
    assert not (tmp_path / HEADER).exists()
