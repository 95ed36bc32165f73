"""Scores of detections against ground truth, and reports of them."""

from rcnn_keras.data.masks import check_segmentations
from rcnn_keras.evaluation.coco import CocoScores, coco_results
from rcnn_keras.evaluation.confusion import ConfusionMatrix
from rcnn_keras.evaluation.errors import DetectionErrors
from rcnn_keras.evaluation.keypoints import keypoint_sigmas, keypoint_similarity
from rcnn_keras.evaluation.matching import box_iou, mask_iou, proposal_recall
from rcnn_keras.evaluation.voc import VocScores

__all__ = [
    "CocoScores",
    "ConfusionMatrix",
    "DetectionErrors",
    "VocScores",
    "box_iou",
    "check_segmentations",
    "coco_results",
    "keypoint_sigmas",
    "keypoint_similarity",
    "mask_iou",
    "proposal_recall",
]
