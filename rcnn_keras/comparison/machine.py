"""The machine that times are measured on, and what else it does meanwhile."""

import os
import platform
import time
from importlib import metadata
from pathlib import Path

import cv2
import tensorflow as tf

STAT, CPU_INFO = Path("/proc/stat"), Path("/proc/cpuinfo")  # of Linux
PACKAGES = ("tensorflow", "keras", "opencv-contrib-python-headless")


def use_threads(count: int) -> None:
    """Have TensorFlow and OpenCV work with so many threads.

    Raises:
        RuntimeError: if TensorFlow has begun with another number.
    """
    tf.config.threading.set_intra_op_parallelism_threads(count)
    # Operations side by side would share the same threads, and make a part's time unsteady.
    tf.config.threading.set_inter_op_parallelism_threads(1)
    cv2.setNumThreads(count)


def describe_machine(threads: int) -> str:
    """Return processor, cores, threads and the versions of the packages that are timed."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return (
        f"{_processor()}, {os.cpu_count()} cores, {threads} threads; {platform.system()}, "
        f"Python {platform.python_version()}, {versions}"
    )


def busy_share(seconds: float = 3.0) -> float | None:
    """Return how busy the cores are while this program waits, 0..1; None where nobody tells."""
    if not STAT.exists():
        return None
    before = _jiffies()
    time.sleep(seconds)
    idle, total = (after - start for after, start in zip(_jiffies(), before, strict=True))
    return 1 - idle / total if total else None


def _jiffies() -> tuple[int, int]:
    """Return the idle and all ticks of all cores since the start."""
    user, nice, system, idle, waiting, *others = map(
        int, STAT.read_text("utf-8").splitlines()[0].split()[1:9]
    )
    return idle + waiting, sum((user, nice, system, idle, waiting, *others))


def _processor() -> str:
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":")[1].strip()
    return platform.processor() or platform.machine()
