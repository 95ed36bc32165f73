"""Region proposals: boxes that may hold an object, by methods that are not learnt end to end.

The workers of `propose` import this package: nothing here may bring TensorFlow.
"""

from rcnn_keras.proposals.methods import METHODS
from rcnn_keras.proposals.proposal_file import (
    Proposals,
    check_proposals,
    load_proposals,
    save_proposals,
)
from rcnn_keras.proposals.selective_search import selective_search
from rcnn_keras.proposals.whole_set import propose

__all__ = [
    "METHODS",
    "Proposals",
    "check_proposals",
    "load_proposals",
    "propose",
    "save_proposals",
    "selective_search",
]
