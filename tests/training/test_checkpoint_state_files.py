"""Checkpoints on disk: which are kept, and the handling of damaged and unwritable ones."""

import errno
import shutil
import subprocess

import numpy as np
import pytest

from rcnn_keras.training import checkpoint_state
from rcnn_keras.training.checkpoint_state import (
    CheckpointError,
    Saved,
    checkpoints,
    differences,
    latest,
    prepare,
    save,
)


def saved(step):
    arrays = {"a": np.full((2, 3), step, "f4"), "b": np.array(step, "i8")}
    return Saved(step, {"epoch": step // 10, "best": 0.1 + 0.2, "worst": float("nan")}, arrays)


@pytest.fixture
def directory(tmp_path):
    """Three checkpoints, of steps 5, 10 and 15."""
    for step in (5, 10, 15):
        save(tmp_path, saved(step), keep=3)
    return tmp_path


def names(directory):
    return [path.name for path in checkpoints(directory)]


def test_a_saved_checkpoint_is_loaded_unchanged(directory):
    found, expected = latest(directory), saved(15)
    assert found.step == 15
    assert found.state["best"] == expected.state["best"]
    assert np.isnan(found.state["worst"])
    for name, array in expected.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(found.arrays[name], array)


def test_sha256sum_confirms_the_files(directory):
    folder = directory / "step_00000015"
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert checked.returncode == 0
    assert checked.stdout.decode().splitlines() == ["state.json: OK", "arrays.npz: OK"]


def test_only_the_last_checkpoints_are_kept(directory):
    save(directory, saved(20), keep=2)
    assert names(directory) == ["step_00000015", "step_00000020"]
    assert latest(directory / "nowhere") is None


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-7])


def alter(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["state.json", "arrays.npz", "SHA256SUMS"])
@pytest.mark.parametrize("damage", [cut_off, alter, lambda path: path.unlink()])
def test_a_damaged_checkpoint_is_reported_and_the_one_before_it_used(directory, name, damage):
    damage(directory / "step_00000015" / name)
    # An altered checksum is reported as damage of its file.
    what = rf"step_00000015 .*({name}|arrays\.npz); the checkpoint before it is used"
    with pytest.warns(UserWarning, match=what):
        assert latest(directory).step == 10


def test_a_damaged_checkpoint_of_a_later_step_is_removed_on_the_next_save(directory):
    alter(directory / "step_00000015" / "arrays.npz")
    save(directory, saved(12), keep=2)
    assert names(directory) == ["step_00000010", "step_00000012"]


def test_without_a_valid_checkpoint_loading_fails(directory):
    for folder in checkpoints(directory):
        cut_off(folder / "arrays.npz")
    with (
        pytest.warns(UserWarning, match="arrays.npz"),
        pytest.raises(CheckpointError, match="no checkpoint is valid"),
    ):
        latest(directory)
    assert len(names(directory)) == 3


def test_a_later_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_state, "FORMAT", 2)
    save(tmp_path, saved(1))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="has format 2; this version reads format 1"):
        latest(tmp_path)


def test_on_a_full_disk_earlier_checkpoints_are_kept(directory, monkeypatch):
    def full(path, **arrays):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    message = r"step 20 could not be written to .*: No space left .*are kept: step 5, 10, 15"
    with pytest.raises(OSError, match=message):
        save(directory, saved(20))
    assert latest(directory).step == 15
    assert sorted(path.name for path in directory.iterdir()) == names(directory)


def test_free_space_is_checked_before_anything_is_written(directory, monkeypatch):
    usage = shutil.disk_usage(directory)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    prepare(directory, 1_000_000)
    with pytest.raises(OSError, match="one takes 2 MB, 3 MB are free"):
        prepare(directory, 2_500_000)
    assert latest(directory).step == 15


def test_a_folder_that_cannot_be_created_is_reported(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"no checkpoints can be written to .*file"):
        prepare(tmp_path / "file" / "checkpoints", 1)


def test_unfinished_writes_of_a_killed_run_are_removed(directory):
    torn = directory / ".step_00000020.abc" / "step_00000020"
    torn.mkdir(parents=True)
    (torn / "state.json").write_text("{")
    assert latest(directory).step == 15
    prepare(directory, 1)
    assert sorted(path.name for path in directory.iterdir()) == names(directory)


def test_differences_are_named_and_digests_are_not_printed():
    then = {"a": 1, "b": {"c": [1], "d": "sha256:00"}, "gone": True}
    now = {"a": 1, "b": {"c": [2], "d": "sha256:01"}, "new": "x"}
    assert differences(then, now) == [
        "b.c was [1], is [2]",
        "b.d changed",
        "gone was True, is None",
        "new was None, is 'x'",
    ]
