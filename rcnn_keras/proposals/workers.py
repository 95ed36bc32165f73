"""Processes that propose boxes side by side.

A worker gets pixels and returns boxes: it imports OpenCV and the method, and no TensorFlow, which
would take seconds and hundreds of megabytes for each.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from rcnn_keras.proposals.methods import method_named

LEAN = "RCNN_KERAS_LEAN"  # the package imports its rooms late where this is in the environment


@contextmanager
def worker_pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Start processes, and end them with the block; what is not begun by then is left.

    They are spawned, as TensorFlow's threads do not survive a fork. A script that gets here must
    therefore do so below `if __name__ == "__main__":`.
    """
    before = os.environ.get(LEAN)
    os.environ[LEAN] = "1"
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=spawn, initializer=_prepare)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        del os.environ[LEAN]
        if before is not None:
            os.environ[LEAN] = before


def run_method(name: str, image: np.ndarray, arguments: dict[str, Any]) -> np.ndarray:
    """Return the boxes of an image; what a worker does."""
    return method_named(name)(image, **arguments)


def _prepare() -> None:
    """Make a new process a worker: one thread, no word of its own at Ctrl+C, no life of its own."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the end of the process that started this one: killed, it cannot end its workers."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
