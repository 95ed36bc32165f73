"""What a detector computes on the way from one image to its detections, as arrays and pictures."""

from rcnn_keras.explain.explanation import (
    Explanation,
    FeatureMap,
    Input,
    Path,
    Proposals,
    RoI,
    SampledAnchors,
    SampledRoIs,
    Suppression,
    Training,
)
from rcnn_keras.explain.forward import explain

__all__ = [
    "Explanation",
    "FeatureMap",
    "Input",
    "Path",
    "Proposals",
    "RoI",
    "SampledAnchors",
    "SampledRoIs",
    "Suppression",
    "Training",
    "explain",
]
