"""Whether Keras still needs `rcnn_keras.models.distribution`."""

import sys

import pytest

from rcnn_keras.runs.launch import launch

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
    """Once this fails, the package can do without its module of that name."""
    status = launch([sys.executable, "-c", STOCK], workers=2, retries=0)
    said = capfd.readouterr().out
    assert status == 1
    assert "PerReplica" in said
