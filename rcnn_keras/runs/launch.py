"""Several workers of one training on this host: start, monitor and restart them."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO

LOST = 75  # exit status of a worker that lost another one, see `LostWorkerError`

POLL = 0.2  # seconds


@dataclass(frozen=True)
class WorkerExit:
    """How a worker ended.

    Attributes:
        worker: its number.
        code: return code of `subprocess`: the exit status, or minus the signal that killed it.
    """

    worker: int
    code: int

    @property
    def status(self) -> int:
        """The exit status that a shell reports: 128 + the number of a signal."""
        return self.code if self.code >= 0 else 128 - self.code

    @property
    def is_retryable(self) -> bool:
        """Whether a restart may help: the worker was killed or lost another one.

        An error of its own, such as a wrong configuration, would occur again.
        """
        return self.code < 0 or self.code == LOST

    def __str__(self) -> str:
        cause = f"exit status {self.code}"
        if self.code < 0:
            cause = signal.Signals(-self.code).name
        return f"worker {self.worker} ended with {cause}"


def launch(
    command: Sequence[str],
    *,
    workers: int,
    retries: int = 3,
    grace: float = 10.0,
    again: Sequence[str] | None = None,
    started: Callable[[Sequence[subprocess.Popen]], None] = lambda processes: None,
) -> int:
    """Run a command as several workers on this host, until all end well.

    Each is given TF_CONFIG with free ports of 127.0.0.1 and its number, and its output lines are
    printed with the number in front. As soon as one fails the others are ended, by SIGTERM and
    after `grace` seconds by SIGKILL, because the remaining workers cannot continue. If the failed
    worker was killed, or lost another one, all are restarted. Ctrl-C and SIGTERM end all.

    Args:
        command: the program and its arguments.
        workers: number of workers.
        retries: how often all may be restarted.
        grace: seconds between SIGTERM and SIGKILL.
        again: the command of restarts, if it differs.
        started: called with the processes of each start.

    Returns:
        0, or the exit status of the worker that failed first: 128 + the number of the signal if it
        was killed, 75 if it lost another one. 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        ValueError: a number is out of range.
    """
    for name, value, minimum in (("workers", workers, 1), ("retries", retries, 0)):
        if value < minimum:
            raise ValueError(f"launch: {name} must be at least {minimum}, not {value}")
    try:
        with _sigterm_interrupts():
            for retries_left in range(retries, -1, -1):
                end = _run(command, workers, grace, started)
                if end is None:
                    return 0
                say(f"{end}; the others are ended too")
                if not retries_left or not end.is_retryable:
                    return end.status
                command = command if again is None else again
                say(f"all {workers} are restarted; {retries_left - 1} more restarts may follow")
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        say(f"{signal.Signals(number).name}: all workers are ended")
        return 128 + number
    raise AssertionError("the last start returns")


def say(text: str) -> None:
    """Print a line of the launcher itself."""
    print(f"[launch] {text}", file=sys.stderr, flush=True)


def free_ports(count: int) -> list[int]:
    """Return free ports of 127.0.0.1."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def cluster_environments(addresses: Sequence[str]) -> list[Mapping[str, str]]:
    """Return the environment variables of each worker, with the addresses of all."""
    return [
        {
            "TF_CONFIG": json.dumps(
                {
                    "cluster": {"worker": list(addresses)},
                    "task": {"type": "worker", "index": index},
                }
            ),
            "PYTHONUNBUFFERED": "1",
        }
        for index in range(len(addresses))
    ]


def _run(
    command: Sequence[str],
    workers: int,
    grace: float,
    started: Callable[[Sequence[subprocess.Popen]], None],
) -> WorkerExit | None:
    """Start all workers; return how the first one failed, None if all succeeded."""
    environments = cluster_environments([f"127.0.0.1:{port}" for port in free_ports(workers)])
    processes: list[subprocess.Popen] = []
    printers: list[threading.Thread] = []
    try:
        for index, variables in enumerate(environments):
            process = subprocess.Popen(
                list(command),
                env=os.environ | variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches only the launcher, which ends them
            )
            processes.append(process)
            assert process.stdout is not None
            printers.append(
                threading.Thread(target=_print_lines, args=(process.stdout, index), daemon=True)
            )
            printers[-1].start()
        started(processes)
        return _first_failure(processes)
    finally:
        _end(processes, grace)
        for printer in printers:
            printer.join(POLL)


def _first_failure(processes: Sequence[subprocess.Popen]) -> WorkerExit | None:
    """Wait until one has failed or all have succeeded."""
    while True:
        codes = [process.poll() for process in processes]
        exits = [WorkerExit(index, code) for index, code in enumerate(codes) if code]
        if exits:
            return min(exits, key=lambda exit: exit.code)  # a killed one makes others fail too
        if all(code == 0 for code in codes):
            return None
        time.sleep(POLL)


def _end(processes: Sequence[subprocess.Popen], grace: float) -> None:
    """End processes and their child processes by SIGTERM and then by SIGKILL."""
    for process in processes:
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(p.poll() is None for p in processes) and time.monotonic() < deadline:
        time.sleep(POLL)
    for process in processes:
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen, number: int) -> None:
    """Send a signal to a worker and its child processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # it leads its own process group


def _print_lines(stream: IO[str], index: int) -> None:
    """Print a worker's lines; once nobody reads them, take them all the same, or it would wait."""
    is_read = True
    for line in stream:
        try:
            if is_read:
                print(f"[{index}] {line}", end="", flush=True)
        except BrokenPipeError:
            is_read = False


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Let SIGTERM end the block as Ctrl-C does; possible in the main thread only."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
