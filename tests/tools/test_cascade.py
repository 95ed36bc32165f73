"""tools/benchmarks/cascade.py."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import rcnn_keras as rk
from rcnn_keras.data.detections import Detections

TOOL = Path(__file__).parents[2] / "tools" / "benchmarks" / "cascade.py"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(TOOL))


def test_both_architectures_share_one_recipe(tool, tmp_path):
    (tmp_path / "train.json").touch()
    faster, cascade = (
        tool["configured"](name, tmp_path, 3, 6, ["data.classes=[a]"]).model_dump()
        for name in tool["ARCHITECTURES"]
    )
    models = faster.pop("model"), cascade.pop("model")
    assert faster == cascade
    assert faster["data"]["classes"] == ("a",)
    assert faster["training"]["seed"] == 3
    assert faster["schedule"]["milestones"] == pytest.approx((4, 5.333), abs=1e-3)
    only = {"architecture", "masks", "cascade_fg_iou_thresh", "cascade_bbox_reg_weights"}
    same = set(models[0]) & set(models[1]) - only
    assert {name: models[0][name] for name in same} == {name: models[1][name] for name in same}


def test_scores_fall_with_the_iou_that_is_asked_for(tool, tmp_path):
    scenes = rk.data.draw_shapes(2, size=(64, 64), seed=0, out=tmp_path)
    found = {}
    for record in scenes:
        boxes = record.boxes.copy()
        boxes[:, 2] -= 0.13 * (boxes[:, 2] - boxes[:, 0])  # an IoU of 0.87
        scores = np.ones(len(boxes), np.float32)
        size = (record.height, record.width)
        found[record.image_id] = Detections(boxes, scores, record.labels, scenes.classes, size)
    line = tool["score"](scenes, found, 100)
    assert line == {"AP": 0.8, "AP50": 1.0, "AP75": 1.0, "AP80": 1.0, "AP90": 0.0}


def test_table_has_every_run_and_the_means(tool, tmp_path):
    lines = [
        {"architecture": name, "seed": seed, "AP": ap, "AP50": 0.9, "AP75": ap, "AP80": ap}
        | {"AP90": 0.1, "step_s": 1.0, "inference_s": 0.1}
        for name, seed, ap in (("cascade_rcnn", 1, 0.6), ("cascade_rcnn", 0, 0.5))
    ]
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    assert tool["table"](path).splitlines() == [
        "| | seed | AP | AP50 | AP75 | AP80 | AP90 | a step | an image |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| cascade_rcnn | 0 | 0.500 | 0.900 | 0.500 | 0.500 | 0.100 | 1.00 s | 0.100 s |",
        "| cascade_rcnn | 1 | 0.600 | 0.900 | 0.600 | 0.600 | 0.100 | 1.00 s | 0.100 s |",
        "| cascade_rcnn | mean | 0.550 | 0.900 | 0.550 | 0.550 | 0.100 | 1.00 s | 0.100 s |",
    ]


@pytest.mark.slow
def test_the_tool_runs_on_drawn_shapes(tmp_path, monkeypatch, small_arguments):
    for number, name in enumerate(("train", "val", "test")):
        scenes = rk.data.draw_shapes(4, size=(64, 64), seed=number, out=tmp_path / name)
        scenes.save_coco(tmp_path / name / f"{name}.json")
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "val", "test"):
        content = json.loads((tmp_path / name / f"{name}.json").read_text())
        for image in content["images"]:
            source = tmp_path / name / Path(image["file_name"]).name
            image["file_name"] = f"{name}_{source.name}"
            (folder / image["file_name"]).write_bytes(source.read_bytes())
        (folder / f"{name}.json").write_text(json.dumps(content))
    small = [word for k, v in small_arguments.items() for word in ("--set", f"model.{k}={v}")]
    arguments = [str(TOOL), "cascade_rcnn", "--data", str(folder), "--epochs", "1", *small]
    arguments += ["--classes", ",".join(scenes.classes), "--out", str(tmp_path / "runs.jsonl")]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(TOOL), run_name="__main__")
    line = json.loads((tmp_path / "runs.jsonl").read_text())
    assert line["architecture"] == "cascade_rcnn"
    assert 0 <= line["AP90"] <= line["AP50"] <= 1
