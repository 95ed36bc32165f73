"""A detector's outputs for the images of a dataset, one after the other, none of them kept."""

from collections.abc import Iterator
from weakref import WeakSet

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.data.inputs import input_batches
from rcnn_keras.data.pipeline import Batches
from rcnn_keras.models.errors import plain_errors

_traced: WeakSet = WeakSet()  # the models' predict functions that take images of any size


def predictions(model: keras.Model, batches: Batches) -> Iterator[dict[str, np.ndarray]]:
    """Yield the padded detections of each image, without its place in the batch.

    Args:
        model: the detector; its network is traced once, for images of every number and size.
        batches: the images, sized for the model.

    Raises:
        ImageError: for an image that cannot be read; names it.
    """
    with plain_errors():
        if model.distribute_strategy.num_replicas_in_sync > 1:  # they share what `predict` reads
            yield from _each(model.predict(batches, verbose=0))
            return
        for inputs in input_batches(batches):
            _trace(model, inputs)
            yield from _each(model.predict_on_batch(inputs))


def _each(found: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    for i in range(len(found["boxes"])):
        yield {name: values[i] for name, values in found.items()}


def _trace(model: keras.Model, inputs: dict[str, np.ndarray]) -> None:
    """Trace for inputs of any size; Keras traces for each new one until it knows better."""
    model.make_predict_function()
    function = model.predict_function
    if function in _traced or not isinstance(function, tf.types.experimental.PolymorphicFunction):
        return  # the latter if the model runs eagerly
    spec = {
        name: tf.TensorSpec((None, *[None] * (value.ndim - 2), *value.shape[1:][-1:]), value.dtype)
        for name, value in inputs.items()
    }
    function.get_concrete_function([(spec,)])
    _traced.add(function)
