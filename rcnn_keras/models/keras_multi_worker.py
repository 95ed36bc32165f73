"""What Keras 3.15 lacks under `tf.distribute`, until it has it.

- `fit` and `evaluate` under `MultiWorkerMirroredStrategy` fail
  (https://github.com/keras-team/keras/issues/20585 and 20329): looking at the first batch, Keras
  takes the mean of values that are no numbers, and joins the workers' losses, which are scalars.
  The first of these meets `MirroredStrategy` too.
- Optimizers clip gradients, and look for infinite ones, before they add up those of the replicas.

`tests/models/test_keras_multi_worker.py` fails when Keras no longer needs this module.
"""

from collections.abc import Iterable
from typing import Any

import keras
import tensorflow as tf

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
