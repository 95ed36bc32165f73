"""The replicas of a `tf.distribute` strategy."""

import tensorflow as tf


def num_replicas():
    """Return how many replicas a step runs on, 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def is_multi_worker(strategy):
    """Return whether a strategy spans several processes."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    return strategy.cluster_resolver.cluster_spec().num_tasks("worker") > 1


def sum_over_replicas(value):
    """Return a tensor, or every tensor of a list, summed over all replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or num_replicas() == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def gather_replicas(value):
    """Return the `(n,)` tensors of all replicas as rows, `(replicas, n)`."""
    context = tf.distribute.get_replica_context()
    if context is None or num_replicas() == 1:
        return value[None]
    return context.all_gather(value[None], axis=0)
