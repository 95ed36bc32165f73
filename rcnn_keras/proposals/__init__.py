"""Region proposals: boxes that may hold an object, by methods that are not trained end to end.

The workers of `propose` import this package: nothing here may import TensorFlow.
"""

import importlib
from typing import Any

from rcnn_keras.proposals.objectness_cues import sample_windows
from rcnn_keras.proposals.proposal_file import (
    Proposals,
    check_proposals,
    load_proposals,
    save_proposals,
)
from rcnn_keras.proposals.propose import METHODS, propose
from rcnn_keras.proposals.selective_search import selective_search

__all__ = [
    "METHODS",
    "Objectness",
    "Proposals",
    "check_proposals",
    "load_proposals",
    "objectness_windows",
    "propose",
    "sample_windows",
    "save_proposals",
    "selective_search",
]


def __getattr__(name: str) -> Any:
    if name in ("Objectness", "objectness_windows"):  # their module imports rcnn_keras.data
        return getattr(importlib.import_module("rcnn_keras.proposals.objectness"), name)
    raise AttributeError(f"module 'rcnn_keras.proposals' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
