"""What a worker is, whichever engine started it: one thread, and its work on one shard."""

import pickle
import signal
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple

import cv2

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
