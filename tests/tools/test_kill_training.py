"""Killed by SIGKILL at random moments, a training ends as an uninterrupted one."""

import importlib
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools" / "reliability"


@pytest.fixture
def tool(monkeypatch):
    """The module of `kill_training.py`, which its child processes can import too."""
    monkeypatch.syspath_prepend(TOOLS)
    yield importlib.import_module("kill_training")
    del sys.modules["kill_training"]


@pytest.mark.slow
def test_a_training_killed_three_times_ends_as_an_uninterrupted_one(tool, tmp_path):
    training = tool.Training("fast_rcnn", eager=True, images=4, epochs=2)
    whole = tool.undisturbed(training, tmp_path / "whole")
    outcome = tool.killed(training, tmp_path / "killed", kills=3)
    assert (outcome.kills, outcome.writing) == (3, 1)
    assert outcome.result == whole
    assert len(whole["history"]["loss"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["rcnn", "faster_rcnn", "mask_rcnn"])
def test_a_killed_training_of_each_architecture_resumes_exactly(architecture, tool, tmp_path):
    training = tool.Training(architecture, images=8, epochs=2)
    whole = tool.undisturbed(training, tmp_path / "whole")
    outcome = tool.killed(training, tmp_path / "killed", kills=3)
    assert outcome.kills == 3
    assert outcome.result == whole
