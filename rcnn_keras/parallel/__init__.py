"""Work in shards, side by side: on processes of this machine or on a Ray cluster.

Workers import this package: nothing here may bring TensorFlow, so that `detect_files` is imported
when it is asked for.
"""

from typing import TYPE_CHECKING, Any

from rcnn_keras.parallel.processes import Processes
from rcnn_keras.parallel.ray import Ray
from rcnn_keras.parallel.shards import ENGINES, Engine, engine_named, run_shards

if TYPE_CHECKING:
    from rcnn_keras.parallel.folder_detection import detect_files

__all__ = ["ENGINES", "Engine", "Processes", "Ray", "detect_files", "engine_named", "run_shards"]


def __getattr__(name: str) -> Any:
    if name != "detect_files":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rcnn_keras.parallel.folder_detection import detect_files

    return detect_files


def __dir__() -> list[str]:
    return sorted(__all__)
