"""Augmentations move keypoints with their pixels."""

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.data import (
    ColorJitter,
    Compose,
    RandomErasing,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    ScaleJitter,
)

SIZE = (90, 120)
SPOTS = np.array([[30.5, 20.5], [80.5, 60.5], [100.5, 12.5]])


def sample(points=SPOTS, visibility=2, pairs=(0, 2, 1)):
    """One object with a bright spot of its own colour at each of its keypoints."""
    image = np.zeros((*SIZE, 3), np.float32)
    for channel, (x, y) in enumerate(points):
        distance = np.hypot(np.arange(SIZE[1]) + 0.5 - x, (np.arange(SIZE[0]) + 0.5 - y)[:, None])
        image[..., channel] = np.maximum(0, 255 - 30 * distance)
    keypoints = np.concatenate([points, np.full((len(points), 1), visibility)], axis=1)
    keypoints *= visibility > 0
    return {
        "image": tf.constant(image),
        "boxes": tf.constant([[5.0, 5.0, 115.0, 85.0]]),
        "labels": tf.constant([0]),
        "crowd": tf.constant([False]),
        "keypoints": tf.constant(keypoints[None].astype("f4")),
        "mirrored_keypoints": tf.constant(pairs),
    }


def brightest(image):
    """Return where each channel is brightest, x and y."""
    found = []
    for channel in np.moveaxis(np.asarray(image), -1, 0):
        row, column = np.unravel_index(channel.argmax(), channel.shape)
        found.append((column + 0.5, row + 0.5))
    return np.array(found)


GEOMETRIC = [
    ScaleJitter(0.6, 1.5),
    RandomRotation(30.0),
    RandomTranslation(0.3),
    RandomFlip(horizontal=True, vertical=True),
    Compose(RandomFlip(), ScaleJitter(0.8, 1.2), RandomRotation(15.0)),
]


@pytest.mark.parametrize("augmentation", GEOMETRIC, ids=lambda a: type(a).__name__)
def test_keypoints_stay_on_their_spots(augmentation):
    """Numbers are those of the spots where none is mirrored; what leaves the image is dropped."""
    kept = moved = 0
    for seed in range(6):
        changed = augmentation(sample(pairs=(0, 1, 2)), tf.constant([seed, 7], tf.int64))
        keypoints = changed["keypoints"].numpy()
        if not len(keypoints):
            continue
        height, width = changed["image"].shape[:2]
        for keypoint, spot, value in zip(
            keypoints[0],
            brightest(changed["image"]),
            changed["image"].numpy().max((0, 1)),
            strict=True,
        ):
            if keypoint[2] == 0:
                assert not keypoint.any()
            elif value > 200:
                np.testing.assert_allclose(keypoint[:2], spot, atol=1.5)
                assert (keypoint[:2] <= (width, height)).all()
                kept += 1
        moved += not np.allclose(keypoints[0, :, :2], SPOTS)
    assert kept >= 6
    assert moved >= 3


@pytest.mark.parametrize(
    ("horizontal", "vertical", "swapped"),
    [(True, False, True), (False, True, True), (True, True, False)],
)
def test_a_mirror_exchanges_left_and_right(horizontal, vertical, swapped):
    """Upside down as well; both together turn the image half way round."""
    seeds = [tf.constant([seed, 1], tf.int64) for seed in range(12)]
    changed = [RandomFlip(horizontal, vertical)(sample(), seed) for seed in seeds]
    seen = set()
    for one in changed:
        keypoints = one["keypoints"].numpy()[0, :, :2]
        x_mirrored = keypoints[0, 0] != SPOTS[0, 0]
        y_mirrored = keypoints[0, 1] != SPOTS[0, 1]
        order = [0, 2, 1] if x_mirrored ^ y_mirrored else [0, 1, 2]
        expected = SPOTS[order]
        expected = np.where([x_mirrored, y_mirrored], np.array(SIZE[::-1]) - expected, expected)
        np.testing.assert_allclose(keypoints, expected)
        seen.add((bool(x_mirrored), bool(y_mirrored)))
    assert (horizontal, vertical) in seen
    assert (horizontal ^ vertical) == swapped


def test_keypoints_that_are_not_labelled_stay_zero():
    for augmentation in (*GEOMETRIC, RandomErasing(1.0)):
        changed = augmentation(sample(visibility=0), tf.constant([3, 5], tf.int64))
        assert not changed["keypoints"].numpy().any()


def test_keypoints_that_are_erased_are_hidden():
    hidden = 0
    for seed in range(8):
        before = sample()
        after = RandomErasing(1.0, area=(0.2, 0.5))(before, tf.constant([seed, 2], tf.int64))
        keypoints = after["keypoints"].numpy()[0]
        np.testing.assert_array_equal(keypoints[:, :2], SPOTS)
        pixels = after["image"].numpy() != before["image"].numpy()
        for (x, y), visibility in zip(SPOTS, keypoints[:, 2], strict=True):
            assert visibility == (1 if pixels[int(y), int(x)].any() else 2)
            hidden += visibility == 1
    assert 0 < hidden < 24


def test_colours_leave_keypoints_alone():
    before = sample()
    after = ColorJitter()(before, tf.constant([1, 2], tf.int64))
    np.testing.assert_array_equal(after["keypoints"], before["keypoints"])
