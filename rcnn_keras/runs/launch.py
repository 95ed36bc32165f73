"""Several workers of one training on this host: started, watched, and all started again."""

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
from typing import IO

LOST = 75  # exit status of a worker whose fellow is gone, see `LostWorkerError`

POLL = 0.2  # seconds


@dataclass(frozen=True)
class End:
    """How a worker ended.

    Attributes:
        worker: its number.
        code: as `subprocess` has it: the exit status, or minus the signal that killed it.
    """

    worker: int
    code: int

    @property
    def status(self) -> int:
        """The exit status that a shell would give: 128 and the number of a signal."""
        return self.code if self.code >= 0 else 128 - self.code

    @property
    def may_pass(self) -> bool:
        """Whether it may go well another time: not what the worker ended with an error of its own.

        A configuration that is wrong is wrong the next time too.
        """
        return self.code < 0 or self.code == LOST

    def __str__(self) -> str:
        how = f"exit status {self.code}"
        if self.code < 0:
            how = signal.Signals(-self.code).name
        return f"worker {self.worker} ended with {how}"


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

    Each gets TF_CONFIG with free ports of 127.0.0.1 and its number, and its lines are printed with
    the number before them. As soon as one ends badly the others are ended, by SIGTERM and after
    `grace` seconds by SIGKILL: what is left of a job cannot go on. If the one was killed, or lost
    another, all are started again. Ctrl-C and SIGTERM end all.

    Args:
        command: the program and its arguments.
        workers: how many.
        retries: how often all may be started again.
        grace: seconds.
        again: the command of later starts, if it is another.
        started: is called with the processes of each start.

    Returns:
        0, or the exit status of the worker that ended badly first: 128 and the number of the signal
        if it was killed, 75 if it lost another. 130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        ValueError: a number is out of range.
    """
    for name, value, least in (("workers", workers, 1), ("retries", retries, 0)):
        if value < least:
            raise ValueError(f"launch: {name} must be at least {least}, not {value}")
    try:
        with _sigterm_interrupts():
            for left in range(retries, -1, -1):
                end = _run(command, workers, grace, started)
                if end is None:
                    return 0
                say(f"{end}; the others are ended too")
                if not left or not end.may_pass:
                    return end.status
                command = command if again is None else again
                say(f"all {workers} are started again; {left - 1} more times may follow")
    except KeyboardInterrupt as interrupt:
        number = interrupt.args[0] if interrupt.args else signal.SIGINT
        say(f"{signal.Signals(number).name}: all workers are ended")
        return 128 + number
    raise AssertionError("the last start returns")


def say(text: str) -> None:
    """Print a line of the launcher's own."""
    print(f"[launch] {text}", file=sys.stderr, flush=True)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 on which nobody listens."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def cluster_environments(addresses: Sequence[str]) -> list[Mapping[str, str]]:
    """Return for each worker the variables that tell it of all."""
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
) -> End | None:
    """Start all workers and return the bad end of the first, None if all ended well."""
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
                start_new_session=True,  # Ctrl-C reaches the launcher alone, which ends them
            )
            processes.append(process)
            assert process.stdout is not None
            printers.append(
                threading.Thread(target=_print_lines, args=(process.stdout, index), daemon=True)
            )
            printers[-1].start()
        started(processes)
        return _first_bad_end(processes)
    finally:
        _end(processes, grace)
        for printer in printers:
            printer.join(POLL)


def _first_bad_end(processes: Sequence[subprocess.Popen]) -> End | None:
    """Wait until all have ended well or one has not."""
    while True:
        codes = [process.poll() for process in processes]
        ends = [End(index, code) for index, code in enumerate(codes) if code]
        if ends:
            return min(ends, key=lambda end: end.code)  # one that was killed took others with it
        if all(code == 0 for code in codes):
            return None
        time.sleep(POLL)


def _end(processes: Sequence[subprocess.Popen], grace: float) -> None:
    """End processes, and all that they have started, by SIGTERM and then by SIGKILL."""
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
    """Send a signal to a worker and the processes that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)  # it leads a group of its own


def _print_lines(stream: IO[str], index: int) -> None:
    for line in stream:
        print(f"[{index}] {line}", end="", flush=True)


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Have SIGTERM end the block as Ctrl-C does; only the main thread can listen."""

    def interrupt(number, frame):
        raise KeyboardInterrupt(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
