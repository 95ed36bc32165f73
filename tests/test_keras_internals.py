"""The private names of Keras that `rcnn_keras.keras_internals` relies on are still there."""

import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.keras_internals import (
    CALLBACK_STATE,
    CALLED_BY_FIT,
    VariableRates,
    apply_summed_gradients,
    input_tensors,
    num_calls,
    producer,
    sublayers,
    without_strategy,
)
from rcnn_keras.runs.launch import launch


class Pair(keras.layers.Layer):
    """A layer with layers, which is no model."""

    def __init__(self):
        super().__init__()
        self.first, self.second = keras.layers.Dense(2), keras.Sequential([keras.layers.Dense(3)])


def test_the_layers_inside_a_layer_are_found():
    pair = Pair()
    assert sublayers(pair) == [pair.first, pair.second]
    assert pair.second.layers[0] in sublayers(pair, recursive=True)
    assert pair not in sublayers(pair, recursive=True)


def test_the_layers_that_read_and_make_a_tensor_are_found():
    inputs = keras.Input((2,))
    twice = keras.layers.Dense(2)
    hidden = twice(inputs)
    again = twice(hidden)
    add = keras.layers.Add()
    total = add([hidden, again])
    model = keras.Model(inputs, total)
    assert num_calls(twice) == 2
    assert num_calls(model.layers[0]) == num_calls(add) == 1
    assert input_tensors(model.layers[0]) == []
    assert [id(x) for x in input_tensors(twice)] == [id(inputs), id(hidden)]
    assert [producer(x) for x in input_tensors(add)] == [twice, twice]
    assert producer(inputs) is model.layers[0]
    assert producer(total) is add


@pytest.mark.parametrize("name", ["_maybe_symbolic_build", "_make_function"])
def test_keras_still_calls_the_methods_that_are_overridden(name):
    called = []

    class Model(keras.Sequential):
        pass

    def method(self, *args, **kwargs):
        called.append(name)
        return getattr(super(Model, self), name)(*args, **kwargs)

    setattr(Model, name, method)
    model = Model([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((2, 1)), np.zeros((2, 1)), verbose=0)
    assert called


def test_fit_still_tells_evaluate_that_it_calls_it():
    given = []

    class Model(keras.Sequential):
        def evaluate(self, *args, **kwargs):
            given.append(kwargs)
            return super().evaluate(*args, **kwargs)

    model = Model([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = np.ones((2, 1)), np.zeros((2, 1))
    model.fit(*data, validation_data=data, verbose=0)
    assert [kwargs.get(CALLED_BY_FIT) for kwargs in given] == [True]


def test_a_model_predicts_outside_its_strategy(two_replicas):
    with two_replicas.scope():
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    assert model.distribute_strategy is two_replicas
    with without_strategy(model):
        assert model.distribute_strategy.num_replicas_in_sync == 1
    assert model.distribute_strategy is two_replicas


@pytest.mark.parametrize(("kind", "names"), CALLBACK_STATE.items())
def test_callbacks_have_the_attributes_that_a_checkpoint_keeps(kind, names, tmp_path):
    paths = {keras.callbacks.ModelCheckpoint: "a.keras", keras.callbacks.TensorBoard: "logs"}
    callback = kind(tmp_path / paths[kind]) if kind in paths else kind()
    callback.set_model(keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)]))
    callback.on_train_begin()
    callback.on_epoch_begin(0)
    assert [name for name in names if not hasattr(callback, name)] == []


def test_an_optimizer_is_as_it_was_after_a_step_on_one_device():
    weight = keras.Variable([1.0])
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build([weight])
    before = dict(vars(optimizer))
    apply_summed_gradients(optimizer, [tf.constant([0.25])], [weight])
    assert vars(optimizer) == before
    assert float(weight[0]) == 0.75


def test_an_optimizer_is_as_it_was_after_a_step_under_replicas(two_replicas):
    with two_replicas.scope():
        weight = keras.Variable([1.0])
        optimizer = keras.optimizers.SGD(1.0)
        optimizer.build([weight])
    assert "_all_reduce_sum_gradients" in dir(optimizer)
    step = tf.function(lambda: apply_summed_gradients(optimizer, [tf.constant([0.25])], [weight]))
    two_replicas.run(step)
    assert float(weight[0]) == 0.75  # not 0.5, the sum of both
    assert "_all_reduce_sum_gradients" not in vars(optimizer)


STOCK = """
import os, traceback
import keras, numpy as np, tensorflow as tf

strategy = tf.distribute.MultiWorkerMirroredStrategy()
with strategy.scope():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
data = tf.data.Dataset.from_tensor_slices((np.ones((8, 2)), np.ones((8, 1)))).batch(4)
try:
    model.fit(data, verbose=0)
except Exception as error:
    print(type(error).__name__, error, flush=True)
finally:
    os._exit(0 if model.optimizer.iterations.numpy() == 2 else 1)  # the servers may hang
"""


@pytest.mark.slow
def test_keras_cannot_fit_under_several_workers_by_itself(capfd):
    """Once this fails, `ReplicatedTraining` can go."""
    status = launch([sys.executable, "-c", STOCK], workers=2, retries=0)
    said = capfd.readouterr().out
    assert status == 1
    assert "PerReplica" in said


class Rated(VariableRates, keras.optimizers.AdamW):
    """AdamW with a rate for each variable."""


@pytest.mark.parametrize("name", ["_get_variable_index", "_use_weight_decay"])
def test_optimizers_tell_the_place_of_a_variable_and_whether_it_decays(name):
    variables = [keras.Variable(np.ones(2)), keras.Variable(np.ones(2))]
    optimizer = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    optimizer.exclude_from_weight_decay(var_list=[variables[0]])
    optimizer.build(variables)
    expected = {"_get_variable_index": [0, 1], "_use_weight_decay": [False, True]}
    assert [getattr(optimizer, name)(v) for v in variables] == expected[name]


def test_optimizers_still_decay_by_the_method_that_is_overridden():
    variable = keras.Variable(np.ones(1))
    optimizer = Rated(0.5, weight_decay=0.1, rate_factors=[0.5])
    optimizer.apply([keras.ops.zeros(1)], [variable])
    assert variable.numpy() == pytest.approx(1 - 0.5 * 0.5 * 0.1)  # once, and at its own rate
