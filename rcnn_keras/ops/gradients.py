"""Custom gradients that live no longer than the graph that they were traced in.

In a graph, `tf.custom_gradient`, and `tf.recompute_grad` that is made of it, register a gradient
under a new name at each call, and TensorFlow keeps what is registered until the process ends. Each
such gradient holds its whole graph: about 50 MB stay for every small detector that was trained.
There is no public way to remove an entry; `tests/ops/test_gradients.py` fails when the private one
has changed.
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

PREFIX = "CustomGradient-"  # of the names that tf.custom_gradient makes up


@contextmanager
def scoped_gradients() -> Iterator[None]:
    """Tie the custom gradients that are traced inside to the graph that is traced.

    As a decorator, it does so at each call. In eager mode nothing is registered. Gradients that
    other threads register meanwhile are tied to this graph as well as to theirs.
    """
    if tf.executing_eagerly():
        yield
        return
    before = set(_registered())
    try:
        yield
    finally:
        graph = tf.compat.v1.get_default_graph()
        held = getattr(graph, "_rcnn_keras_gradients", [])  # graph and gradients hold each other
        new = [_weakly_registered(name) for name in set(_registered()) - before]
        graph._rcnn_keras_gradients = held + new


Gradient = Callable[..., Any]  # from an operation and the gradients of its results
_weak: dict[str, "weakref.ref[Gradient]"] = {}  # by their names


def _registered() -> list[str]:
    return [name for name in list(gradient_registry.list()) if name.startswith(PREFIX)]


def _weakly_registered(name: str) -> Gradient | None:
    """Register a gradient so that it can be collected, and return it; None if it was."""
    if name in _weak:  # by an inner scope or another thread
        return _weak[name]()
    gradient = gradient_registry.lookup(name)
    _weak[name] = reference = weakref.ref(gradient, lambda _: _forget(name))
    gradient_registry._registry.pop(name)

    @tf.RegisterGradient(name)
    def through_reference(op: tf.Operation, *upstream: tf.Tensor) -> Any:
        gradient = reference()
        if gradient is None:
            raise LookupError(f"the graph that {op.name} was traced in is gone, with its gradient")
        return gradient(op, *upstream)

    return gradient


def _forget(name: str) -> None:
    gradient_registry._registry.pop(name, None)
    _weak.pop(name, None)
