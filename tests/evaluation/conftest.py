"""Small datasets and detections, given as boxes."""

import numpy as np
import pytest

from rcnn_keras.data import DetectionDataset, Record
from rcnn_keras.data.detections import Detections

CLASSES = ("cat", "dog", "owl")
SIZE = (200, 200)


def rectangle(x1, y1, x2, y2):
    return [[x1, y1, x2, y1, x2, y2, x1, y2]]


class Scene:
    """A dataset of (label, box) an image, with crowd and difficult objects, and its detections."""

    def __init__(self, masks=False):
        self.records, self.detections, self.masks = [], {}, masks

    def image(self, objects=(), found=(), crowd=(), difficult=()):
        """Add an image; objects `(label, box)`, detections `(label, score, box)`."""
        number = len(self.records) + 1
        boxes = np.array([box for _, box in objects], float).reshape(-1, 4)
        not_to_find = np.isin(np.arange(len(boxes)), [*crowd, *difficult])
        hard = np.isin(np.arange(len(boxes)), difficult) if len(difficult) else None
        record = Record(
            image_id=number,
            path=f"{number}.png",
            height=SIZE[0],
            width=SIZE[1],
            boxes=boxes,
            labels=[label for label, _ in objects],
            crowd=not_to_find,
            difficult=hard,
            segmentations=tuple(rectangle(*box) for box in boxes.tolist()) if self.masks else None,
            pixels=np.full((*SIZE, 3), 90, np.uint8),
        )
        self.records.append(record)
        if len(found):
            self.detections[number] = detections(found, self.masks)
        return self

    @property
    def dataset(self):
        return DetectionDataset(self.records, CLASSES, category_ids=(3, 11, 12), name="pets")


def detections(found, masks=False, classes=CLASSES):
    labels, scores, boxes = zip(*found, strict=True)
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    full = np.ones((len(boxes), 28, 28), np.float32) if masks else None
    return Detections(
        boxes, np.array(scores, np.float32), np.array(labels, np.int32), classes, SIZE, full
    )


@pytest.fixture
def scene():
    return Scene()


@pytest.fixture
def mask_scene():
    return Scene(masks=True)


@pytest.fixture(params=[0, 1, 2])
def random_scene(request):
    """Images crowded with objects and with detections of every kind, without crowd."""
    rng = np.random.default_rng(request.param)
    scene = Scene()
    for _ in range(6):
        n = rng.integers(0, 9)
        corner = rng.uniform(0, 120, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(20, 70, (n, 2))], 1).astype("float32")
        labels = rng.integers(0, 3, n)
        around = np.repeat(np.arange(n), 3)
        moved = boxes[around] + rng.normal(0, 9, (len(around), 4))
        moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
        named = np.where(rng.uniform(size=len(around)) < 0.7, labels[around], 1)
        scores = rng.permutation(len(around)) / 40 + 0.01
        scene.image(
            list(zip(labels.tolist(), boxes.tolist(), strict=True)),
            list(zip(named.tolist(), scores.tolist(), moved.tolist(), strict=True)),
        )
    return scene
