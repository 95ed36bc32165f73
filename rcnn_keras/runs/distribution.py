"""On which devices and machines a run trains, and who of its workers writes.

Workers know each other by the environment variable TF_CONFIG, as `tf.distribute` has it:
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


# What the operations of a worker end with whose fellow is gone.
LOST = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.UnavailableError,
    tf.errors.UnknownError,
)


class LostWorkerError(ConnectionError):
    """Another worker is gone, so that all have to be started again."""

    exit_status = 75  # EX_TEMPFAIL of sysexits.h


def build_strategy(distribute: Distribution) -> tf.distribute.Strategy:
    """Return the strategy to build and train a model under.

    That of several workers must be made before TensorFlow computes anything, and waits for all.

    Args:
        distribute: `"none"` is one device; `"mirrored"` all GPUs of this machine, without GPUs all
            logical CPUs; `"multi_worker"` all devices of all workers of TF_CONFIG; `"auto"` is
            `"multi_worker"` where TF_CONFIG has several workers, `"mirrored"` where there are
            several GPUs, and else `"none"`.

    Raises:
        ValueError: TF_CONFIG is not JSON, or not of workers alone, or missing where it is needed.
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


def meet(strategy: tf.distribute.Strategy) -> None:
    """Wait for all workers to come here, so that what the first has written is there for all."""
    if strategy.num_replicas_in_sync > 1:
        ones = strategy.run(lambda: tf.ones([]))
        strategy.reduce("SUM", ones, axis=None)


@contextmanager
def lost_workers(strategy: tf.distribute.Strategy) -> Iterator[None]:
    """Turn what TensorFlow raises when another worker is gone into a `LostWorkerError`."""
    try:
        yield
    except LOST as error:
        if not is_multi_worker(strategy):
            raise
        raise LostWorkerError(f"another worker is gone: {error.message}") from error


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
