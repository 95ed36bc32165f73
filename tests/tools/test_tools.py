"""tools/ and examples/: programs answer --help; both sides of a comparison share one recipe."""

import json
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as run_length
from pycocotools.coco import COCO

import rcnn_keras as rk
from rcnn_keras.data.detections import Detections
from rcnn_keras.runs.configuration import load_configuration

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "configs"
BENCHMARKS = "tools/benchmarks"
SPEED = f"{BENCHMARKS}/speed.py"
OURS, TORCHVISION = f"{BENCHMARKS}/accuracy.py", f"{BENCHMARKS}/accuracy_torchvision.py"
# Those of tools/parity are tried in tests/parity.
FOLDERS = ("examples", "tools", BENCHMARKS, "tools/reliability", "tools/saved_models")
PROGRAMS = [
    path.relative_to(ROOT).as_posix() for f in FOLDERS for path in sorted(ROOT.glob(f"{f}/*.py"))
]


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Programs set variables for themselves; they must not stay in the process of the tests."""
    monkeypatch.setenv("RCNN_KERAS_LEAN", "1")


def tool(name):
    """The names that a program defines; those that need torch load without it."""
    return runpy.run_path(str(ROOT / name))


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_tool_answers_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: {Path(name).name}")
    purpose = tool(name)["__doc__"].splitlines()[0]
    assert purpose in " ".join(printed.split())


@pytest.mark.parametrize("name", ["bccd", "nuclei"])
def test_baseline_has_the_numbers_of_the_configuration(name):
    baseline = tool(TORCHVISION)
    recipe, ours = baseline["RECIPES"][name], tool(OURS)["RECIPES"][name]
    assert (recipe.train, recipe.test) == (ours.train, ours.test)
    assert ours.size in (None, (recipe.height, recipe.width))
    numbers, recipe = recipe, load_configuration(ours.config)
    model, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule
    epochs, momentum = recipe.training.epochs, optimizer.momentum
    assert (numbers.height, numbers.width) == (model.min_size, model.max_size)
    assert numbers.anchor_sizes == model.anchor_sizes
    assert numbers.detections == model.box_detections_per_img
    assert numbers.masks == recipe.trains_masks
    assert baseline["ROIS"] == model.box_batch_size_per_image
    assert baseline["BATCH"] == recipe.data.batch_size
    assert (baseline["RATE"], baseline["MOMENTUM"]) == (optimizer.learning_rate, momentum)
    decay = baseline["WEIGHT_DECAY"] / (1 - momentum)
    assert decay == pytest.approx(optimizer.weight_decay)
    assert baseline["EPOCHS"] == epochs
    assert [drop * epochs for drop in baseline["DROPS"]] == pytest.approx(
        schedule.milestones, abs=0.02
    )


@pytest.mark.parametrize(("name", "images"), [("bccd_lite0", 292), ("nuclei_lite0", 164)])
def test_baseline_from_imagenet_has_the_numbers_of_the_configuration(name, images, tmp_path):
    from rcnn_keras.training.schedules import build_schedule

    (tmp_path / "train.json").touch()
    baseline, comparison = tool(TORCHVISION), tool(OURS)
    numbers, recipe = baseline["RECIPES"][name], comparison["RECIPES"][name]
    assert (numbers.train, numbers.test) == (recipe.train, recipe.test)
    assert numbers.pretrained
    ours = comparison["configure"](name, tmp_path, seed=0, epochs=None)
    model, optimizer = ours.model, ours.optimizer
    assert (numbers.height, numbers.width) == (model.min_size, model.max_size)
    assert numbers.anchor_sizes == model.anchor_sizes
    assert numbers.detections == model.box_detections_per_img
    assert numbers.masks == ours.trains_masks
    assert baseline["ROIS"] == model.box_batch_size_per_image
    assert (baseline["LITE_CHANNELS"], baseline["LITE_UNITS"]) == (
        model.fpn_channels,
        model.box_units,
    )
    for limit, value in baseline["LITE_PROPOSALS"].items():
        assert getattr(model, limit) == value
    assert (model.backbone_weights, model.norm) == ("imagenet", "frozen_batch")
    assert baseline["BATCH"] == ours.data.batch_size
    assert baseline["EPOCHS"] == ours.training.epochs
    assert baseline["LITE_RATE"] == optimizer.learning_rate
    assert baseline["LITE_BACKBONE_RATE"] == optimizer.learning_rate * optimizer.backbone_rate
    assert (baseline["LITE_DECAY"], baseline["LITE_CLIP"]) == (
        optimizer.weight_decay,
        optimizer.clip_global_norm,
    )
    arguments = ours.schedule.model_dump()
    epochs, steps = ours.training.epochs, images // 4
    schedule = build_schedule(
        arguments.pop("name"), 1.0, epochs=epochs, steps_per_epoch=steps, **arguments
    )
    for step in range(0, epochs * steps, 7):
        theirs = baseline["rate_factor"](step, epochs * steps, True)
        assert float(schedule(step)) == pytest.approx(theirs, rel=1e-4, abs=1e-6), step


@pytest.mark.parametrize("name", ["shapes", "bccd"])
def test_both_ways_of_training_share_one_recipe(name):
    compare = tool(f"{BENCHMARKS}/alternating_training.py")
    config = CONFIGS / f"faster_rcnn_resnet18_fpn_{name}.yaml"
    recipe = load_configuration(config)
    ours = compare["both"](config, ["training.seed=3"], 6, 4, 2)
    joint, alternating = (ours[name].model_dump() for name in ("joint", "alternating"))
    differ = ("epochs", "evaluate_every", "alternating")
    own = [{key: part["training"].pop(key) for key in differ} for part in (joint, alternating)]
    assert own == [
        {"epochs": 6, "evaluate_every": 6, "alternating": None},
        {"epochs": 4, "evaluate_every": 1, "alternating": {"detector_epochs": 2}},
    ]
    drops = [part["schedule"].pop("milestones", ()) for part in (joint, alternating)]
    for moved, epochs in zip(drops, (6, 4), strict=True):
        shares = [epoch / epochs for epoch in moved]
        expected = getattr(recipe.schedule, "milestones", ())
        assert shares == pytest.approx([epoch / recipe.training.epochs for epoch in expected])
    assert joint == alternating
    assert joint["model"] == recipe.model_dump()["model"]


def test_comparison_of_trainings_prints_a_table():
    table = tool(f"{BENCHMARKS}/alternating_training.py")["table"](
        [("joint", 0.1234, 0.5, 1288, 2.04)]
    )
    assert table.splitlines()[-1] == "| joint | 0.123 | 0.500 | 1,288 | 2.0 |"


@pytest.mark.parametrize(("name", "images"), [("bccd", 292), ("nuclei", 164)])
def test_baseline_has_the_rates_of_the_configuration(name, images):
    from rcnn_keras.training.schedules import build_schedule

    baseline = tool(TORCHVISION)
    recipe = load_configuration(tool(OURS)["RECIPES"][name].config)
    epochs, steps = recipe.training.epochs, images // 4
    arguments = recipe.schedule.model_dump()
    ours = build_schedule(
        arguments.pop("name"), 1.0, epochs=epochs, steps_per_epoch=steps, **arguments
    )
    for step in range(epochs * steps):
        theirs = baseline["rate_factor"](step, epochs * steps)
        assert float(ours(step)) == pytest.approx(theirs, rel=1e-5), step


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_comparison_reads_either_form_of_the_data(form, tmp_path):
    if form == "coco":
        (tmp_path / "train.json").touch()
    configure = tool(OURS)["configure"]
    recipe = configure("bccd", tmp_path, seed=7, epochs=3)
    assert recipe.data.format == form
    places = [str(tmp_path / f"{split}.json") for split in ("train", "val", "test")]
    sources = [*recipe.data.train, *recipe.data.val]
    if form == "coco":
        assert [source.annotations for source in sources] == places
    else:
        assert [source.split for source in sources] == ["train", "val", "test"]
        assert {source.root for source in sources} == {str(tmp_path)}
    assert recipe.training.seed == 7
    assert recipe.schedule.milestones == pytest.approx((2, 8 / 3), abs=1e-3)


def test_comparison_table_puts_classes_in_one_order(tmp_path):
    line = {"data": "bccd", "seed": 0, "epochs": 1, "step_s": 1.0, "inference_s": 1.0}
    line |= {"bbox_AP": 0.5, "bbox_AP50": 0.75}
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    ours.write_text(json.dumps(line | {"bbox_AP_by_class": {"a": 0.1, "b": 0.2}}) + "\n")
    theirs.write_text(json.dumps(line | {"bbox_AP_by_class": {"b": 0.4, "a": 0.3}}) + "\n")
    rows = tool(OURS)["table"](ours, theirs).splitlines()
    assert rows[2:] == [
        "| rcnn_keras | bccd | 0 | 0.500 | 0.750 | 0.100 | 0.200 |",
        "| torchvision | bccd | 0 | 0.500 | 0.750 | 0.300 | 0.400 |",
    ]


def test_comparison_table_has_a_part_for_each_data_set(tmp_path):
    boxes = {"data": "bccd", "seed": 0, "bbox_AP": 0.5, "bbox_AP50": 0.75}
    boxes |= {"bbox_AP_by_class": {"a": 0.1, "b": 0.2}}
    masks = {"data": "nuclei", "seed": 1, "bbox_AP": 0.4, "bbox_AP50": 0.6, "segm_AP": 0.3}
    masks |= {"segm_AP50": 0.55, "bbox_AP_by_class": {"c": 0.4}, "segm_AP_by_class": {"c": 0.3}}
    ours, theirs = tmp_path / "ours.jsonl", tmp_path / "theirs.jsonl"
    ours.write_text("".join(json.dumps(line) + "\n" for line in (boxes, masks)))
    theirs.write_text(json.dumps(masks | {"segm_AP": 0.31}) + "\n")
    first, second = tool(OURS)["table"](ours, theirs).split("\n\n")
    assert first.splitlines()[2:] == ["| rcnn_keras | bccd | 0 | 0.500 | 0.750 | 0.100 | 0.200 |"]
    assert second.splitlines() == [
        "| | data | seed | AP | AP50 | mask AP | mask AP50 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| rcnn_keras | nuclei | 1 | 0.400 | 0.600 | 0.300 | 0.550 |",
        "| torchvision | nuclei | 1 | 0.400 | 0.600 | 0.310 | 0.550 |",
    ]


def test_both_sides_stretch_images_boxes_and_masks_alike(tmp_path):
    """The baseline's reader and ours see the same pixels and objects of the same file."""
    drawn = rk.data.draw_shapes(3, size=(96, 64), out=tmp_path, max_shapes=3)
    thin = {"id": 900, "image_id": drawn[0].image_id, "category_id": 1, "iscrowd": 0}
    thin |= {"bbox": [5, 5, 0.1, 40], "area": 4}
    thin |= {"segmentation": [[5, 5, 5.1, 5, 5.1, 45, 5, 45]]}
    content = json.loads((tmp_path / "annotations.json").read_text())
    content["annotations"].append(thin)
    (tmp_path / "annotations.json").write_text(json.dumps(content))

    baseline, comparison = tool(TORCHVISION), tool(OURS)
    recipe = replace(baseline["RECIPES"]["nuclei"], height=48, width=80)
    theirs = baseline["read_examples"](COCO(tmp_path / "annotations.json"), tmp_path, recipe)
    ours = comparison["stretched"](rk.data.load_coco(tmp_path / "annotations.json"), (48, 80))
    assert sum(map(len, ours)) == len(content["annotations"]) - 1
    for record, example in zip(ours, theirs, strict=True):
        with Image.open(example.path) as file:
            image = baseline["resized"](file.convert("RGB"), example.size)
        np.testing.assert_array_equal(record.pixels, np.asarray(image))
        np.testing.assert_allclose(record.boxes, np.reshape(example.boxes, (-1, 4)), atol=1e-4)
        np.testing.assert_array_equal(record.labels + 1, example.labels)
        for mask, code in zip(record.segmentations, example.masks, strict=True):
            np.testing.assert_array_equal(run_length.decode(mask), run_length.decode(code))


def test_detections_of_a_stretched_image_are_in_pixels_of_the_file(tmp_path):
    class Model:
        def detect(self, image):
            assert image.shape == (48, 80, 3)
            boxes, masks = np.array([[8, 12, 40, 24]], np.float32), np.ones((1, 28, 28), np.float32)
            labels = np.zeros(1, int)
            return [Detections(boxes, np.ones(1), labels, ("a",), (48, 80), masks=masks)]

    record = rk.data.draw_shapes(1, size=(96, 64), out=tmp_path)[0]
    found = tool(OURS)["detect"](Model(), record, (48, 80))
    np.testing.assert_allclose(found.boxes, [[6.4, 24, 32, 48]], rtol=1e-6)
    assert found.bool_masks().shape == (1, 96, 64)


def measured(seconds, peak, result):
    """What a side of the benchmark gave."""
    return tool(SPEED)["Measured"](seconds, peak, result)


def test_benchmark_takes_medians_over_all_rounds():
    runs = [
        {"seconds": {"step": [3.0, 1.0]}, "peak_mb": 700, "result": "first"},
        {"seconds": {"step": [2.0]}, "peak_mb": 900, "result": "second"},
    ]
    summary = tool(SPEED)["summary"](runs)
    assert (summary.seconds, summary.peak_mb, summary.result) == ({"step": 2.0}, 900, "first")


@pytest.mark.parametrize(
    ("case", "cells"),
    [
        (
            "mask-inference",
            ["4.000", "2.000", "8.000", "0.25", "1000", "1100", "800", "5 at 0.9 / 5 at 0.8 / 5"],
        ),
        ("faster-training", ["4.000", "8.000", "0.50", "1000", "800", "5 at 0.9 / 5"]),
        ("mask-memory", ["1000", "800", "1.25", "5 at 0.9 / 5"]),
    ],
)
def test_benchmark_rows_divide_by_torchvision(case, cells):
    benchmark = tool(SPEED)
    workload = benchmark["WORKLOADS"][case]
    sides = {
        "ours": measured({"step": 4.0}, 1000, "5 at 0.9"),
        "ours folded": measured({"step": 2.0}, 1100, "5 at 0.8"),
        "torchvision": measured({"step": 8.0}, 800, "5"),
    }
    assert benchmark["rows"](workload, sides) == [[workload.label, *cells]]
    header = benchmark["header"](workload.work, benchmark["sides_of"](workload))
    assert len(header) == len(cells) + 1


def test_benchmark_stages_add_up_also_without_torch():
    benchmark = tool(SPEED)
    workload = benchmark["WORKLOADS"]["mask-stages"]
    sides = {
        "ours": measured({"backbone": 4.0, "masks": 2.0}, 1000, "5 at 0.9"),
        "ours folded": measured({"backbone": 3.0, "masks": 2.0}, 1100, "5 at 0.9"),
    }
    assert benchmark["rows"](workload, sides) == [
        ["backbone", "4.000", "3.000", "-", "-"],
        ["masks", "2.000", "2.000", "-", "-"],
        ["all stages", "6.000", "5.000", "-", "-"],
        ["peak of the process, MB", "1000", "1100", "-", ""],
        ["detections, mean score", "5 at 0.9", "5 at 0.9", "-", ""],
    ]


def test_benchmark_images_need_no_padding_at_another_scale():
    for workload in tool(SPEED)["WORKLOADS"].values():
        assert workload.scaled(1) == workload
        for factor in (0.01, 0.3, 1.1):
            scaled = workload.scaled(factor)
            assert scaled.height % 32 == scaled.width % 32 == 0
            assert min(scaled.height, scaled.width) > 0


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo \"ModuleNotFoundError: No module named 'torchvision'\" >&2; exit 1",
            "'torchvision'",
        ),
        ("kill -9 $$", "ended with -9"),
        (None, "No such file"),
    ],
)
def test_benchmark_names_a_python_without_torchvision(script, message, tmp_path, monkeypatch):
    python = tmp_path / "python"
    if script is not None:
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
    monkeypatch.setattr(sys, "argv", ["benchmark.py", "--torch-python", str(python)])
    with pytest.raises(SystemExit) as end:
        tool(SPEED)["main"]()
    assert str(python) in end.value.code
    assert message in end.value.code


@pytest.mark.slow
def test_benchmark_runs_our_side(monkeypatch, capsys):
    arguments = ["--scale", "0.25", "--steps", "1", "--rounds", "1", "--cases"]
    monkeypatch.setattr(sys, "argv", ["benchmark.py", *arguments, "resnet18-inference"])
    tool(SPEED)["main"]()
    row = capsys.readouterr().out.splitlines()[-1].strip("| ").split(" | ")
    assert row[0] == "Faster R-CNN, ResNet-18-FPN, 64x64"
    assert float(row[1]) > 0
    assert float(row[2]) > 0
    assert row[3:5] == ["-", "-"]
    ours, folded, theirs = row[-1].split(" / ")
    assert int(ours.split(" at ")[0]) > 0
    assert ours == folded
    assert theirs == "-"
