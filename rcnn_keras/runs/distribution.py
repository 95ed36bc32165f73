"""The devices and machines of a run, and which of its workers writes files.

Workers find each other by the environment variable TF_CONFIG of `tf.distribute`:
`{"cluster": {"worker": ["host:port", ..]}, "task": {"type": "worker", "index": 0}}`.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import tensorflow as tf

from rcnn_keras.ops import is_multi_worker

Distribution = Literal["auto", "none", "mirrored", "multi_worker"]


# Errors of a worker's operations after another worker is lost.
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)


class LostWorkerError(ConnectionError):
    """Another worker is lost; all have to be restarted."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h


def build_strategy(distribute: Distribution) -> tf.distribute.Strategy:
    """Return the strategy under which a model is built and trained.

    That of several workers must be created before TensorFlow computes anything, and waits for all.

    Args:
        distribute: `"none"` is one device; `"mirrored"` all GPUs of this machine, without GPUs all
            logical CPUs; `"multi_worker"` all devices of all workers of TF_CONFIG; `"auto"` is
            `"multi_worker"` if TF_CONFIG has several workers, `"mirrored"` if there are several
            GPUs, and otherwise `"none"`.

    Raises:
        ValueError: TF_CONFIG is not JSON, has other tasks than workers, or is missing if needed.
    """
    workers = _workers()
    if distribute == "auto" and len(workers) > 1:
        distribute = "multi_worker"
    if distribute == "multi_worker":
        if not workers:
            raise ValueError(
                "training.distribute = 'multi_worker': the environment variable TF_CONFIG names no "
                "workers; `rcnn launch` sets it"
            )
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(workers) > 1:
        raise ValueError(
            f"training.distribute = {distribute!r}, but TF_CONFIG names {len(workers)} workers"
        )
    if distribute == "none":
        return tf.distribute.get_strategy()
    gpus = tf.config.list_logical_devices("GPU")
    if distribute == "auto" and len(gpus) < 2:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy(gpus or tf.config.list_logical_devices("CPU"))


def writes(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process writes files: the first of several workers does."""
    return strategy.extended.should_checkpoint


def barrier(strategy: tf.distribute.Strategy) -> None:
    """Wait until all workers are here, so that all see the files that the first has written."""
    if strategy.num_replicas_in_sync > 1:
        ones = strategy.run(lambda: tf.ones([]))
        strategy.reduce("SUM", ones, axis=None)


@contextmanager
def lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Raise `LostWorkerError` for TensorFlow's errors after another worker is lost."""
    try:
        yield
    except LOST as error:
        if not is_multi_worker(strategy):
            raise
        raise LostWorkerError(f"another worker is lost: {error.message}") from error


def _workers() -> list[str]:
    """Return the addresses of all workers."""
    text = os.environ.get("TF_CONFIG", "{}")
    try:
        cluster = json.loads(text).get("cluster", {})
    except (ValueError, AttributeError) as error:
        raise ValueError(f"TF_CONFIG is not a JSON object: {text}") from error
    if other := set(cluster) - {"worker"}:
        raise ValueError(f"TF_CONFIG: the cluster has {sorted(other)}; only workers train here")
    return cluster.get("worker", [])
