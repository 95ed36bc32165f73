"""Average precision with and without each part (R-CNN, table 2 and appendix B)."""

from collections.abc import Sequence
from itertools import product
from typing import Any

import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation import CocoScores
from rcnn_keras.models import RCNN
from rcnn_keras.training.rcnn.features import FeatureExtractor

VARIANTS = {
    f"{classifier}{' + box regression' if moved else ''}": (classifier, moved)
    for classifier, moved in product(("softmax", "svm"), (False, True))
}


def error_analysis(model: RCNN, dataset: DetectionDataset) -> dict[str, dict[str, float]]:
    """Score the four ways from features to detections, on features computed once.

    Args:
        model: trained.
        dataset: images with proposals and ground truth, of the model's classes.

    Returns:
        For `"softmax"`, `"softmax + box regression"`, `"svm"` and `"svm + box regression"` the
        scores of `CocoScores.summary`: `AP50`, `AP50/<class>` and so on.
    """
    extract = FeatureExtractor(model)
    variants = {
        name: model.variant(classifier=classifier, box_regression=moved)
        for name, (classifier, moved) in VARIANTS.items()
    }
    detect = {
        name: tf.function(variant.second_stage, reduce_retracing=True)
        for name, variant in variants.items()
    }
    found: dict[str, dict[int, Any]] = {name: {} for name in variants}
    for record in dataset:
        assert record.proposals is not None  # `train_rcnn` saw to it
        first = extract(record, record.proposals)
        for name, variant in variants.items():
            outputs = tf.nest.map_structure(lambda x: x[0].numpy(), detect[name](first))
            found[name][record.image_id] = variant._in_given_pixels(outputs, record)
    most = model.detection_layer.max_detections
    scores = {name: CocoScores(dataset, found[name], most) for name in variants}
    return {name: score.summary() | _ap50(score) for name, score in scores.items()}


def _ap50(scores: CocoScores) -> dict[str, float]:
    """Return `AP50/<class>`: at IoU 0.5, where the paper compares."""
    curves = scores.precision_recall(0.5)
    return {f"AP50/{name}": float(precision.mean()) for name, (_, precision) in curves.items()}


def table(scores: dict[str, dict[str, float]], classes: Sequence[str]) -> list[str]:
    """Return AP50 of each variant and class as lines of text."""
    names = [f"AP50/{name}" for name in classes]
    width = max(map(len, scores))
    lines = ["  ".join([" " * width, *(f"{n[:10]:>10}" for n in (*classes, "AP50", "AP"))])]
    for variant, values in scores.items():
        columns = [values.get(name, float("nan")) for name in (*names, "AP50", "AP")]
        lines.append("  ".join([f"{variant:<{width}}", *(f"{value:10.4f}" for value in columns)]))
    return lines
