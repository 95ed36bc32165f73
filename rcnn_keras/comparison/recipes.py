"""How each detector of the comparison is built and trained, small enough for an ordinary computer.

Fast, Faster and Mask R-CNN share one network, so that what differs between them is what their
papers changed. R-CNN takes crops and no maps, and has an AlexNet of a third of the channels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from rcnn_keras.comparison.family import FAMILY
from rcnn_keras.comparison.settings import Settings
from rcnn_keras.models import RCNN
from rcnn_keras.runs.configuration import Configuration, validate
from rcnn_keras.runs.document import Document

BACKBONE = "resnet18_fpn"
FPN_CHANNELS = 64
UNITS = 256  # of fc6 and fc7
TORCHVISION_SIZE, TORCHVISION_ANCHORS = 800, (32, 64, 128, 256, 512)
ALEXNET: dict[str, Any] = {
    "crop_size": 127,
    "context": 9,
    "channels": (32, 64, 96, 96, 64),
    "units": 256,
}
BATCH_SIZE = 4
RATE, WARM_UP = 0.01, 100  # of R-CNN's fine-tuning


def configuration(
    name: str,
    settings: Settings,
    train: dict[str, Any],
    val: dict[str, Any],
    classes: Sequence[str],
) -> Configuration:
    """Return the training run of a member of the family other than R-CNN.

    Args:
        name: its place in `FAMILY`.
        settings: of the comparison.
        train: `annotations`, `images` and `proposals`, files of the training data.
        val: the same of what is scored.
        classes: their order.
    """
    member = FAMILY[name]
    architecture = {"FastRCNN": "fast_rcnn", "FasterRCNN": "faster_rcnn", "MaskRCNN": "mask_rcnn"}
    model: dict[str, Any] = {
        "architecture": architecture[member.model.__name__],
        "backbone": BACKBONE,
        "min_size": settings.min_size,
        "max_size": 2 * settings.min_size,
        "antialias": True,
        "fpn_channels": FPN_CHANNELS,
        "box_units": UNITS,
        "box_batch_size_per_image": 64,
    }
    if member.model.takes_proposals:
        model |= {"roi_pooling": "align"}
    else:
        model |= {"anchor_sizes": anchors(settings.min_size)}
        train, val = (part | {"proposals": None} for part in (train, val))
    training: dict[str, Any] = {"epochs": settings.epochs, "seed": settings.seed}
    if member.alternating:
        epochs = max(1, settings.epochs // 2)
        training |= {"epochs": epochs, "alternating": {"detector_epochs": epochs}}
    else:
        training["evaluate_every"] = settings.epochs
    values = {
        "model": model,
        "data": {
            "format": "coco",
            "train": [train],
            "val": [val],
            "classes": list(classes),
            "batch_size": BATCH_SIZE,
            "augment": [{"RandomFlip": {"horizontal": True, "vertical": True}}],
            "max_proposals": settings.most_proposals,
        },
        "optimizer": {"name": "adamw", "learning_rate": 0.001, "weight_decay": 0.01},
        "schedule": {"name": "cosine", "warmup_steps": 50, "warmup_factor": 0.01},
        "training": training,
    }
    return validate(Document(Path("rcnn compare"), values))


def anchors(min_size: int) -> list[list[float]]:
    """Return torchvision's anchors, a size a level, for images of another size."""
    return [[float(round(min_size / TORCHVISION_SIZE * size))] for size in TORCHVISION_ANCHORS]


def small_rcnn(classes: Sequence[str], seed: int) -> RCNN:
    """Return the R-CNN of the comparison with weights that are drawn."""
    keras.utils.set_random_seed(seed)
    return RCNN("alexnet", classes, **ALEXNET)


def rcnn_rate(steps: int) -> keras.optimizers.schedules.LearningRateSchedule:
    """Return the learning rate of R-CNN's fine-tuning, here from weights that are drawn."""
    warm_up = min(WARM_UP, steps - 1)
    return keras.optimizers.schedules.CosineDecay(
        0.0, steps - warm_up, warmup_target=RATE, warmup_steps=warm_up
    )
