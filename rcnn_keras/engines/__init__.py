"""Where long work runs: cut into shards, on processes of this machine or on a Ray cluster.

Workers import this package: nothing here may bring TensorFlow.
"""

from rcnn_keras.engines.processes import Processes
from rcnn_keras.engines.ray import Ray
from rcnn_keras.engines.shards import ENGINES, Engine, engine_named, run_shards

__all__ = ["ENGINES", "Engine", "Processes", "Ray", "engine_named", "run_shards"]
