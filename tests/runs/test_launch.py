"""`rcnn launch`, with workers that are a few lines of Python."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import rcnn_keras
from rcnn_keras.cli import main
from rcnn_keras.runs.launch import launch

ROOT = Path(rcnn_keras.__file__).parents[1]
BEGIN = """
import json, os, signal, subprocess, sys, time
from pathlib import Path
index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
starts = Path(sys.argv[1]) / f"starts_{index}"
with starts.open("a") as file:
    print(os.getpid(), file=file)
first = len(starts.read_text().split()) == 1
"""


def worker(folder, code):
    """The command of a worker, which notes its process in `folder`."""
    return [sys.executable, "-c", BEGIN + textwrap.dedent(code), str(folder)]


def processes(folder, index):
    path = folder / f"starts_{index}"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def is_running(process):
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"  # dead, and its parent has not looked yet


def test_each_worker_has_all_addresses_and_its_lines_have_its_number(tmp_path, capfd):
    assert launch(worker(tmp_path, "print(os.environ['TF_CONFIG'])"), workers=3) == 0
    lines = sorted(capfd.readouterr().out.splitlines())
    configs = [json.loads(line.removeprefix(f"[{i}] ")) for i, line in enumerate(lines)]
    assert [c["task"] for c in configs] == [{"type": "worker", "index": i} for i in range(3)]
    addresses = configs[0]["cluster"]["worker"]
    assert all(c["cluster"] == {"worker": addresses} for c in configs)
    assert len(set(addresses)) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses)


def test_workers_go_on_when_nobody_reads_their_lines(tmp_path):
    """As in `rcnn launch ... | head`: a worker would wait for room in its pipe for ever."""
    code = """
        for number in range(20_000):
            print("line", number)
        Path(sys.argv[1], f"done_{index}").touch()
    """
    program = f"""
from rcnn_keras.runs.launch import launch
import rcnn_command
try:
    raise SystemExit(launch({worker(tmp_path, code)!r}, workers=2))
finally:
    rcnn_command._let_go_of_a_closed_pipe()
"""
    environment = os.environ | {"RCNN_KERAS_LEAN": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe) as launched:
        launched.stdout.readline()
        launched.stdout.close()
        errors = launched.stderr.read().decode()
    assert (launched.returncode, errors) == (0, "")
    assert {path.name for path in tmp_path.glob("done_*")} == {"done_0", "done_1"}


# The other worker neither ends by itself nor when it is asked to, and has a process of its own.
KILLED_ONCE = """
if not first:
    sys.exit()
if index == 1:
    while not (starts.parent / "child").exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
aside = starts.parent / "aside"
aside.write_text(str(child.pid))
aside.rename(starts.parent / "child")
time.sleep(600)
"""


def test_all_workers_restart_after_one_was_killed(tmp_path, capfd):
    assert launch(worker(tmp_path, KILLED_ONCE), workers=2, grace=0.5) == 0
    for index in (0, 1):
        found = processes(tmp_path, index)
        assert len(found) == 2
        assert not any(map(is_running, found))
    assert not is_running(int((tmp_path / "child").read_text()))
    assert "worker 1 ended with SIGKILL" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("code", "status", "starts"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", 137, 3),
        ("sys.exit(75)", 75, 3),  # lost another worker
        ("sys.exit(1)", 1, 1),  # a wrong configuration is wrong the next time too
        ("sys.exit(2)", 2, 1),
    ],
)
def test_killed_and_lost_workers_are_retried_and_errors_are_not(tmp_path, code, status, starts):
    assert launch(worker(tmp_path, code), workers=1, retries=2) == status
    assert len(processes(tmp_path, 0)) == starts


def test_restarts_may_have_another_command(tmp_path):
    first = worker(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")
    assert launch(first, workers=1, again=worker(tmp_path, "sys.exit()")) == 0
    assert len(processes(tmp_path, 0)) == 2


LAUNCHER = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background ignores it
os.environ["RCNN_KERAS_LEAN"] = "1"
from rcnn_keras.runs.launch import launch
sys.exit(launch(sys.argv[1:], workers=2, grace=0.5))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_all_workers(tmp_path, number, status):
    command = worker(tmp_path, "time.sleep(600)")
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER, *command])
    while not (processes(tmp_path, 0) and processes(tmp_path, 1)):
        time.sleep(0.01)
    launcher.send_signal(number)
    assert launcher.wait(timeout=60) == status
    assert not any(is_running(p) for index in (0, 1) for p in processes(tmp_path, index))


@pytest.mark.parametrize(("name", "value"), [("workers", 0), ("retries", -1)])
def test_numbers_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least .*, not {value}"):
        launch(["true"], **{"workers": 1} | {name: value})


def test_the_command_passes_its_arguments_to_launch(monkeypatch):
    calls = []

    def record(command, **how):
        calls.append((command, how))
        return 137

    monkeypatch.setattr("rcnn_keras.runs.launch.launch", record)
    arguments = "launch --workers 4 --retries 7 -- train my.yaml --overwrite --set a.b=1"
    assert CliRunner().invoke(main, arguments.split()).exit_code == 137
    ((command, how),) = calls
    assert command[4:] == ["train", "my.yaml", "--overwrite", "--set", "a.b=1"]
    assert how.pop("again")[4:] == ["train", "my.yaml", "--set", "a.b=1"]
    assert how == {"workers": 4, "retries": 7, "grace": 10.0}
    done = subprocess.run([*command[:4], "--help"], capture_output=True, text=True, check=True)
    assert "launch" in done.stdout
    assert os.path.basename(command[0]).startswith("python")
