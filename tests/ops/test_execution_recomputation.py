"""A function that is run again for its gradient."""

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import recompute, recomputing


@pytest.mark.parametrize("compiled", [False, True])
def test_the_gradient_is_the_same(compiled):
    weight = tf.Variable([1.5, -0.5])

    def function(x):
        hidden = tf.sin(x * weight)
        return {"a": tf.exp(hidden), "b": hidden**2}

    def gradients(call):
        x = tf.constant([0.3, 2.0])
        with tf.GradientTape() as tape:
            tape.watch(x)
            maps = call(x)
            loss = tf.reduce_sum(maps["a"] * [1.0, 3.0]) - tf.reduce_sum(maps["b"])
        return loss, *tape.gradient(loss, [x, weight])

    again = lambda: gradients(lambda x: recompute(function, x))  # noqa: E731
    found = tf.function(again)() if compiled else again()
    for ours, expected in zip(found, gradients(function), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6)


def test_the_second_run_knows_that_it_is_one():
    runs = []

    def function(x):
        runs.append(recomputing())
        return x**2

    x = tf.constant(3.0)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = recompute(function, x)
    assert runs == [False]
    assert tape.gradient(y, x) == 6.0
    assert runs == [False, True]
    assert not recomputing()


def test_an_error_leaves_no_trace():
    def function(x):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        recompute(function, tf.constant(1.0))
    assert not recomputing()
