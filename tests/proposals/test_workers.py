import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import rcnn_keras
from rcnn_keras.proposals import selective_search
from rcnn_keras.proposals.workers import run_method, worker_pool

STATE = """(
    'rcnn_keras.proposals' in __import__('sys').modules,
    'tensorflow' in __import__('sys').modules,
    __import__('cv2').getNumThreads(),
)"""


def test_a_worker_has_no_tensorflow_and_one_thread():
    assert "tensorflow" in sys.modules
    with worker_pool(1) as pool:
        assert pool.submit(eval, STATE.replace("\n", "")).result() == (True, False, 1)


def test_a_worker_gives_what_the_method_gives():
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    with worker_pool(1) as pool:
        task = pool.submit(run_method, "selective_search", image, {"similarities": ["size"]})
        expected = selective_search(image, similarities=["size"])
        np.testing.assert_array_equal(task.result(), expected)


@pytest.mark.parametrize("before", [None, "mine"])
def test_the_environment_is_as_before(before, monkeypatch):
    monkeypatch.delenv("RCNN_KERAS_LEAN", raising=False)
    if before:
        monkeypatch.setenv("RCNN_KERAS_LEAN", before)
    with worker_pool(1):
        assert os.environ["RCNN_KERAS_LEAN"] == "1"
    assert os.environ.get("RCNN_KERAS_LEAN") == before


SCRIPT = """
import os
import time
from rcnn_keras.proposals.workers import worker_pool

if __name__ == "__main__":
    with worker_pool(2) as pool:
        pids = {pool.submit(os.getpid).result()}
        while len(pids) < 2:
            pids |= {task.result() for task in [pool.submit(os.getpid) for _ in range(8)]}
        pool.submit(time.sleep, 300)
        print(*pids, flush=True)
        time.sleep(300)
"""


def is_running(pid):
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_workers_end_with_the_process_that_started_them(tmp_path):
    """One of them in its work, the other without any."""
    (tmp_path / "script.py").write_text(SCRIPT)
    root = Path(rcnn_keras.__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, tmp_path / "script.py"],
        env=os.environ | {"PYTHONPATH": str(root), "RCNN_KERAS_LEAN": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    pids = process.stdout.readline().split()
    assert len(pids) == 2
    assert all(map(is_running, pids))
    process.kill()
    process.wait()
    process.stdout.close()
    for _ in range(600):
        if not any(map(is_running, pids)):
            break
        time.sleep(0.05)
    assert not any(map(is_running, pids))
