"""Scores of detections against ground truth, and reports of them."""

from rcnn_keras.evaluation.coco import CocoScores, check_segmentations, coco_results

__all__ = ["CocoScores", "check_segmentations", "coco_results"]
