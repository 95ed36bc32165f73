"""Drawn scenes with proposals around their objects and anywhere, and a small R-CNN."""

import keras
import numpy as np
import pytest

import rcnn_keras as rk


def with_drawn_proposals(dataset, near=4, anywhere=16):
    proposals = {}
    for record in dataset:
        rng = np.random.default_rng(record.image_id)
        around = np.repeat(record.boxes, near, axis=0)
        sides = np.tile(around[:, 2:] - around[:, :2], 2)
        around = around + rng.normal(0, 0.12, around.shape) * sides
        corners = rng.uniform(0, 96, (anywhere, 2, 2))
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        boxes = np.clip(np.concatenate([around, boxes]), 0, 96)
        proposals[record.image_id] = boxes[np.all(boxes[:, 2:] - boxes[:, :2] >= 6, axis=1)]
    return dataset.with_proposals(proposals)


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """12 images to train on and 6 others."""
    folders = [tmp_path_factory.mktemp(name) for name in ("train", "val")]
    counts = (12, 6)
    return [
        with_drawn_proposals(rk.data.draw_shapes(n, size=(96, 96), seed=seed, out=folder))
        for seed, (n, folder) in enumerate(zip(counts, folders, strict=True))
    ]


def small_rcnn(classes, **arguments):
    keras.utils.set_random_seed(0)
    small = {"crop_size": 67, "context": 6, "channels": (8, 8, 8, 8, 16), "units": 32}
    return rk.models.RCNN("alexnet", classes, **(small | arguments))


@pytest.fixture(scope="session")
def make_rcnn():
    return small_rcnn
