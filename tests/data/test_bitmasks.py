"""Packed masks in the graph, against numpy's packing and plain array operations."""

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.data.augmentation import (
    ColorJitter,
    Compose,
    RandomErasing,
    RandomFlip,
    RandomRotation,
    RandomTranslation,
    ScaleJitter,
)
from rcnn_keras.data.bitmasks import change_masks, mirror_masks, visible_masks
from rcnn_keras.ops.masks import pack_bits, unpack_bits

WIDTHS = [1, 7, 8, 9, 33, 64]
SHAPE = (47, 61)


def drawn(width, count=3, height=5):
    return np.random.default_rng(width).random((count, height, width)) < 0.5


def seed(number):
    return tf.constant([number, 7], tf.int64)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.float32])
def test_pack_and_unpack_are_numpys(compiled, width, dtype):
    masks = drawn(width)
    pack = compiled(pack_bits, (masks.shape, dtype))
    packed = pack(masks.astype(dtype))
    assert packed.dtype == tf.uint8
    np.testing.assert_array_equal(packed, np.packbits(masks, axis=-1))
    unpack = compiled(lambda bits: unpack_bits(bits, width), (packed.shape, tf.uint8))
    unpacked = unpack(packed)
    assert unpacked.dtype == tf.bool
    np.testing.assert_array_equal(unpacked, masks)


def test_pack_and_unpack_of_sizes_that_are_not_known():
    pack = tf.function(pack_bits, input_signature=[tf.TensorSpec((None, None), tf.bool)])
    unpack = tf.function(
        unpack_bits,
        input_signature=[tf.TensorSpec((None, None), tf.uint8), tf.TensorSpec((), tf.int32)],
    )
    for width in WIDTHS:
        mask = drawn(width)[0]
        np.testing.assert_array_equal(pack(mask), np.packbits(mask, axis=-1))
        np.testing.assert_array_equal(unpack(pack(mask), width), mask)


@pytest.mark.parametrize("width", WIDTHS)
def test_mirrored_bitmasks_are_mirrored_masks(width):
    masks = drawn(width)
    mirrored = mirror_masks(np.packbits(masks, axis=-1), tf.constant(width))
    np.testing.assert_array_equal(mirrored, np.packbits(masks[..., ::-1], axis=-1))


@pytest.mark.parametrize("count", [0, 1, 3])
def test_change_to_another_size(count):
    masks = drawn(19, count, 12)
    change = tf.function(
        lambda packed: change_masks(packed, tf.constant(19), lambda mask: mask[2:, 5:] * 0.5),
        input_signature=[tf.TensorSpec((None, None, None), tf.uint8)],
    )
    changed = change(np.packbits(masks, axis=-1))  # one half is set
    np.testing.assert_array_equal(changed, np.packbits(masks[:, 2:, 5:], axis=-1))


def test_a_mask_with_one_pixel_is_visible():
    masks = np.zeros((3, 4, 9), bool)
    masks[1, 3, 8] = True
    assert visible_masks(np.packbits(masks, axis=-1)).numpy().tolist() == [False, True, False]


def sample_of(masks, crowd=None):
    """An image whose channels are its first three masks, so that both must move alike."""
    count, height, width = masks.shape
    image = np.zeros((height, width, 3), np.float32)
    image[..., :count] = 255 * masks[:3].transpose(1, 2, 0)
    boxes = np.tile(np.float32([0, 0, width, height]), (count, 1))
    return {
        "image": tf.constant(image),
        "boxes": tf.constant(boxes),
        "labels": tf.range(count),
        "crowd": tf.constant([False] * count if crowd is None else crowd, tf.bool),
        "masks": tf.constant(np.packbits(masks, axis=-1)),
    }


def blobs():
    masks = np.zeros((3, *SHAPE), bool)
    masks[0, 3:30, 5:40] = True
    masks[0, 10:20, 10:20] = False
    masks[1, 15:45, 30:61] = np.tri(30, 31, dtype=bool)
    masks[2, 20:28, 2:58] = True
    return masks


def dense(sample):
    return np.unpackbits(sample["masks"].numpy(), axis=-1, count=sample["image"].shape[1])


@pytest.mark.parametrize(
    "augment",
    [
        RandomFlip(),
        RandomFlip(horizontal=False, vertical=True),
        RandomFlip(vertical=True),
        ScaleJitter(0.3, 2.5),
        RandomRotation(40),
        RandomTranslation(0.3),
    ],
    ids=repr,
)
def test_masks_move_as_their_image_does(augment):
    apply, moved = tf.function(augment, reduce_retracing=True), 0
    for number in range(8):
        before = sample_of(blobs())
        after = apply(before, seed(number))
        masks, labels = dense(after), after["labels"].numpy()
        assert masks.shape == (len(labels), *after["image"].shape[:2])
        image = after["image"].numpy().transpose(2, 0, 1)[labels]
        certain = np.abs(image - 127.5) > 0.1  # else rounding decides
        np.testing.assert_array_equal(masks[certain], image[certain] > 127.5)
        moved += masks.shape[1:] != SHAPE or (masks != blobs()[labels]).any()
    assert moved >= 1


@pytest.mark.parametrize("augment", [ColorJitter(), RandomErasing(1.0)], ids=repr)
def test_colours_leave_the_masks(augment):
    before = sample_of(blobs())
    after = augment(before, seed(1))
    assert (after["image"] != before["image"]).numpy().any()
    np.testing.assert_array_equal(after["masks"], before["masks"])


def test_objects_whose_mask_moves_out_of_the_image_are_dropped_and_crowds_are_not():
    masks = np.zeros((4, *SHAPE), bool)
    masks[0, 20:30, 20:40] = True
    masks[1:3, :3, :3] = True  # in a corner of its box, which is the whole image
    sample = sample_of(masks, crowd=[False, False, True, True])
    seen = [RandomTranslation(0.3)(sample, seed(number)) for number in range(12)]
    assert {tuple(one["labels"].numpy()) for one in seen} == {(0, 1, 2, 3), (0, 2, 3)}
    for one in seen:
        assert len(one["masks"]) == len(one["boxes"]) == len(one["crowd"]) == len(one["labels"])


def test_an_image_without_objects():
    augment = Compose(
        RandomFlip(vertical=True), ScaleJitter(), RandomRotation(5), RandomTranslation()
    )
    after = tf.function(augment)(sample_of(np.zeros((0, *SHAPE), bool)), seed(1))
    height, width = after["image"].shape[:2]
    assert after["masks"].shape == (0, height, -(-width // 8))
