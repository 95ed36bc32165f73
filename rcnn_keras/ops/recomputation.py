"""Run a function again for its gradient, in place of keeping what it computed on the way."""

import threading

import tensorflow as tf

_state = threading.local()  # a strategy's replicas are traced each in a thread of its own


def recompute(function, x):
    """Call a function of one tensor, whose gradient calls it once more.

    What lies between `x` and the results is not kept but computed a second time as soon as their
    gradient is there (Training Deep Nets with Sublinear Memory Cost, Chen et al. 2016).

    Args:
        function: from a tensor to tensors, in a dict or a tuple.
        x: the tensor.

    Returns:
        What `function(x)` does.
    """
    calls = 0

    def counted(x):
        nonlocal calls
        calls += 1
        before, _state.again = recomputing(), calls > 1
        try:
            return function(x)
        finally:
            _state.again = before

    return tf.recompute_grad(counted)(x)


def recomputing():
    """Return whether this is a function's second run: what a step does once is done already."""
    return getattr(_state, "again", False)
