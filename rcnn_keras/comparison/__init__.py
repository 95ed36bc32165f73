"""The family side by side: all four detectors trained on one data set, scored, timed and shown."""

from rcnn_keras.comparison.checks import place_models
from rcnn_keras.comparison.family import FAMILY
from rcnn_keras.comparison.machine import use_threads
from rcnn_keras.comparison.page import write_pages
from rcnn_keras.comparison.settings import Settings
from rcnn_keras.comparison.study import compare

__all__ = ["FAMILY", "Settings", "compare", "place_models", "use_threads", "write_pages"]
