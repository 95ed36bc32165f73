"""What Keras 3.15 lacks under `tf.distribute`, and how workers share reading and detecting.

- `fit` and `evaluate` under `MultiWorkerMirroredStrategy` fail
  (https://github.com/keras-team/keras/issues/20585 and 20329): looking at the first batch, Keras
  takes the mean of values that are no numbers, and joins the workers' losses, which are scalars.
  The first of these meets `MirroredStrategy` too.
- Optimizers clip gradients, and look for infinite ones, before they add up those of the replicas.

Every worker calls `fit`, `evaluate` and `predict` alike and gets the same results.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.data.pipeline import Batches
from rcnn_keras.ops import is_multi_worker


class DistributedModel:
    """Comes before `keras.Model` among the bases of a model whose layers are all built."""

    def _maybe_symbolic_build(self: Any, iterator=None, data_batch=None):
        strategy = self._distribute_strategy
        if strategy is not None and self.optimizer is not None and not self.optimizer.built:
            with strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _make_function(self: Any, step_function):
        strategy = self.distribute_strategy
        if not is_multi_worker(strategy):
            return super()._make_function(step_function)  # type: ignore[misc]

        def mean(value):
            return strategy.reduce("MEAN", value, axis=None)

        @tf.autograph.experimental.do_not_convert
        def one_step(iterator):
            logs = strategy.run(step_function, args=(iterator.get_next(),))
            return tf.nest.map_structure(mean, logs)

        return one_step if self.run_eagerly else tf.function(one_step, reduce_retracing=True)


def apply_summed(
    optimizer: keras.optimizers.Optimizer, gradients: Iterable, weights: Iterable
) -> None:
    """Apply gradients that are summed over the replicas already, so that they are clipped as one.

    Raises:
        NotImplementedError: Keras does the sum elsewhere now.
    """
    inner: Any = getattr(optimizer, "inner_optimizer", optimizer)
    if not hasattr(inner, "_all_reduce_sum_gradients"):
        raise NotImplementedError(f"keras {keras.__version__} adds up gradients in another way")
    inner._all_reduce_sum_gradients = list  # of pairs, which it returns as they are
    optimizer.apply_gradients(zip(gradients, weights, strict=True))


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
        with _alone(model):
            return predict(batches.tf_dataset())
    resolver = strategy.cluster_resolver
    workers = resolver.cluster_spec().num_tasks("worker")
    each = -(-len(batches) // workers) * batches.batch_size
    images, first = len(batches.dataset), resolver.task_id * each
    mine = copy.copy(batches)
    # A worker for which no image is left looks at one in vain, and so knows what detections are.
    mine.dataset = batches.dataset[first : first + each] or batches.dataset[:1]
    with _alone(model):
        found = predict(mine.tf_dataset())
    count = max(min(each, images - first), 0)
    return {name: _gather(strategy, rows[:count]) for name, rows in found.items()}


@contextmanager
def _alone(model: Any) -> Iterator[None]:
    """Have the model predict on this worker's first device, whatever the others do."""
    strategy, model._distribute_strategy = model._distribute_strategy, None
    try:
        yield
    finally:
        model._distribute_strategy = strategy


def _gather(strategy: tf.distribute.Strategy, rows: np.ndarray) -> np.ndarray:
    """Join the rows of all workers."""
    replicas = strategy.num_replicas_in_sync // strategy.cluster_resolver.cluster_spec().num_tasks(
        "worker"
    )
    values = strategy.experimental_distribute_values_from_function(
        lambda c: tf.constant(rows if c.replica_id_in_sync_group % replicas == 0 else rows[:0])
    )
    return strategy.gather(values, axis=0).numpy()
