"""Shards on processes and on Ray: every one once, whatever dies on the way."""

import json
import math
import os
import subprocess
import sys
import time
from functools import partial
from itertools import count, islice
from pathlib import Path

import pytest

import rcnn_keras
from rcnn_keras.parallel import Processes, engine_named, run_shards

ROOT = Path(rcnn_keras.__file__).parents[1]

WORK = """
import os, signal
from pathlib import Path

def killed_once(folder, shard):
    mark = Path(folder, f"{shard}.began")
    if shard % 3 == 0 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return shard * shard

class TwoArguments(ValueError):
    def __init__(self, name, reason):
        super().__init__(f"{name}: {reason}")

def bad(shard):
    raise TwoArguments(shard, "bad")

def surroundings(shard):
    import sys
    names = "TF_NUM_INTRAOP_THREADS", "RCNN_KERAS_LEAN"
    return os.getpid(), [os.environ.get(n) for n in names], "tensorflow" in sys.modules
"""


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A module that workers can import."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "work_of_a_test.py").write_text(WORK)
    monkeypatch.syspath_prepend(folder)
    path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    import work_of_a_test

    yield work_of_a_test
    del sys.modules["work_of_a_test"]


@pytest.fixture(scope="module")
def local_ray():
    pytest.importorskip("ray")
    return engine_named("ray", workers=2)


@pytest.fixture(params=["processes", "ray"])
def engine(request):
    if request.param == "ray":
        return request.getfixturevalue("local_ray")
    return Processes(2)


def test_every_shard_runs_once(engine):
    found = dict(run_shards(math.factorial, range(9), engine))
    assert found == {n: math.factorial(n) for n in range(9)}
    assert list(run_shards(math.factorial, [], engine)) == []


def test_a_killed_worker_costs_its_shard(engine, work, tmp_path):
    found = dict(run_shards(partial(work.killed_once, tmp_path), range(7), engine))
    assert found == {n: n * n for n in range(7)}
    assert sorted(path.name for path in tmp_path.glob("*.began")) == [
        *("0.began", "3.began", "6.began")
    ]


def test_a_shard_that_kills_every_worker_ends_the_work(engine):
    with pytest.raises(ChildProcessError, match="3 workers died"):
        list(run_shards(os._exit, [5], engine))


def test_an_error_comes_back_as_it_was(engine, work):
    with pytest.raises(ValueError, match="negative values") as caught:
        list(run_shards(math.factorial, [-1], engine))
    assert "in a worker" in caught.value.__notes__[0]
    # pickle cannot rebuild an exception whose constructor takes more than it hands on
    with pytest.raises(RuntimeError, match="TwoArguments: 7: bad"):
        list(run_shards(work.bad, [7], engine))


def test_workers_are_lean_and_have_one_thread(engine, work):
    found = [result for _, result in run_shards(work.surroundings, range(4), engine)]
    assert all(variables == ["1", "1"] for _, variables, _ in found)
    assert not any(has_tensorflow for _, _, has_tensorflow in found)
    assert os.getpid() not in {process for process, _, _ in found}
    assert os.environ.get("RCNN_KERAS_LEAN") is None


def test_shards_are_taken_up_a_few_at_a_time():
    taken = []

    def shards():
        for shard in count():
            taken.append(shard)
            yield shard

    results = run_shards(math.factorial, shards(), Processes(1))
    assert len(list(islice(results, 3))) == 3
    results.close()
    assert len(taken) <= 6


KILLED = """
import sys, time, os
from rcnn_keras.parallel import Processes, run_shards
if __name__ == "__main__":
    for _ in run_shards(time.sleep, [0, 300], Processes(2)):
        print("begun", flush=True)
"""


def is_running(pid):
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_workers_end_with_their_parent(tmp_path):
    """One of them at its work, the other without any."""
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RCNN_KERAS_LEAN": "1"}
    with subprocess.Popen(
        [sys.executable, script], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout.readline() == "begun\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        parent.kill()
    assert len(children) >= 2
    for _ in range(600):
        if not any(map(is_running, children)):
            break
        time.sleep(0.05)
    assert not any(map(is_running, children))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("dask",), r"engine must be one of \['processes', 'ray'\], not 'dask'"),
        (("processes", 0), "workers must be at least 1, not 0"),
        (("processes", 1, "auto"), "address 'auto' is for the engine 'ray'"),
    ],
)
def test_engines_are_checked(arguments, message):
    with pytest.raises(ValueError, match=message):
        engine_named(*arguments)


def test_ray_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'rcnn-keras\[cluster\]'"):
        engine_named("ray")


def test_the_engine_brings_no_tensorflow():
    code = "import sys, rcnn_keras.parallel; print('tensorflow' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "RCNN_KERAS_LEAN": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout.lower()) is False
