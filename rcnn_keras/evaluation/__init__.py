"""Scores of detections against ground truth, and reports of them."""

from rcnn_keras.data.masks import check_segmentations
from rcnn_keras.evaluation.coco import CocoScores, coco_results

__all__ = ["CocoScores", "check_segmentations", "coco_results"]
