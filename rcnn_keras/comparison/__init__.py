"""The family side by side: four detectors trained on one data set, scored, timed and shown."""

from rcnn_keras.comparison.page import write_pages
from rcnn_keras.comparison.study import FAMILY, Settings, compare
from rcnn_keras.comparison.timing import use_threads

__all__ = ["FAMILY", "Settings", "compare", "use_threads", "write_pages"]
