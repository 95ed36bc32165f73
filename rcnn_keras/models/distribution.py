"""How the workers of `tf.distribute.MultiWorkerMirroredStrategy` share reading and detecting.

Every worker calls `fit`, `evaluate` and `predict` alike and gets the same results.
"""

import copy
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.data.pipeline import Batches
from rcnn_keras.keras_internals import without_strategy
from rcnn_keras.ops import is_multi_worker


def pipeline(batches: Batches, strategy: tf.distribute.Strategy, **how: Any) -> Any:
    """Return the tf.data pipeline of `Batches`, of which each worker reads its part alone.

    Args:
        batches: the whole of them.
        strategy: that of the model.
        **how: as `Batches.tf_dataset` has it.

    Raises:
        ValueError: the batches cannot be shared out evenly to the devices of all workers.
    """
    if not is_multi_worker(strategy):
        return batches.tf_dataset(**how)
    replicas = strategy.num_replicas_in_sync

    def of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        count = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * count
        part = batches.part(range(first, first + count), of=replicas).tf_dataset(**how)
        if part.cardinality() == tf.data.INFINITE_CARDINALITY:
            return part
        # Of the last batch a worker may have nothing, and Keras would end its pass one step
        # earlier than the others': a filter's length is not known beforehand.
        return part.filter(lambda *batch: True)

    return strategy.distribute_datasets_from_function(of_worker)


def predict_in_turn(
    model: keras.Model, predict: Callable[[Any], dict[str, np.ndarray]], batches: Batches
) -> dict[str, np.ndarray]:
    """Predict on whole batches, each on one worker, and give every worker all results in order.

    Args:
        model: under any strategy.
        predict: the model's, of a tf.data pipeline.
        batches: the images.
    """
    strategy = model.distribute_strategy
    if not is_multi_worker(strategy):
        return predict(batches.tf_dataset())
    if batches.shuffle or batches.augment is not None:  # depend on an image's number
        with without_strategy(model):
            return predict(batches.tf_dataset())
    resolver = strategy.cluster_resolver
    workers = resolver.cluster_spec().num_tasks("worker")
    each = -(-len(batches) // workers) * batches.batch_size
    images, first = len(batches.dataset), resolver.task_id * each
    mine = copy.copy(batches)
    # A worker for which no image is left looks at one in vain, and so knows what detections are.
    mine.dataset = batches.dataset[first : first + each] or batches.dataset[:1]
    with without_strategy(model):
        found = predict(mine.tf_dataset())
    count = max(min(each, images - first), 0)
    return {name: _gather(strategy, rows[:count]) for name, rows in found.items()}


def _gather(strategy: tf.distribute.Strategy, rows: np.ndarray) -> np.ndarray:
    """Join the rows of all workers."""
    replicas = strategy.num_replicas_in_sync // strategy.cluster_resolver.cluster_spec().num_tasks(
        "worker"
    )
    values = strategy.experimental_distribute_values_from_function(
        lambda c: tf.constant(rows if c.replica_id_in_sync_group % replicas == 0 else rows[:0])
    )
    return strategy.gather(values, axis=0).numpy()
