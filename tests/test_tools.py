"""tools/: each program answers --help, and the two sides of a comparison share one recipe."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from rcnn_keras.training.configuration import load_configuration

TOOLS = Path(__file__).parents[1] / "tools"
CONFIGS = TOOLS.parent / "configs"
PROGRAMS = sorted(path.name for path in TOOLS.glob("*.py"))


def tool(name):
    """The names that a program defines; those that need torch load without it."""
    return runpy.run_path(str(TOOLS / name))


@pytest.mark.parametrize("name", PROGRAMS)
def test_answers_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(TOOLS / name), run_name="__main__")
    assert end.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: {name}")
    purpose = tool(name)["__doc__"].splitlines()[0]
    assert purpose in " ".join(printed.split())


def test_baseline_has_the_numbers_of_the_configuration():
    baseline = tool("torchvision_baseline.py")
    recipe = load_configuration(CONFIGS / "faster_rcnn_resnet18_fpn_bccd.yaml")
    model, optimizer, schedule = recipe.model, recipe.optimizer, recipe.schedule
    epochs, momentum = recipe.training.epochs, optimizer.momentum
    assert (baseline["HEIGHT"], baseline["WIDTH"]) == (model.min_size, model.max_size)
    assert baseline["ANCHOR_SIZES"] == model.anchor_sizes
    assert baseline["ROIS"] == model.box_batch_size_per_image
    assert baseline["BATCH"] == recipe.data.batch_size
    assert (baseline["RATE"], baseline["MOMENTUM"]) == (optimizer.learning_rate, momentum)
    decay = baseline["WEIGHT_DECAY"] / (1 - momentum)
    assert decay == pytest.approx(optimizer.weight_decay)
    assert baseline["EPOCHS"] == epochs
    assert [drop * epochs for drop in baseline["DROPS"]] == pytest.approx(
        schedule.milestones, abs=1e-3
    )


def test_baseline_has_the_rates_of_the_configuration():
    from rcnn_keras.training.schedules import build_schedule

    baseline = tool("torchvision_baseline.py")
    recipe = load_configuration(CONFIGS / "faster_rcnn_resnet18_fpn_bccd.yaml")
    epochs, steps = recipe.training.epochs, 73  # of 292 images in fours
    arguments = recipe.schedule.model_dump()
    ours = build_schedule(
        arguments.pop("name"), 1.0, epochs=epochs, steps_per_epoch=steps, **arguments
    )
    for step in (0, 1, 50, 98, 99, 100, 583, 584, 778, 779, 875):
        theirs = baseline["rate_factor"](step, epochs * steps)
        assert float(ours(step)) == pytest.approx(theirs, rel=1e-5), step


@pytest.mark.parametrize("form", ["coco", "voc"])
def test_comparison_reads_either_form_of_the_data(form, tmp_path):
    if form == "coco":
        (tmp_path / "train.json").touch()
    configure = tool("compare_torchvision.py")["configure"]
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
    rows = tool("compare_torchvision.py")["table"](ours, theirs).splitlines()
    assert rows[2:] == [
        "| rcnn_keras | bccd | 0 | 0.500 | 0.750 | 0.100 | 0.200 |",
        "| torchvision | bccd | 0 | 0.500 | 0.750 | 0.300 | 0.400 |",
    ]
