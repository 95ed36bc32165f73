"""Sums over the replicas of a `tf.distribute` strategy."""

import tensorflow as tf


def sum_over_replicas(value):
    """Return `value` summed over all replicas, and the number of replicas; (value, 1) without."""
    context = tf.distribute.get_replica_context()
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    if context is None or replicas == 1:
        return value, 1
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value), replicas
