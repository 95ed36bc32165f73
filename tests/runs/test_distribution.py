"""Which strategy a run gets, and what is reported when another worker is lost."""

import json

import click
import pytest
import tensorflow as tf
from click.testing import CliRunner

from rcnn_keras.cli import main
from rcnn_keras.runs import distribution
from rcnn_keras.runs.configuration import load_configuration
from rcnn_keras.runs.distribution import LostWorkerError, build_strategy, lost_workers
from rcnn_keras.runs.document import ConfigurationError


def config_of(workers):
    return json.dumps(
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": 0}},
    )


@pytest.fixture
def made(monkeypatch):
    """What strategies were made, by stand-ins."""
    found = []
    monkeypatch.delenv("TF_CONFIG", raising=False)
    for name in ("MirroredStrategy", "MultiWorkerMirroredStrategy"):
        monkeypatch.setattr(
            tf.distribute, name, lambda *devices, name=name: found.append((name, *devices))
        )
    return found


def test_auto_is_the_strategy_for_the_devices_of_the_machine(made, monkeypatch):
    assert build_strategy("auto") is tf.distribute.get_strategy()
    devices = {"GPU": ["GPU:0"], "CPU": ["CPU:0"]}
    monkeypatch.setattr(tf.config, "list_logical_devices", devices.get)
    assert build_strategy("auto") is tf.distribute.get_strategy()
    devices["GPU"] = ["GPU:0", "GPU:1"]
    build_strategy("auto")
    assert made == [("MirroredStrategy", ["GPU:0", "GPU:1"])]
    assert build_strategy("none") is tf.distribute.get_strategy()
    monkeypatch.setenv("TF_CONFIG", config_of(["a:1", "b:1"]))
    build_strategy("auto")
    assert made[1:] == [("MultiWorkerMirroredStrategy",)]


def test_without_gpus_mirrored_uses_all_logical_cpus(made):
    build_strategy("mirrored")
    ((_, devices),) = made
    assert [device.name for device in devices] == ["/device:CPU:0", "/device:CPU:1"]


@pytest.mark.parametrize(
    ("distribute", "text", "message"),
    [
        ("multi_worker", None, r"multi_worker.*TF_CONFIG names no workers.*rcnn launch"),
        ("mirrored", config_of(["a:1", "b:1"]), "'mirrored', but TF_CONFIG names 2 workers"),
        ("none", config_of(["a:1", "b:1"]), "'none', but TF_CONFIG names 2 workers"),
        ("auto", "{'cluster'}", "TF_CONFIG is not a JSON object: {'cluster'}"),
        ("auto", "[]", "TF_CONFIG is not a JSON object"),
        ("auto", '{"cluster": {"ps": ["a:1"]}}', r"the cluster has \['ps'\]; only workers"),
    ],
)
def test_conflicts_with_tf_config_are_refused(made, monkeypatch, distribute, text, message):
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(ValueError, match=message):
        build_strategy(distribute)
    assert made == []


def test_a_lost_worker_has_an_exit_status_of_its_own(monkeypatch):
    monkeypatch.setattr(distribution, "is_multi_worker", lambda strategy: True)

    @click.command()
    def lose():
        with lost_workers(tf.distribute.get_strategy()):
            raise tf.errors.UnavailableError(None, None, "connection refused")

    monkeypatch.setitem(main.commands, "lose", lose)
    done = CliRunner().invoke(main, ["lose"])
    assert done.exit_code == LostWorkerError.exit_status == 75
    assert "another worker is lost: connection refused" in done.output


def test_on_one_device_errors_are_unchanged():
    with (
        pytest.raises(tf.errors.UnavailableError),
        lost_workers(tf.distribute.get_strategy()),
    ):
        raise tf.errors.UnavailableError(None, None, "something else")


def test_the_configuration_accepts_only_known_strategies(tmp_path, write_config):
    path = write_config(
        tmp_path, {"model": {"architecture": "faster_rcnn"}, "training": {"epochs": 1}}
    )
    assert load_configuration(path).distribute == "auto"
    assert load_configuration(path, ["training.distribute=mirrored"]).distribute == "mirrored"
    with pytest.raises(ConfigurationError, match=r"training\.distribute = 'both'"):
        load_configuration(path, ["training.distribute=both"])
    alternating = "training.alternating={detector_epochs: 1}"
    assert load_configuration(path, [alternating]).distribute == "none"
    with pytest.raises(ConfigurationError, match="alternating training runs on one device"):
        load_configuration(path, [alternating, "training.distribute=mirrored"])
