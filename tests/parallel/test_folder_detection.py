"""Detection into one JSON file: the rows of `detect`, however often it was stopped."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from pycocotools.coco import COCO

from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.models import FasterRCNN
from rcnn_keras.parallel import Processes, folder_detection
from rcnn_keras.parallel.folder_detection import detect_files


@pytest.fixture(autouse=True)
def two_images_a_shard(monkeypatch):
    monkeypatch.setattr(folder_detection, "SHARD_SIZE", 2)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return draw_shapes(5, size=(64, 64), out=tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def detector(scenes, small_arguments):
    keras.utils.set_random_seed(0)
    return FasterRCNN(classes=scenes.classes, **small_arguments)


@pytest.fixture
def files(scenes):
    return [Path(record.path) for record in scenes]


@pytest.fixture
def finished(detector, files, tmp_path, in_process):
    out = tmp_path / "finished.json"
    detect_files(detector, files, out, min_score=0.1, engine=in_process())
    return out


def test_rows_are_those_of_detect(detector, scenes, files, finished):
    rows = json.loads(finished.read_text())
    assert {row["image_id"] for row in rows} == {1, 2, 3, 4, 5}
    for number, (file, found) in enumerate(zip(files, detector.detect(files), strict=True), 1):
        own = [row for row in rows if row["image_id"] == number]
        expected = found.above(0.1)
        assert {row["file"] for row in own} <= {str(file)}
        assert [row["category_id"] - 1 for row in own] == expected.labels.tolist()
        np.testing.assert_allclose([row["score"] for row in own], expected.scores, atol=1e-5)
        corners = [[x, y, x + w, y + h] for x, y, w, h in (row["bbox"] for row in own)]
        np.testing.assert_allclose(corners, expected.boxes, atol=1e-2)
    truth = COCO()
    truth.dataset = scenes.to_coco()
    truth.createIndex()
    assert len(truth.loadRes(str(finished)).anns) == len(rows)


def test_a_stopped_run_goes_on_to_the_same_bytes(detector, files, finished, tmp_path, in_process):
    out = tmp_path / "results.json"
    for most in (1, 1):
        with pytest.raises(KeyboardInterrupt):
            detect_files(detector, files, out, min_score=0.1, engine=in_process(most))
        assert not out.exists()
    parts = tmp_path / "results.json.parts"
    assert sorted(p.name for p in parts.glob("*.jsonl")) == ["000000.jsonl", "000001.jsonl"]
    counts = []
    detect_files(
        *(detector, files, out),
        min_score=0.1,
        engine=in_process(),
        progress=lambda *count: counts.append(count),
    )
    assert counts == [(4, 5), (5, 5)]
    assert out.read_bytes() == finished.read_bytes()
    assert not parts.exists()


def test_other_calls_are_refused(detector, files, finished, tmp_path, in_process):
    with pytest.raises(FileExistsError, match=r"finished\.json is there already"):
        detect_files(detector, files, finished, engine=in_process())
    out = tmp_path / "results.json"
    with pytest.raises(KeyboardInterrupt):
        detect_files(detector, files, out, engine=in_process(1))
    with pytest.raises(ValueError, match=r"parts holds other detections .*: min_score is 0\.5"):
        detect_files(detector, files, out, min_score=0.3, engine=in_process())
    with pytest.raises(ValueError, match=r"parts holds other detections .*: images is"):
        detect_files(detector, files[1:], out, engine=in_process())
    with pytest.raises(ValueError, match="no images"):
        detect_files(detector, [], tmp_path / "none.json")


def test_damaged_images_are_reported_and_the_others_kept(detector, files, tmp_path, in_process):
    copies = [tmp_path / file.name for file in files]
    for file, copy in zip(files, copies, strict=True):
        copy.write_bytes(file.read_bytes())
    whole = copies[2].read_bytes()
    middle = len(whole) // 2
    copies[2].write_bytes(whole[:middle] + bytes(40) + whole[middle + 40 :])
    out = tmp_path / "results.json"
    with pytest.raises(ValueError, match="1 of 5 images cannot be read") as error:
        detect_files(detector, copies, out, engine=in_process())
    assert f"{copies[2]}: cannot be decoded" in str(error.value)
    copies[2].write_bytes(whole)
    counts = []
    detect_files(
        detector, copies, out, engine=in_process(), progress=lambda done, _: counts.append(done)
    )
    assert counts == [3, 5]


def test_nothing_found_is_an_empty_list(detector, files, tmp_path, in_process):
    detect_files(detector, files, tmp_path / "none.json", min_score=1.0, engine=in_process())
    assert json.loads((tmp_path / "none.json").read_text()) == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["one", "two", "ray"])
def test_any_engine_gives_the_same_bytes(engine, detector, files, tmp_path):
    if engine == "ray":
        pytest.importorskip("ray")
        from rcnn_keras.parallel import Ray

        chosen = Ray(2)
    else:
        chosen = Processes(1 + (engine == "two"))
    for name, used in (("one", Processes(1)), ("other", chosen)):
        detect_files(detector, files, tmp_path / f"{name}.json", min_score=0.1, engine=used)
    ours, theirs = (tmp_path / f"{name}.json" for name in ("one", "other"))
    assert ours.read_bytes() == theirs.read_bytes()
