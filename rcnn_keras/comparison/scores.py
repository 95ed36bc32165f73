"""AP of a detector as COCO and as Pascal VOC 2007 count it, from the same detections."""

import math

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.evaluation import VocScores
from rcnn_keras.models import Detector
from rcnn_keras.runs.scoring import evaluate

NAMES = ("AP", "AP50", "mask_AP", "mask_AP50")


def score(model: Detector, dataset: DetectionDataset) -> dict[str, float | None]:
    """Return `AP`, `AP50`, `voc07` (mAP of 11 points at IoU 0.5), and the first two of masks."""
    evaluation = evaluate(model, dataset)
    summary = evaluation.summary()
    found = {name: summary[name] for name in NAMES if name in summary}
    found["voc07"] = VocScores(dataset, evaluation.results, protocol="voc07").summary()["mAP"]
    return {name: None if math.isnan(value) else value for name, value in found.items()}
