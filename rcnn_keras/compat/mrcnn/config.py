"""`mrcnn.config`: the settings of a model and its training."""

from typing import Any, ClassVar

import numpy as np

from rcnn_keras.convert.matterport_config import settings_of


class Config:
    """The settings, to be changed in a subclass; names and defaults are matterport's.

    Attributes:
        BATCH_SIZE: `IMAGES_PER_GPU * GPU_COUNT`, of the instance, like the two below.
        IMAGE_SHAPE: `(3,)` of the images that the network sees.
        IMAGE_META_SIZE: numbers in an image's meta data.
    """

    NAME: str | None = None
    GPU_COUNT = 1
    IMAGES_PER_GPU = 2
    STEPS_PER_EPOCH = 1000
    VALIDATION_STEPS = 50
    BACKBONE: Any = "resnet101"
    COMPUTE_BACKBONE_SHAPE: Any = None
    BACKBONE_STRIDES: ClassVar[Any] = [4, 8, 16, 32, 64]
    FPN_CLASSIF_FC_LAYERS_SIZE = 1024
    TOP_DOWN_PYRAMID_SIZE = 256
    NUM_CLASSES = 1  # with the background
    RPN_ANCHOR_SCALES: Any = (32, 64, 128, 256, 512)
    RPN_ANCHOR_RATIOS: ClassVar[Any] = [0.5, 1, 2]
    RPN_ANCHOR_STRIDE = 1
    RPN_NMS_THRESHOLD = 0.7
    RPN_TRAIN_ANCHORS_PER_IMAGE = 256
    PRE_NMS_LIMIT = 6000
    POST_NMS_ROIS_TRAINING = 2000
    POST_NMS_ROIS_INFERENCE = 1000
    USE_MINI_MASK = True
    MINI_MASK_SHAPE: Any = (56, 56)
    IMAGE_RESIZE_MODE = "square"
    IMAGE_MIN_DIM = 800
    IMAGE_MAX_DIM = 1024
    IMAGE_MIN_SCALE: float = 0
    IMAGE_CHANNEL_COUNT = 3
    MEAN_PIXEL: Any = np.array([123.7, 116.8, 103.9])
    TRAIN_ROIS_PER_IMAGE = 200
    ROI_POSITIVE_RATIO = 0.33
    POOL_SIZE = 7
    MASK_POOL_SIZE = 14
    MASK_SHAPE: ClassVar[Any] = [28, 28]
    MAX_GT_INSTANCES = 100
    RPN_BBOX_STD_DEV: Any = np.array([0.1, 0.1, 0.2, 0.2])
    BBOX_STD_DEV: Any = np.array([0.1, 0.1, 0.2, 0.2])
    DETECTION_MAX_INSTANCES = 100
    DETECTION_MIN_CONFIDENCE = 0.7
    DETECTION_NMS_THRESHOLD = 0.3
    LEARNING_RATE = 0.001
    LEARNING_MOMENTUM = 0.9
    WEIGHT_DECAY = 0.0001
    LOSS_WEIGHTS: ClassVar[Any] = {
        "rpn_class_loss": 1.0,
        "rpn_bbox_loss": 1.0,
        "mrcnn_class_loss": 1.0,
        "mrcnn_bbox_loss": 1.0,
        "mrcnn_mask_loss": 1.0,
    }
    USE_RPN_ROIS = True
    TRAIN_BN: bool | None = False
    GRADIENT_CLIP_NORM = 5.0

    def __init__(self) -> None:
        self.BATCH_SIZE = self.IMAGES_PER_GPU * self.GPU_COUNT
        side = self.IMAGE_MIN_DIM if self.IMAGE_RESIZE_MODE == "crop" else self.IMAGE_MAX_DIM
        self.IMAGE_SHAPE = np.array([side, side, self.IMAGE_CHANNEL_COUNT])
        # Image id, original shape, shape, window, scale, and which classes are active.
        self.IMAGE_META_SIZE = 1 + 3 + 3 + 4 + 1 + self.NUM_CLASSES

    def to_dict(self) -> dict[str, Any]:
        """Return all settings by name."""
        return settings_of(self)

    def display(self) -> None:
        """Print all settings."""
        print("\nConfigurations:")
        for name, value in sorted(self.to_dict().items()):
            print(f"{name:30} {value}")
        print()
