"""Custom gradients are collected with the graph that they were traced in."""

import gc
import weakref

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

from rcnn_keras.ops import recompute, scoped_gradients


@tf.custom_gradient
def sevenfold(x):
    """The identity, with a gradient that nothing else has."""
    return tf.identity(x), lambda upstream: 7 * upstream


def registered():
    return {name for name in gradient_registry.list() if name.startswith("CustomGradient-")}


def traced(step):
    return tf.function(step, autograph=False).get_concrete_function(tf.TensorSpec((2,)))


def test_tensorflow_keeps_the_graphs_of_custom_gradients():
    # If this fails, TensorFlow has repaired it, and `scoped_gradients` can go.
    before = registered()
    graph = weakref.ref(traced(sevenfold).graph)
    gc.collect()
    assert graph() is not None
    for name in registered() - before:
        gradient_registry._registry.pop(name)


def test_a_scoped_gradient_goes_with_its_graph():
    before = registered()
    function = traced(scoped_gradients()(sevenfold))
    graph = weakref.ref(function.graph)
    assert len(registered() - before) == 1
    del function
    gc.collect()
    assert graph() is None
    assert registered() == before


def test_recomputation_goes_with_its_graph():
    @scoped_gradients()
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = recompute(tf.square, x)
        return tape.gradient(y, x)  # registers another within the gradient

    before = registered()
    function = traced(step)
    np.testing.assert_array_equal(function(tf.constant([1.0, 2.0])), [2.0, 4.0])
    graph = weakref.ref(function.graph)
    del function
    gc.collect()
    assert graph() is None
    assert registered() == before


def test_the_gradient_of_a_scope_is_found_inside_and_after_it_by_tapes_and_graphs():
    @tf.function
    def step(x):
        with tf.GradientTape() as tape, scoped_gradients():
            tape.watch(x)
            with scoped_gradients():
                y = sevenfold(x)
            inside = tf.gradients(y, x)[0]
        return inside, tf.gradients(y, x)[0], tape.gradient(y, x)

    for gradient in step(tf.constant([1.0, 2.0])):
        np.testing.assert_array_equal(gradient, [7.0, 7.0])


def test_the_gradient_is_found_through_a_function_of_a_function_and_a_loop():
    inner = tf.function(scoped_gradients()(sevenfold))

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, inner(y)), (0, inner(x)))[1]
        return tape.gradient(y, x)

    np.testing.assert_array_equal(step(tf.constant([1.0, 2.0])), [343.0, 343.0])
