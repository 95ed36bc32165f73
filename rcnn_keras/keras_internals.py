"""Every private name of Keras that this package uses, and why there is no public one.

`tests/test_keras_internals.py` fails when one of these names is gone or means something
else.

- `Layer._flatten_layers`: Keras 3 has no public way to the layers inside a layer that is no model
  (`submodules` is gone: https://github.com/tensorflow/tensorflow/issues/97403).
- `Layer._inbound_nodes` and `KerasTensor._keras_history`: which layer made a tensor, and which
  tensors a layer reads. Keras 3 has no public way through a graph
  (https://github.com/keras-team/keras/issues/19278); `Layer.output` gives one tensor of a layer
  that is called twice (https://github.com/keras-team/keras/issues/23238). From these the stages of
  a backbone are found, see `backbones.feature_maps`.
- `Trainer._maybe_symbolic_build` and `_make_function`: `fit` and `evaluate` fail under
  `MultiWorkerMirroredStrategy` (https://github.com/keras-team/keras/issues/20585 and 20329).
  On the first batch, Keras takes the mean of values that are no numbers, and it concatenates the
  workers' losses, which are scalars. The first of these also happens under `MirroredStrategy`.
- `Trainer._distribute_strategy`: a worker that predicts by itself has to leave the strategy, which
  Keras fixes when a model is built (https://github.com/keras-team/keras-core/pull/119).
- `Optimizer._all_reduce_sum_gradients`: optimizers clip gradients, and look for infinite ones,
  before they sum those of the replicas (https://github.com/tensorflow/tensorflow/issues/33929);
  here they are summed first. Only under replicas, and only while the gradients are applied.
- `Optimizer._get_variable_index`, `_use_weight_decay` and `_apply_weight_decay`: an optimizer has
  one rate for all variables (https://github.com/keras-team/keras/issues/21741); `VariableRates`
  multiplies it by a factor of each, also where the weights decay.
- the argument `_use_cached_eval_dataset` by which `fit` calls `evaluate` on its validation data;
  an `evaluate` of one's own cannot tell otherwise whether they are prepared
  (https://github.com/keras-team/keras/issues/16958).
- attributes of Keras' callbacks that an exact resume needs, see `CALLBACK_STATE`; Keras does not
  save them (https://github.com/keras-team/keras/issues/14862).

On one device nothing of Keras is replaced.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from rcnn_keras.ops import is_multi_worker, num_replicas

CALLED_BY_FIT = "_use_cached_eval_dataset"  # an argument of `evaluate`

# What Keras' callbacks remember from one epoch to the next.
CALLBACK_STATE: dict[type, tuple[str, ...]] = {
    keras.callbacks.EarlyStopping: ("best", "best_epoch", "best_weights", "wait", "stopped_epoch"),
    keras.callbacks.History: ("epoch", "history"),
    keras.callbacks.ModelCheckpoint: (
        *("best", "_current_epoch"),
        *("_last_batch_seen", "_batches_seen_since_last_saving"),
    ),
    keras.callbacks.ReduceLROnPlateau: ("best", "wait", "cooldown_counter"),
    keras.callbacks.SwapEMAWeights: ("_ema_weights_in_model",),
    keras.callbacks.TensorBoard: ("_global_train_batch", "_global_test_batch"),
}


def sublayers(layer: keras.layers.Layer, recursive: bool = False) -> list[keras.layers.Layer]:
    """Return the layers inside a layer; with `recursive` also those inside of these."""
    return list(layer._flatten_layers(include_self=False, recursive=recursive))


def num_calls(layer: keras.layers.Layer) -> int:
    """Return how often a layer of a functional model is called, in all models that share it."""
    return len(layer._inbound_nodes)


def input_tensors(layer: keras.layers.Layer) -> list[keras.KerasTensor]:
    """Return what a layer of a functional model reads, at its first call first; no constants."""
    nodes = layer._inbound_nodes
    return [tensor for node in nodes for tensor in keras.tree.flatten(node.input_tensors)]


def producer(tensor: keras.KerasTensor) -> keras.layers.Layer:
    """Return the layer whose output a tensor of a functional model is."""
    return tensor._keras_history.operation


class ReplicatedTraining:
    """Comes before `keras.Model` among the bases of a model whose layers are all built."""

    def _maybe_symbolic_build(self: Any, iterator: Any = None, data_batch: Any = None) -> None:
        strategy = self._distribute_strategy
        if strategy is not None and self.optimizer is not None and not self.optimizer.built:
            with strategy.scope():
                self.optimizer.build(self.trainable_variables)

    def _make_function(self: Any, step_function: Any) -> Any:
        strategy = self.distribute_strategy
        if not is_multi_worker(strategy):
            return super()._make_function(step_function)  # type: ignore[misc]

        def mean(value: Any) -> tf.Tensor:
            return strategy.reduce("MEAN", value, axis=None)

        @tf.autograph.experimental.do_not_convert
        def one_step(iterator: Any) -> Any:
            logs = strategy.run(step_function, args=(iterator.get_next(),))
            return tf.nest.map_structure(mean, logs)

        return one_step if self.run_eagerly else tf.function(one_step, reduce_retracing=True)


def apply_summed_gradients(
    optimizer: keras.optimizers.Optimizer, gradients: Iterable, weights: Iterable
) -> None:
    """Apply gradients that are summed over the replicas already, so that they are clipped as one.

    Raises:
        NotImplementedError: under replicas, if Keras does the sum elsewhere now.
    """
    pairs = zip(gradients, weights, strict=True)
    if num_replicas() == 1:
        optimizer.apply_gradients(pairs)
        return
    with _without_gradient_sum(getattr(optimizer, "inner_optimizer", optimizer)):
        optimizer.apply_gradients(pairs)


@contextmanager
def _without_gradient_sum(optimizer: Any) -> Iterator[None]:
    """Keep an optimizer from summing gradients over the replicas.

    The attribute of the instance hides the method of its class and is removed at the end. Replicas
    are traced in turns: each has set it before one of them comes to apply, and the last to end
    finds it removed.
    """
    if not hasattr(optimizer, "_all_reduce_sum_gradients"):
        raise NotImplementedError(f"keras {keras.__version__} adds up gradients in another way")
    optimizer._all_reduce_sum_gradients = list  # of pairs, which it returns as they are
    try:
        yield
    finally:
        vars(optimizer).pop("_all_reduce_sum_gradients", None)


class VariableRates:
    """Comes before a Keras optimizer among the bases: each variable has a rate of its own.

    Args:
        rate_factors: of the learning rate, for each trainable variable in the model's order; none
            is 1 for all. The decay of a weight follows its rate.
    """

    def __init__(self, *args: Any, rate_factors: Sequence[float] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rate_factors = tuple(rate_factors)

    def build(self: Any, variables: Sequence[keras.Variable]) -> None:
        """Make the optimizer's variables.

        Raises:
            ValueError: if there are more or fewer variables than factors.
        """
        if self.rate_factors and len(self.rate_factors) != len(variables):
            raise ValueError(
                f"the optimizer was built for {len(self.rate_factors)} trainable variables, and "
                f"the model has {len(variables)}: build a new optimizer after what is frozen has "
                f"changed"
            )
        super().build(variables)  # type: ignore[misc]

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Update a variable at its rate."""
        if self.rate_factors:
            learning_rate = learning_rate * self.rate_factors[self._get_variable_index(variable)]
            if self.weight_decay is not None and self._use_weight_decay(variable):
                rate = keras.ops.cast(learning_rate, variable.dtype)
                self.assign_sub(variable, variable * self.weight_decay * rate)
        super().update_step(gradient, variable, learning_rate)  # type: ignore[misc]

    def _apply_weight_decay(self: Any, variables: Any) -> None:
        if not self.rate_factors:
            super()._apply_weight_decay(variables)  # type: ignore[misc]

    def get_config(self: Any) -> dict[str, Any]:
        """Return the constructor's arguments."""
        config = super().get_config()  # type: ignore[misc]
        return config | {"rate_factors": list(self.rate_factors)}


@contextmanager
def without_strategy(model: Any) -> Iterator[None]:
    """Have a model predict on this worker's first device, whatever the others do."""
    strategy, model._distribute_strategy = model._distribute_strategy, None
    try:
        yield
    finally:
        model._distribute_strategy = strategy
