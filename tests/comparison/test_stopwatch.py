import itertools

import pytest

from rcnn_keras.comparison import stopwatch as module
from rcnn_keras.comparison.files import write_json
from rcnn_keras.comparison.stopwatch import Elapsed, elapsed, stopwatch


@pytest.fixture
def clocks(monkeypatch):
    """A wall clock that goes on by 10 s at each look, and a CPU clock by 6 s."""
    wall, cpu = itertools.count(0, 10), itertools.count(0, 6)
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(wall))
    monkeypatch.setattr(module, "_cpu_seconds", lambda: next(cpu))


def test_starts_add_up_also_those_that_raise(clocks, tmp_path):
    file = tmp_path / "new" / "stopwatch.json"
    assert elapsed(file) == Elapsed()
    with stopwatch(file):
        pass
    assert elapsed(file) == Elapsed(10, 6)
    with pytest.raises(KeyboardInterrupt), stopwatch(file):
        raise KeyboardInterrupt
    assert elapsed(file) == Elapsed(20, 12)
    assert str(elapsed(file)) == "0.3 min (0.2 of CPU)"


def test_a_killed_start_is_told(clocks, tmp_path):
    file = tmp_path / "stopwatch.json"
    with stopwatch(file):
        assert elapsed(file).unfinished == 1  # what a kill would leave
        killed = {"seconds": 0.0, "cpu_seconds": 0.0, "unfinished": 1}
    write_json(file, killed)
    with stopwatch(file):
        pass
    assert elapsed(file) == Elapsed(10, 6, unfinished=1)
    assert str(elapsed(file)).startswith("at least 0.2 min")
