"""Run lengths decoded in the graph, against pycocotools and Pillow."""

import numpy as np
import pytest
import tensorflow as tf
from pycocotools import mask as rle

from rcnn_keras.data.bitmasks import decode_masks, encode_runs
from rcnn_keras.data.dataset import Record
from rcnn_keras.data.masks import record_masks

decode = tf.function(
    decode_masks,
    input_signature=[
        tf.RaggedTensorSpec((None, None), tf.int64, ragged_rank=1),
        tf.TensorSpec((None, 4), tf.int64),
        *[tf.TensorSpec((2,), tf.int32)] * 2,
    ],
    autograph=False,
)


def blobs(rng, count, height, width):
    """Ellipses, lines, single pixels, noise, whole images and nothing at all."""
    y, x = np.mgrid[:height, :width]
    masks = [np.zeros((height, width), bool), np.ones((height, width), bool)]
    for _ in range(count):
        cy, cx, ry, rx = rng.uniform(0, 1, 4) * [height, width, height / 2, width / 2]
        masks.append(((y - cy) / (ry + 0.6)) ** 2 + ((x - cx) / (rx + 0.6)) ** 2 <= 1)
    single = np.zeros((height, width), bool)
    single[rng.integers(height), rng.integers(width)] = True
    masks += [single, rng.random((height, width)) < 0.3, (y == height - 1) | (x == width - 1)]
    return np.stack(masks)


def ragged(codes):
    return tf.ragged.constant([runs.tolist() for runs, _ in codes], tf.int64, ragged_rank=1)


def test_runs_are_those_of_pycocotools():
    masks = blobs(np.random.default_rng(0), 3, 9, 7)
    for mask in masks:
        code = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
        code["counts"] = code["counts"].decode()
        runs, extent = encode_runs(code, 9, 7)
        assert runs.sum() == 63
        again = rle.frPyObjects({"size": [9, 7], "counts": runs.tolist()}, 9, 7)
        np.testing.assert_array_equal(rle.decode(again), mask)
        assert extent.tolist() == rle.toBbox(again).tolist()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        *(((40, 56), (40, 56)), ((40, 56), (23, 31)), ((41, 23), (100, 57)), ((30, 64), (7, 96))),
        *(((33, 9), (1, 1)), ((1, 50), (3, 5)), ((97, 64), (97, 33))),
    ],
)
def test_masks_are_those_of_pillow_to_the_bit(old, new):
    rng = np.random.default_rng(old[0] * new[1])
    assert_those_of_pillow(blobs(rng, 8, *old), old, new)


def assert_those_of_pillow(masks, old, new):
    codes = [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]
    n = len(masks)
    record = Record(1, "a", *old, np.zeros((n, 4)), np.zeros(n), np.zeros(n), tuple(codes))
    encoded = [encode_runs(code, *old) for code in codes]
    extents = np.stack([extent for _, extent in encoded])
    found = decode(ragged(encoded), extents, tf.constant(old), tf.constant(new))
    np.testing.assert_array_equal(found, record_masks(record, *new), str((old, new)))


def test_no_objects_and_objects_without_a_mask():
    size = tf.constant([6, 10])
    no_runs = tf.RaggedTensor.from_row_lengths(tf.zeros(0, tf.int64), tf.zeros(0, tf.int64))
    none = decode(no_runs, np.zeros((0, 4), int), size, size)
    assert none.shape == (0, 6, 2)
    empty = decode(tf.ragged.constant([[]], tf.int64), np.zeros((1, 4), int), size, size)
    np.testing.assert_array_equal(empty, np.zeros((1, 6, 2)))


@pytest.mark.slow
def test_masks_of_many_sizes_are_those_of_pillow():
    rng = np.random.default_rng(1)
    for _ in range(150):
        old, new = rng.integers(1, 120, 2).tolist(), rng.integers(1, 160, 2).tolist()
        assert_those_of_pillow(blobs(rng, 3, *old), old, new)
