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

    def __init__(self) -> None:
        self.signal: int | None = None
        self.at_once = False

    def end(self) -> NoReturn:
        """End the training as the signal would have: by KeyboardInterrupt, or SystemExit(143)."""
        if self.signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt


@contextmanager
def stop_requests(request: StopRequest) -> Iterator[None]:
    """Note Ctrl-C and SIGTERM in `request` inside the block; the second ends the process at once.

    Only Python's main thread can listen; and whoever listens already is left to it.
    """
    heard = []
    if threading.current_thread() is threading.main_thread():
        heard = [n for n, default in DEFAULTS.items() if signal.getsignal(n) == default]

    def note(number: int, frame: Any) -> None:
        for each in heard:
            signal.signal(each, signal.SIG_DFL)
        request.signal = number
        if request.at_once:
            request.end()
        # Not `print`, in the middle of which the signal may have come.
        os.write(2, b"\nStopping after this step, to save. Once more ends it at once.\n")

    for number in heard:
        signal.signal(number, note)
    try:
        yield
    finally:
        for number in heard:
            signal.signal(number, DEFAULTS[number])
