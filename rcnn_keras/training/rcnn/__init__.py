"""R-CNN's training in three stages: fine-tuning, one SVM per class, box regression."""

from rcnn_keras.training.rcnn.stages import TrainedRCNN, train_rcnn

__all__ = ["TrainedRCNN", "train_rcnn"]
