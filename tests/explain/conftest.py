"""A scene, and explanations that are put together by hand: pictures and pages need no model."""

from dataclasses import replace

import numpy as np
import pytest

from rcnn_keras.data import draw_shapes
from rcnn_keras.data.detections import Detections
from rcnn_keras.explain import (
    Explanation,
    FeatureMap,
    Input,
    Path,
    Proposals,
    RoI,
    SampledAnchors,
    SampledRoIs,
    Suppression,
    Training,
)

CLASSES = ("cat", "dog & <owl>")


@pytest.fixture(scope="session")
def record(tmp_path_factory):
    """A drawn scene with objects, which the models of the tests shrink and pad."""
    scenes = draw_shapes(4, size=(90, 120), seed=3, out=tmp_path_factory.mktemp("explained"))
    return next(scene for scene in scenes if len(scene) > 2)


def suppression(boxes, groups):
    """The second candidate is removed by the first, the fourth was never looked at."""
    overlaps = np.array([1, 0.8, 1, 0], np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    return Suppression(
        boxes, scores, groups, np.array([0, 0, 2, -1]), overlaps, np.array([0, 2]), 0.5, 2
    )


@pytest.fixture(scope="session")
def by_hand():
    """A Mask R-CNN's explanation of an image of 40 x 60 pixels, with two detections."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (40, 60, 3), np.uint8)
    pixels = np.zeros((64, 64, 3), np.float32)
    pixels[:40, :60] = image
    corners = np.stack(np.meshgrid(np.arange(8), np.arange(8)), axis=-1).reshape(-1, 1, 2) * 8.0
    ends = corners + np.array([10.0, 12.0])
    anchors = np.concatenate([corners - 2, ends], axis=-1).repeat(2, axis=1)
    boxes = np.array([[5, 5, 25, 30], [6, 5, 26, 30], [30, 8, 58, 36], [0, 0, 9, 9]], np.float32)
    labels = np.array([0, 0, 1, 0], np.int32)
    proposals = boxes[[0, 2]] + np.float32(2)
    kept = boxes[[0, 2]]
    found = Detections(
        kept,
        np.array([0.9, 0.7], np.float32),
        np.array([0, 1]),
        CLASSES,
        (40, 60),
        np.full((2, 28, 28), 0.75, np.float32),
    )
    places = np.linspace(0.5, 3, 14, dtype=np.float32)
    losses = {name: np.array([0.5, 0.1, 0], np.float32) for name in ("class_loss", "box_loss")}
    return Explanation(
        architecture="MaskRCNN",
        name="photos/one & two.png",
        classes=CLASSES,
        detections=found,
        input=Input(image, pixels, (40, 60), (64, 64)),
        features=(FeatureMap(rng.normal(size=(8, 8, 5)).astype("f4"), 8),),
        anchors=(anchors.reshape(-1, 4).astype("f4"),),
        objectness=(rng.uniform(size=(8, 8, 2)).astype("f4"),),
        proposals=Proposals(
            proposals,
            "the region proposal network",
            np.array([0.8, 0.6], np.float32),
            np.zeros(2, np.int32),
            proposals + np.float32(3),
            suppression(boxes + np.float32(2), np.zeros(4, np.int32)),
        ),
        rois=tuple(
            RoI(i, proposals[i], rng.normal(size=(7, 7, 5)), "RoIAlign", 0, places, places)
            for i in range(2)
        ),
        probabilities=np.array([[0.05, 0.9, 0.05], [0.2, 0.1, 0.7]], np.float32),
        paths=tuple(
            Path(proposals[i] + 3, proposals[i], kept[i], 0, 0.8, i, float(found.scores[i]), 2 * i)
            for i in range(2)
        ),
        suppressed=suppression(boxes, labels),
        masks=found.masks,
        training=Training(
            kept,
            np.array([0, 1]),
            np.array([False, True]),
            np.array([0.8, 0.7], np.float32),
            {"rpn_objectness_loss": 0.25, "class_loss": 0.2, "box_loss": 0.2},
            SampledAnchors(
                np.tile([1, 0, -1, 0], 32),
                np.tile([0, 1, 0, 0], 32),
                anchors.reshape(-1, 4)[:3],
                np.array([1, 0, 0]),
                {"rpn_objectness_loss": np.full(3, 0.25, np.float32)},
            ),
            SampledRoIs(boxes[:3], np.array([1, 0, 2]), np.array([0, 0, 1]), losses),
        ),
        score_threshold=0.05,
    )


@pytest.fixture(scope="session")
def empty(by_hand):
    """The same without detections: no class of any proposal scores enough."""
    found = by_hand.detections.take(np.zeros(2, bool))
    return replace(
        by_hand,
        detections=found,
        rois=(),
        paths=(),
        masks=found.masks,
        suppressed=Suppression(
            *(np.zeros((0, 4), "f4"), np.zeros(0, "f4"), np.zeros(0, "i4"), np.zeros(0, "i4")),
            *(np.zeros(0, "f4"), np.zeros(0, "i4"), 0.5, 2),
        ),
        training=None,
        score_threshold=0.95,
    )


@pytest.fixture(scope="session")
def without_proposals(empty):
    """A Fast R-CNN's to which nothing was proposed."""
    return replace(
        empty,
        architecture="FastRCNN",
        anchors=(),
        objectness=(),
        masks=None,
        probabilities=np.zeros((0, 3), np.float32),
        proposals=Proposals(np.zeros((0, 4), np.float32), "given beforehand"),
    )


@pytest.fixture(scope="session")
def of_crops(by_hand):
    """An R-CNN's, which has no feature map of the whole image."""
    crop = np.full((67, 67, 3), 90, np.uint8)
    return replace(
        by_hand,
        architecture="RCNN",
        features=(),
        anchors=(),
        objectness=(),
        masks=None,
        proposals=Proposals(by_hand.proposals.boxes, "given beforehand"),
        probabilities=by_hand.probabilities[:, 1:],
        rois=tuple(RoI(r.number, r.box, r.pooled, "crop", crop=crop) for r in by_hand.rois),
        paths=tuple(replace(p, anchor=None, level=None, objectness=None) for p in by_hand.paths),
        training=replace(by_hand.training, losses={}, anchors=None, rois=None),
    )
