"""Average precision of R-CNN's variants (R-CNN, table 2 and appendix B)."""

import math
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation import CocoScores
from rcnn_keras.evaluation.report.page import Section
from rcnn_keras.models import RCNN
from rcnn_keras.training.rcnn.features import FeatureExtractor

VARIANTS = {
    f"{classifier}{' + box regression' if regression else ''}": (classifier, regression)
    for classifier, regression in product(("softmax", "svm"), (False, True))
}


def error_analysis(model: RCNN, dataset: DetectionDataset) -> dict[str, dict[str, float]]:
    """Score the four variants of detection, on features computed once.

    Args:
        model: a trained model.
        dataset: images with proposals and ground truth, of the model's classes.

    Returns:
        For `"softmax"`, `"softmax + box regression"`, `"svm"` and `"svm + box regression"` the
        scores of `CocoScores.summary`: `AP50`, `AP50/<class>` and so on.
    """
    extract = FeatureExtractor(model)
    variants = {
        name: model.variant(classifier=classifier, box_regression=regression)
        for name, (classifier, regression) in VARIANTS.items()
    }
    detect = {
        name: tf.function(variant.detections_of, reduce_retracing=True)
        for name, variant in variants.items()
    }
    detections: dict[str, dict[int, Any]] = {name: {} for name in variants}
    for record in dataset:
        assert record.proposals is not None  # checked by `train_rcnn`
        first = extract(record, record.proposals)
        for name, variant in variants.items():
            outputs = tf.nest.map_structure(lambda x: x[0].numpy(), detect[name](first))
            detections[name][record.image_id] = variant._in_given_pixels(outputs, record)
    max_detections = model.detection_layer.max_detections
    scores = {name: CocoScores(dataset, detections[name], max_detections) for name in variants}
    return {name: score.summary() | _ap50(score) for name, score in scores.items()}


def _ap50(scores: CocoScores) -> dict[str, float]:
    """Return `AP50/<class>`, AP at IoU 0.5, which the paper compares."""
    curves = scores.precision_recall(0.5)
    return {f"AP50/{name}": float(precision.mean()) for name, (_, precision) in curves.items()}


def table(scores: dict[str, dict[str, float]], classes: Sequence[str]) -> list[str]:
    """Return AP50 of each class and of all, and AP, of each variant as lines of text."""
    width = max(map(len, scores))
    header = "".join(f"  {column[:10]:>10}" for column in (*classes, "AP50", "AP"))
    rows = [
        f"{variant:<{width}}" + "".join(f"  {value:10.4f}" for value in values)
        for variant, values in _rows(scores, classes)
    ]
    return [" " * width + header, *rows]


def analysis_section(scores: dict[str, dict[str, float]], classes: Sequence[str]) -> Section:
    """Return the table as a section of a report."""
    return Section(
        "Parts of R-CNN",
        "AP at IoU 0.50 of each class and their mean, and AP at IoU 0.50 to 0.95, of the softmax "
        "of fine-tuning and of the SVMs, without and with box regression; all on the same "
        "features.",
        ("scored by", *classes, "AP50", "AP"),
        [
            (variant, *("n/a" if math.isnan(value) else f"{value:.3f}" for value in values))
            for variant, values in _rows(scores, classes)
        ],
    )


def _rows(
    scores: dict[str, dict[str, float]], classes: Sequence[str]
) -> Iterator[tuple[str, list[float]]]:
    columns = (*(f"AP50/{name}" for name in classes), "AP50", "AP")
    for variant, values in scores.items():
        yield variant, [values.get(column, math.nan) for column in columns]
