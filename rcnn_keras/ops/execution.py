"""How a step runs: checks of values in the graph, recomputation, gradients, and replicas.

In a graph, `tf.custom_gradient`, and `tf.recompute_grad` that is made of it, register a gradient
under a new name at each call, and TensorFlow keeps what is registered until the process ends. Each
such gradient holds its whole graph: about 50 MB stay for every small detector that was trained.
`scoped_gradients` lets them live as long as their graph. There is no public way to remove an entry;
a test fails when the private one has changed.
"""

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

from rcnn_keras.ops.types import Tensor

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


Nest = TypeVar("Nest")  # a tensor, or tensors in tuples, lists and dicts


def check_finite(value: Tensor, message: str, details: Sequence[Tensor]) -> Tensor:
    """Return scalar `value`; raise when it is NaN or infinite.

    Args:
        value: float scalar.
        message: starts the error's text.
        details: tensors whose values follow the message, each in brackets and written whole.

    Raises:
        tf.errors.InvalidArgumentError: while the graph runs, or at once in eager mode.
    """
    data = [message, value, *details]
    if tf.executing_eagerly():
        if not tf.math.is_finite(value):
            # Eager asserts write their data in another form; one form serves who reads it.
            text = " ".join(f"[{_plain(item)}]" for item in data)
            raise tf.errors.InvalidArgumentError(None, None, f"assertion failed: {text}")
        return value
    check = tf.debugging.Assert(tf.math.is_finite(value), data, summarize=-1)
    with tf.control_dependencies([check]):
        return tf.identity(value)


def after(check: Tensor, tensors: Nest) -> Nest:
    """Return `tensors`, to be had only once `check` was computed."""
    with tf.control_dependencies([check]):
        return tf.nest.map_structure(tf.identity, tensors)


def _plain(item: Tensor | str) -> str:
    values = tf.reshape(tf.convert_to_tensor(item), [-1]).numpy().tolist()
    return " ".join(v.decode() if isinstance(v, bytes) else str(v) for v in values)


Tensors = TypeVar("Tensors")  # in a dict or a tuple

_state = threading.local()  # a strategy's replicas are traced each in a thread of its own


@scoped_gradients()
def recompute(function: Callable[[Tensor], Tensors], x: Tensor) -> Tensors:
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

    def counted(x: Tensor) -> Tensors:
        nonlocal calls
        calls += 1
        before, _state.again = recomputing(), calls > 1
        try:
            return function(x)
        finally:
            _state.again = before

    return tf.recompute_grad(counted)(x)


def recomputing() -> bool:
    """Return whether this is a function's second run: what a step does once is done already."""
    return getattr(_state, "again", False)


def num_replicas() -> int:
    """Return how many replicas a step runs on, 1 without a strategy."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def is_multi_worker(strategy: tf.distribute.Strategy) -> bool:
    """Return whether a strategy spans several processes."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return False
    return strategy.cluster_resolver.cluster_spec().num_tasks("worker") > 1


def sum_over_replicas(value: Tensors) -> Tensors:
    """Return a tensor, or every tensor of a list, summed over all replicas."""
    context = tf.distribute.get_replica_context()
    if context is None or num_replicas() == 1:
        return value
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def gather_replicas(value: Tensor) -> Tensor:
    """Return the `(n,)` tensors of all replicas as rows, `(replicas, n)`."""
    context = tf.distribute.get_replica_context()
    if context is None or num_replicas() == 1:
        return value[None]
    return context.all_gather(value[None], axis=0)
