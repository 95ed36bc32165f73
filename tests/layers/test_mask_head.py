import keras
import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.backbones.trunks import mask_trunk
from rcnn_keras.layers import MaskHead, MaskLayer, RealRoIs

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def head():
    keras.utils.set_random_seed(0)
    head = MaskHead(3, mask_trunk(6, 5, 8), channels=7)
    head.build((None, 6, 6, 5))
    return head


def test_a_head_draws_twice_its_trunks_map_for_every_class(head):
    pooled = RNG.normal(size=(4, 6, 6, 5)).astype(np.float32)
    assert head(pooled).shape == head.compute_output_shape(pooled.shape) == (4, 12, 12, 3)


def test_what_follows_the_trunk_is_a_doubling_and_a_map_a_class(head, reference):
    """Each 2x2 block of a stride-2 transposed convolution sees one position of the map."""
    kernels = [RNG.normal(size=w.shape).astype(np.float32) for w in head.get_weights()[-4:]]
    doubling, bias, classes, class_bias = kernels
    head.upsample.set_weights([doubling, bias])
    head.mask_logits.set_weights([classes, class_bias])
    pooled = RNG.normal(size=(2, 6, 6, 5)).astype(np.float32)
    x = np.asarray(head.trunk(pooled), np.float64)
    up = np.zeros((2, 12, 12, 7))
    for dy in range(2):
        for dx in range(2):
            up[:, dy::2, dx::2] = np.einsum("byxi,oi->byxo", x, doubling[dy, dx]) + bias
    expected = reference.conv(np.maximum(up, 0), classes, class_bias)
    np.testing.assert_allclose(head(pooled), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", [None, "batch", "frozen_batch", "group"])
def test_a_trunk_is_four_convolutions_with_their_norm(norm, reference):
    trunk = mask_trunk(5, 32, 32, norm)
    for weight in trunk.weights:
        weight.assign(RNG.uniform(0.5, 1, weight.shape) * (0.1 if "kernel" in weight.path else 1))
    x = pooled = RNG.normal(size=(2, 5, 5, 32)).astype(np.float32)
    for number in range(1, 5):
        conv = trunk.get_layer(f"conv{number}")
        weights = conv.get_weights()
        assert len(weights) == (2 if norm is None else 1)
        x = reference.conv(x, weights[0], weights[1] if norm is None else 0)
        x = np.maximum(trunk.get_layer(f"norm{number}")(tf.cast(x, tf.float32)), 0)
    np.testing.assert_allclose(trunk(pooled), x, rtol=1e-3, atol=1e-3)


def test_detections_get_the_mask_of_their_class_and_padding_none():
    labels = np.array([(2, -1, 0), (-1, -1, -1), (1, 1, -1)], np.int32)
    logits = RNG.normal(size=(4, 5, 5, 3)).astype(np.float32)
    masks = MaskLayer()(logits, labels).numpy()
    expected = np.zeros((3, 3, 5, 5))
    for k, (at, label) in enumerate([((0, 0), 2), ((0, 2), 0), ((2, 0), 1), ((2, 1), 1)]):
        expected[at] = 1 / (1 + np.exp(-logits[k, :, :, label].astype(float)))
    np.testing.assert_allclose(masks, expected, atol=1e-6)


def test_real_rois_leave_padding_out():
    rois = RNG.normal(size=(2, 3, 4)).astype(np.float32)
    kept, image = RealRoIs()(rois, np.array([(0, -1, 4), (-1, 1, -1)], np.int32))
    np.testing.assert_array_equal(image, [0, 0, 1])
    np.testing.assert_array_equal(kept, [rois[0, 0], rois[0, 2], rois[1, 1]])


def test_without_a_detection_there_are_no_masks_and_no_error():
    labels = np.full((2, 3), -1, np.int32)
    rois, image = RealRoIs()(np.ones((2, 3, 4), np.float32), labels)
    assert len(rois) == len(image) == 1
    masks = MaskLayer()(np.ones((1, 5, 5, 2), np.float32), labels)
    np.testing.assert_array_equal(masks, np.zeros((2, 3, 5, 5)))
