"""Processes of this machine, each at work on one shard at a time.

`concurrent.futures` and loky give up every shard when a worker dies, and do not say which shard it
was at. Here one shard is lost and begun again, and a shard that kills its workers is reported.
A worker of Ray is the same: one thread, and its work on one shard.
"""

import multiprocessing
import os
import pickle
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

import cv2

from rcnn_keras.utils.quiet import quiet_import

ATTEMPTS = 3  # at a shard whose worker dies
AHEAD = 2  # shards taken up for each worker, so that none waits for the next one to be made

# One thread each, so that workers do not get in each other's way, and so that what a network gives
# does not depend on their number: TensorFlow adds up in another order on more threads.
ENVIRONMENT = {
    "RCNN_KERAS_LEAN": "1",  # the package imports its rooms late where this is set
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # several workers on one GPU
}


class Outcome(NamedTuple):
    """What became of a shard: the result, or the error that the work raised."""

    result: Any
    error: Exception | None


def outcome(work: Callable[[Any], Any], shard: Any) -> Outcome:
    """Do the work on a shard."""
    prepare()
    try:
        return Outcome(work(shard), None)
    except Exception as error:  # it is raised again where the work was given out
        return Outcome(None, _portable(error))


@cache
def prepare() -> None:
    """Make this process a worker: one thread for OpenCV, and no word of its own at Ctrl+C."""
    cv2.setNumThreads(1)
    with suppress(ValueError):  # Ray may run it on another thread, and ends its workers itself
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _portable(error: Exception) -> Exception:
    """Return an error that survives the way to another process, with its traceback as a note."""
    try:
        portable = pickle.loads(pickle.dumps(error))
    except Exception:  # an exception whose constructor takes other arguments than it keeps
        portable = None
    if type(portable) is not type(error) or str(portable) != str(error):
        portable = RuntimeError(f"{type(error).__name__}: {error}")
    portable.add_note("in a worker:\n" + "".join(traceback.format_exception(error)))
    return portable


class Processes:
    """An engine of worker processes, which start with the work and end with it.

    They are spawned, as TensorFlow's threads do not survive a fork: a script must call this below
    `if __name__ == "__main__":`. When a worker dies, another one begins its shard again.

    Args:
        workers: processes, of one thread each; by default as many as there are cores.

    Raises:
        ValueError: `workers` is below 1.
    """

    def __init__(self, workers: int | None = None):
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be at least 1, not {workers!r}")
        self.workers = workers or os.cpu_count() or 1

    def __repr__(self) -> str:
        return f"Processes({self.workers})"

    def outcomes(
        self, work: Callable[[Any], Any], shards: Iterable[Any]
    ) -> Iterator[tuple[Any, Outcome]]:
        """Give each shard with its outcome, as they come; see `run_shards`."""
        pool = _Pool(work, self.workers)
        try:
            for shard in shards:
                pool.submit(shard)
                if len(pool) >= AHEAD * self.workers:
                    yield from pool.finished()
            while len(pool):
                yield from pool.finished()
        finally:
            pool.terminate()


class _Task(NamedTuple):
    """A shard, and how often a worker died at it."""

    shard: Any
    deaths: int = 0


class _Worker(NamedTuple):
    process: Any  # multiprocessing's types for it differ by platform
    pipe: Connection


class _Pool:
    """The workers, the shard that each works on, and the shards that wait."""

    def __init__(self, work: Callable[[Any], Any], max_workers: int):
        self.work, self.max_workers = pickle.dumps(work), max_workers
        self.waiting: deque[_Task] = deque()
        self.idle: list[_Worker] = []
        self.busy: dict[Connection, tuple[_Worker, _Task]] = {}

    def __len__(self) -> int:
        """Number of shards that were submitted and are not finished."""
        return len(self.waiting) + len(self.busy)

    def submit(self, shard: Any) -> None:
        """Queue a shard."""
        self.waiting.append(_Task(shard))
        self._assign()

    def finished(self) -> Iterator[tuple[Any, Outcome]]:
        """Wait until a worker is done, or has died, and give what is finished then."""
        done = []
        for pipe in wait(list(self.busy)):
            worker, task = self.busy.pop(pipe)  # type: ignore[call-overload]
            try:
                done.append((task.shard, worker.pipe.recv()))
                self.idle.append(worker)
            except (EOFError, OSError):  # the worker's end of the pipe went with it
                self._retry(worker, task)
        self._assign()
        yield from done

    def terminate(self) -> None:
        """End the workers, also those that are at work."""
        workers = [*self.idle, *(worker for worker, _ in self.busy.values())]
        for worker in workers:
            worker.pipe.close()  # at which an idle one ends by itself
        for worker, _ in self.busy.values():
            worker.process.terminate()
        for worker in workers:
            worker.process.join()

    def _assign(self) -> None:
        while self.waiting and (self.idle or len(self.busy) < self.max_workers):
            worker = self.idle.pop() if self.idle else _start(self.work)
            task = self.waiting.popleft()
            self.busy[worker.pipe] = worker, task
            with suppress(OSError):  # it died while it was idle: `finished` finds its pipe closed
                worker.pipe.send(task.shard)

    def _retry(self, worker: _Worker, task: _Task) -> None:
        worker.process.join()
        worker.pipe.close()
        if task.deaths + 1 == ATTEMPTS:
            raise ChildProcessError(
                f"{ATTEMPTS} workers died one after the other at the same shard, the last with "
                f"exit code {worker.process.exitcode}; -9 may mean that memory ran out"
            )
        self.waiting.appendleft(task._replace(deaths=task.deaths + 1))


def _start(work: bytes) -> _Worker:
    """Start a worker for a pickled function."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(work, theirs), daemon=True)
    with _environment(ENVIRONMENT):
        process.start()
    theirs.close()  # so that its end alone is left, and closes with the worker
    return _Worker(process, ours)


def _serve(pickled: bytes, pipe: Connection) -> None:
    """Work on shards until no more come; what a worker does."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    prepare()
    with quiet_import():
        work = pickle.loads(pickled)  # imports what the function needs
    while True:
        try:
            shard = pipe.recv()
        except EOFError:
            return
        pipe.send(outcome(work, shard))


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one: killed, it cannot end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that are started in the block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
