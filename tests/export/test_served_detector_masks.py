"""Masks pasted in a graph beside those that `data.paste_masks` draws with OpenCV."""

import numpy as np
import tensorflow as tf

from rcnn_keras.data.masks import paste_masks as drawn
from rcnn_keras.export.served_detector import paste_masks

HEIGHT, WIDTH = 90, 130
BOXES = [
    [10.3, 5.7, 80.2, 60.1],
    [-20.0, -9.5, 30.4, 20.0],  # over two borders
    [100.0, 70.0, 129.9, 89.9],
    [50.2, 40.1, 50.9, 40.8],  # within a pixel
    [0.0, 0.0, 130.0, 90.0],
    [3.0, 3.0, 9.0, 80.0],  # smaller than the grid along one axis
]


def test_masks_are_those_of_opencv():
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 1, (len(BOXES), 7, 7, 1)).astype("f4")
    masks = tf.image.resize(coarse, (28, 28))[..., 0].numpy()
    found = {
        "boxes": np.array([BOXES, [*BOXES[:2], *np.zeros((4, 4))]], "f4"),
        "masks": np.stack([masks, np.where(np.arange(6)[:, None, None] < 2, masks, 0)]),
        "labels": np.array([[0, 1, 0, 1, 0, 1], [0, 1, -1, -1, -1, -1]]),
    }
    found = {key: tf.constant(value) for key, value in found.items()}
    ours = paste_masks(found, tf.constant(HEIGHT), tf.constant(WIDTH)).numpy()
    assert ours.shape == (2, 6, HEIGHT, WIDTH)
    assert ours.dtype == np.uint8
    theirs = drawn(masks, np.array(BOXES), (HEIGHT, WIDTH), 0.5)
    assert theirs.any(axis=(1, 2)).sum() >= 5
    assert np.count_nonzero(ours[0] != theirs) <= 2  # values that round to one half
    np.testing.assert_array_equal(ours[1, :2], ours[0, :2])
    assert not ours[1, 2:].any()


def test_no_detection_has_no_pixel():
    found = {
        "boxes": tf.zeros((1, 3, 4)),
        "masks": tf.zeros((1, 3, 14, 14)),
        "labels": tf.fill((1, 3), -1),
    }
    assert not paste_masks(found, tf.constant(8), tf.constant(9)).numpy().any()
