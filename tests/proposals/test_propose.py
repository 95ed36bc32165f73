"""Proposals of whole datasets: the same bytes whoever computes them and after any stop."""

import importlib
import multiprocessing
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rcnn_keras
from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.parallel import Processes, run_shards
from rcnn_keras.parallel.processes import Outcome
from rcnn_keras.proposals import check_proposals, load_proposals, propose, selective_search
from rcnn_keras.proposals.propose import run_method

ROOT = Path(rcnn_keras.__file__).parents[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return draw_shapes(6, size=(48, 64), out=tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    """The file that one worker makes without a stop."""
    path = tmp_path_factory.mktemp("finished") / "proposals.npz"
    propose(dataset, path, workers=1)
    return path


def test_the_file_holds_the_boxes_of_the_method(dataset, finished):
    found = load_proposals(finished)
    check_proposals(found, dataset)
    assert list(found) == [record.image_id for record in dataset]
    for record in dataset:
        expected = selective_search(np.asarray(Image.open(record.path).convert("RGB")))
        np.testing.assert_array_equal(found[record.image_id], expected)
        assert found.image_size(record.image_id) == (48, 64)
    assert found.header["method"] == "selective_search"
    defaults = {"mode": "fast", "similarities": None, "min_size": 0, "max_side": 500}
    assert found.header["arguments"] == defaults
    assert sum(map(len, found.values())) > 30


def test_the_number_of_workers_changes_no_byte(dataset, finished, tmp_path):
    counts = []
    out = tmp_path / "new folder" / "proposals.npz"
    found = propose(dataset, out, workers=3, progress=lambda *count: counts.append(count))
    assert out.read_bytes() == finished.read_bytes()
    assert list(out.parent.iterdir()) == [out]
    assert counts == [(done, 6) for done in range(7)]
    assert len(found) == 6


def test_a_finished_file_is_not_computed_again(dataset, finished, monkeypatch):
    before = finished.stat()
    module = importlib.import_module("rcnn_keras.proposals.propose")
    monkeypatch.setattr(module, "run_shards", None)
    found = propose(dataset, finished, workers=1)
    assert len(found) == 6
    assert finished.stat() == before


def test_other_proposals_are_not_replaced(dataset, finished):
    before = finished.read_bytes()
    with pytest.raises(ValueError, match=r"proposals\.npz holds other .*'min_size': 0"):
        propose(dataset, finished, workers=1, min_size=9)
    with pytest.raises(ValueError, match=r"proposals\.npz holds other .*images is"):
        propose(dataset[1:], finished, workers=1)
    assert finished.read_bytes() == before


def stopped(dataset, out, after, **arguments):
    """Run until some images are done."""

    class Stop(Exception):
        pass

    def progress(done, _):
        if done == after:
            raise Stop

    with pytest.raises(Stop):
        propose(dataset, out, progress=progress, **arguments)


def test_a_stopped_run_resumes(dataset, finished, tmp_path, monkeypatch):
    out, parts = tmp_path / "proposals.npz", tmp_path / "proposals.npz.parts"
    stopped(dataset, out, 2, workers=2)
    assert not out.exists()
    assert len(list(parts.glob("*.npz"))) == 2
    stopped(dataset, out, 5, workers=1)
    kept = {path.name: path.stat().st_mtime_ns for path in parts.glob("*.npz")}
    assert len(kept) == 5
    (parts / ".7.npz.123").write_bytes(b"what a killed run was writing")
    counts = []

    def progress(done, _):
        counts.append(done)
        now = {path.name: path.stat().st_mtime_ns for path in parts.glob("[!.]*.npz")}
        assert now.items() >= kept.items()

    propose(dataset, out, workers=1, progress=progress)
    assert counts == [5, 6]
    assert out.read_bytes() == finished.read_bytes()
    assert not parts.exists()


def test_parts_that_a_finished_run_left_are_removed(dataset, finished, tmp_path):
    out, parts = tmp_path / "proposals.npz", tmp_path / "proposals.npz.parts"
    stopped(dataset, out, 1, workers=1)
    out.write_bytes(finished.read_bytes())  # killed between the last two steps
    propose(dataset, out, workers=1)
    assert not parts.exists()


def test_parts_of_other_arguments_or_data_are_refused(dataset, tmp_path):
    out = tmp_path / "proposals.npz"
    stopped(dataset, out, 1, workers=1)
    message = r"proposals\.npz\.parts holds other proposals.*arguments is .*'mode': 'fast'"
    with pytest.raises(ValueError, match=message):
        propose(dataset, out, workers=1, mode="quality")
    with pytest.raises(ValueError, match=r"\.parts holds other proposals .*: images is"):
        propose(dataset[:5], out, workers=1)
    resized = DetectionDataset([replace(r, height=50) for r in dataset], dataset.classes)
    with pytest.raises(ValueError, match=r"\.parts holds other proposals .*: images is"):
        propose(resized, out, workers=1)
    propose(dataset, out, workers=1)


def test_a_folder_of_other_files_is_refused_and_left_unchanged(dataset, tmp_path):
    out, parts = tmp_path / "proposals.npz", tmp_path / "proposals.npz.parts"
    parts.mkdir()
    (parts / "diary.txt").write_text("dear diary")
    with pytest.raises(ValueError, match=r"\.parts is in the way"):
        propose(dataset, out, workers=1)
    assert (parts / "diary.txt").read_text() == "dear diary"


def test_a_truncated_part_is_refused_by_its_name(dataset, tmp_path):
    out = tmp_path / "proposals.npz"
    stopped(dataset, out, 1, workers=1)
    (part,) = (tmp_path / "proposals.npz.parts").glob("*.npz")
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"{part.name} is not a complete file of proposals"):
        propose(dataset, out, workers=1)


def test_unreadable_images_are_reported_and_the_others_kept(tmp_path):
    images = tmp_path / "images"
    dataset = draw_shapes(5, size=(48, 64), out=images)
    bad, small = Path(dataset[1].path), Path(dataset[3].path)
    whole = {path: path.read_bytes() for path in (bad, small)}
    bad.write_bytes(whole[bad][:200])
    Image.new("RGB", (20, 10)).save(small)
    out = tmp_path / "proposals.npz"
    with pytest.raises(ValueError, match="2 of 5 images cannot be searched") as error:
        propose(dataset, out, workers=2)
    assert f"{bad}: cannot be decoded" in str(error.value)
    assert f"{small}: the image is 20 x 10 pixels, its record says 64 x 48" in str(error.value)
    parts = tmp_path / "proposals.npz.parts"
    assert str(parts) in str(error.value)
    assert len(list(parts.glob("*.npz"))) == 3
    for path, content in whole.items():
        path.write_bytes(content)
    counts = []
    propose(dataset, out, workers=1, progress=lambda done, _: counts.append(done))
    assert counts == [3, 4, 5]
    propose(dataset, tmp_path / "again.npz", workers=1)
    assert out.read_bytes() == (tmp_path / "again.npz").read_bytes()


def test_images_in_memory_have_the_same_proposals_as_files(dataset, finished, tmp_path):
    pixels = [np.asarray(Image.open(record.path).convert("RGB")) for record in dataset]
    in_memory = DetectionDataset(
        [replace(r, path="", pixels=p) for r, p in zip(dataset, pixels, strict=True)],
        dataset.classes,
    )
    out = tmp_path / "proposals.npz"
    found = propose(in_memory, out, workers=1)
    for image_id, boxes in load_proposals(finished).items():
        np.testing.assert_array_equal(found[image_id], boxes)
    others = DetectionDataset(
        [replace(r, pixels=255 - r.pixels) for r in in_memory], dataset.classes
    )
    with pytest.raises(ValueError, match="holds other proposals"):
        propose(others, out, workers=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "guessing"}, "method must be one of .*'selective_search'.*'guessing'"),
        ({"modus": "fast"}, "selective_search has no argument 'modus'; it has .*'mode'"),
        ({"image": 3}, "has no argument 'image'"),
        ({"mode": "slow"}, "mode must be one of"),
        ({"workers": 0}, "workers must be at least 1, not 0"),
    ],
)
def test_arguments_are_checked_before_any_work(dataset, tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        propose(dataset, tmp_path / "proposals.npz", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no images"):
        propose(DetectionDataset([], ["thing"]), tmp_path / "proposals.npz")


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_killed_worker_changes_no_byte(workers, dataset, finished, tmp_path):
    out = tmp_path / "proposals.npz"
    killed = []

    def kill_workers(done, _):
        if done == 1:
            killed.extend(multiprocessing.active_children())
            for process in killed:
                process.kill()

    propose(dataset, out, workers=workers, progress=kill_workers)
    assert 1 <= len(killed) <= workers
    assert out.read_bytes() == finished.read_bytes()


def test_an_image_that_kills_every_worker_is_reported_and_the_others_kept(
    dataset, finished, tmp_path
):
    class Dying(Processes):
        def outcomes(self, work, shards):
            for place, shard in enumerate(shards):
                if place == 2:
                    raise ChildProcessError("3 workers died")
                yield shard, Outcome(work(shard), None)

    out = tmp_path / "proposals.npz"
    message = r"3 workers died. 2 of 6 images are done; .*proposals\.npz\.parts keeps them"
    with pytest.raises(ChildProcessError, match=message):
        propose(dataset, out, engine=Dying())
    propose(dataset, out, workers=1)
    assert out.read_bytes() == finished.read_bytes()


def test_workers_import_no_tensorflow_and_return_the_boxes_of_the_method():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    work = partial(run_method, "selective_search", {"similarities": ["size"]})
    ((_, found),) = run_shards(work, [(0, image)], Processes(1))
    np.testing.assert_array_equal(found, selective_search(image, similarities=["size"]))
    modules = (
        "__import__('rcnn_keras.proposals.propose') and 'tensorflow' in __import__('sys').modules"
    )
    assert "tensorflow" in sys.modules
    assert [found for _, found in run_shards(eval, [modules], Processes(1))] == [False]


KILLED = """
import sys
from pathlib import Path
import rcnn_keras as rk

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    rk.proposals.propose(
        rk.data.load_coco(folder / "annotations.json"), folder / "proposals.npz", workers=2,
        progress=lambda done, all: print(done, flush=True),
    )
"""


@pytest.mark.slow
def test_a_killed_run_resumes(finished, tmp_path):
    images = tmp_path / "images"
    draw_shapes(6, size=(48, 64), out=images)
    (tmp_path / "script.py").write_text(KILLED)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", images],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert next(line for line in iter(process.stdout.readline, "") if line.strip() == "2")
    process.kill()
    process.wait()
    process.stdout.close()
    out = images / "proposals.npz"
    assert not out.exists()
    assert len(list((images / "proposals.npz.parts").glob("*.npz"))) >= 2
    propose(load_coco(images / "annotations.json"), out, workers=1)
    assert out.read_bytes() == finished.read_bytes()
