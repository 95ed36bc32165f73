"""Ctrl-C and SIGTERM as a request to save first."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

DEFAULTS: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
}


class StopRequest:
    """Whether somebody wants the training to end.

    Attributes:
        signal: the one that came, None if none did.
        at_once: nothing is to be saved now, so the training ends where it is.
    """

    def __init__(self, *, at_once: bool = False) -> None:
        self.signal: int | None = None
        self.at_once = at_once

    def end(self) -> NoReturn:
        """End the training as the signal would have: by KeyboardInterrupt, or SystemExit(143)."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


@contextmanager
def stop_requests(request: StopRequest) -> Iterator[None]:
    """Note Ctrl-C and SIGTERM in `request` inside the block; the second ends the process at once.

    Only Python's main thread can listen. Who listens already is left to it, unless it is another
    block of this kind around this one, which then hears nothing.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.getsignal(number) for number in DEFAULTS}
    heard = [n for n, h in before.items() if h == DEFAULTS[n] or isinstance(h, _Handler)]
    handler = _Handler(request, heard)
    for number in heard:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, before[number])


class _Handler:
    """What is called when a signal comes."""

    def __init__(self, request: StopRequest, heard: list[int]):
        self.request = request
        self.heard = heard

    def __call__(self, number: int, frame: Any) -> None:
        for each in self.heard:
            signal.signal(each, signal.SIG_DFL)
        self.request.signal = number
        if self.request.at_once:
            self.request.end()
        # Not `print`, in the middle of which the signal may have come.
        os.write(2, b"\nStopping after this step, to save. Once more ends it at once.\n")
