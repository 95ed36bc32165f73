"""How long something took that may have been stopped and gone on."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rcnn_keras.comparison.files import write_json


@dataclass(frozen=True)
class Elapsed:
    """Wall-clock and CPU seconds of all starts, but for the `unfinished` that were killed."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    unfinished: int = 0

    def __str__(self) -> str:
        """Minutes, as the page shows them."""
        least = "at least " if self.unfinished else ""
        return f"{least}{self.seconds / 60:.1f} min ({self.cpu_seconds / 60:.1f} of CPU)"


def elapsed(file: Path) -> Elapsed:
    """Return what a file of `stopwatch` says, nothing if there is none."""
    return Elapsed(**json.loads(file.read_text("utf-8"))) if file.exists() else Elapsed()


@contextmanager
def stopwatch(file: Path) -> Iterator[None]:
    """Add the wall-clock time of a block to a file.

    A block that raises is counted; one that is killed leaves `unfinished` behind.
    """
    before, start, cpu_start = elapsed(file), time.perf_counter(), _cpu_seconds()
    write_json(file, asdict(replace(before, unfinished=before.unfinished + 1)))
    try:
        yield
    finally:
        seconds = before.seconds + time.perf_counter() - start
        cpu_seconds = before.cpu_seconds + _cpu_seconds() - cpu_start
        write_json(file, asdict(Elapsed(seconds, cpu_seconds, before.unfinished)))


def _cpu_seconds() -> float:
    """Return what all threads have worked so far, and processes that ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
