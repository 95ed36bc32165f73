"""`rcnn data pack`, and what the other commands make of its folder."""

import json

import pytest

from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.data.tfrecord import load_tfrecord


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    draw_shapes(4, size=(40, 40), out=folder)
    return folder


@pytest.mark.slow
def test_packed_data_pass_their_check(shapes, tmp_path, rcnn, error_of):
    out = tmp_path / "records"
    command = ("data", "pack", shapes / "annotations.json", "--out", out, "--workers", 1)
    result = rcnn(*command, "--shards", 2)
    assert result.exit_code == 0, result.output
    objects = sum(map(len, load_tfrecord(out)))
    assert f"{out}: 4 images, {objects} objects, 2 TFRecord files" in result.output
    result = rcnn("data", "check", out)
    assert result.exit_code == 0
    assert "0 fatal, 0 repaired" in result.output
    (shard,) = out.glob("00001*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[200] ^= 1
    shard.write_bytes(content)
    result = rcnn("data", "check", out)
    assert result.exit_code == 1
    assert f"FATAL {shard}: sha256 = " in result.output
    assert "holds other records" in error_of(*command, "--shards", 4)


def test_pack_tells_what_is_wrong_before_any_work(shapes, tmp_path, rcnn, error_of):
    source, out = shapes / "annotations.json", tmp_path / "records"
    message = error_of("data", "pack", source, "--out", out, "--shards", 1, "--shard-size", 9)
    assert "--shards and --shard-size say the same" in message
    assert "no such file" in error_of("data", "pack", tmp_path / "none.json", "--out", out)
    message = error_of("data", "pack", source, "--out", out, "--address", "auto")
    assert "address 'auto' is for the engine 'ray'" in message
    assert not out.exists()
    result = rcnn("data", "pack", "--help")
    assert "Example:\n    rcnn data pack " in result.output


@pytest.mark.slow
def test_detect_into_a_file(shapes, tmp_path, rcnn):
    out = tmp_path / "results.json"
    result = rcnn("detect", shapes, "--model", "shapes", "--out", out, "--workers", 1)
    assert result.exit_code == 0, result.output
    assert f"{out}: 4 images, " in result.output
    assert "images a second" in result.output
    rows = json.loads(out.read_text())
    assert rows
    assert {row["file"] for row in rows} <= {str(path) for path in shapes.glob("*.png")}


def test_detect_into_a_file_tells_what_is_wrong(shapes, tmp_path, error_of):
    out = tmp_path / "results.json"
    detect = ("detect", shapes, "--model", "shapes")
    out.write_text("[]")
    assert "results.json is there already" in error_of(*detect, "--out", out)
    message = error_of(*detect, "--out", tmp_path / "folder", "--workers", 2)
    assert "--engine, --workers and --address are for --out FILE.json" in message
    (tmp_path / "file.txt").touch()
    assert "is a file: name a folder" in error_of(*detect, "--out", tmp_path / "file.txt")


def test_files_of_via_are_checked(shapes, tmp_path, rcnn):
    image = next(shapes.rglob("*.png"))
    point = {"shape_attributes": {"name": "point", "cx": 1, "cy": 1}, "region_attributes": {}}
    box = {"name": "rect", "x": 1, "y": 2, "width": 9, "height": 9}
    its = [point, {"shape_attributes": box, "region_attributes": {"kind": "x", "pose": "up"}}]
    path = tmp_path / "via.json"
    path.write_text(json.dumps({"a": {"filename": image.name, "size": 1, "regions": its}}))
    command = ("data", "check", path, "--images", image.parent)
    assert "attribute= says which one is the class" in rcnn(*command).output
    result = rcnn(*command, "--attribute", "kind")
    assert "point or line left out" in result.output
    assert "0 fatal, 1 repaired" in result.output
    coco = shapes / "annotations.json"
    wrong = rcnn("data", "check", coco, "--attribute", "kind")
    assert "--attribute is for a file of VIA" in wrong.output
