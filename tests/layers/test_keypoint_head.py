"""The keypoint head: its size, and that its loss leads to the places that it is trained on."""

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.layers import KeypointHead
from rcnn_keras.losses import keypoint_head_loss, mean_over_batch
from rcnn_keras.ops import decode_heatmaps, keypoint_targets

SIDE = 56.0  # pixels of a RoI: a cell is a pixel


def spotted(rng, count):
    """Features with a bump at a random place of each of two channels, and the places."""
    points = rng.uniform(8, SIDE - 8, (count, 2, 2))
    grid = (np.arange(14) + 0.5) * SIDE / 14
    across = np.exp(-(((grid - points[..., :1]) / 5) ** 2))
    down = np.exp(-(((grid - points[..., 1:]) / 5) ** 2))
    features = down[:, :, :, None] * across[:, :, None]
    return features.transpose(0, 2, 3, 1).astype("float32"), points


def test_the_head_learns_where_its_keypoints_are():
    """On places that it has not seen, to a fifth of a cell of the features on the average."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    head, optimizer = KeypointHead(2, (16,)), keras.optimizers.Adam(0.01)
    rois = np.tile(np.float32([[0, 0, SIDE, SIDE]]), (32, 1))

    @tf.function
    def step(features, keypoints):
        with tf.GradientTape() as tape:
            targets = keypoint_targets(keypoints, rois, 56)
            loss = mean_over_batch(*keypoint_head_loss(head(features), *targets)["keypoint_loss"])
        gradients = tape.gradient(loss, head.trainable_variables)
        optimizer.apply_gradients(zip(gradients, head.trainable_variables, strict=True))
        return loss

    losses = []
    for _ in range(60):
        features, points = spotted(rng, 32)
        keypoints = np.concatenate([points, np.full((32, 2, 1), 2)], axis=2).astype("float32")
        losses.append(float(step(tf.constant(features), tf.constant(keypoints))))
    assert losses[0] > 7
    assert losses[-1] < 0.6 * losses[0]
    features, points = spotted(rng, 32)
    found = decode_heatmaps(head(features), rois).numpy()
    assert np.abs(found[..., :2] - points).mean() < 0.8
    assert found.shape == (32, 2, 3)


def test_the_map_has_four_times_the_side_of_the_features():
    head = KeypointHead(3, (4, 5))
    assert head.compute_output_shape((None, 14, 14, 8)) == (None, 56, 56, 3)
    assert head(np.zeros((2, 7, 7, 8), "float32")).shape == (2, 28, 28, 3)
    assert [conv.kernel.shape[-1] for conv in head.convs] == [4, 5]
