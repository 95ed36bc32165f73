"""The portable variants against the kernels that they stand for, which have tests of their own."""

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import (
    flatten_batch,
    grouped_nms,
    in_chunks,
    in_equal_chunks,
    listed_roi_align,
    listed_roi_pool,
    nms,
    portable_roi_align,
    portable_roi_pool,
    portable_warp_regions,
    warp_regions,
)

STRIDES = (4, 8, 16)
SIDE = 512  # of the image, in pixels


def random_map(rng, *shape):
    return rng.normal(size=shape).astype("float32")


def boxes_of(rng, n, kind):
    """RoIs of all sizes, in the image and over its border."""
    corner = rng.uniform(-40, SIDE, (n, 2))
    side = np.exp(rng.uniform(np.log(1), np.log(SIDE), (n, 2)))
    boxes = np.concatenate([corner, corner + side], axis=1).astype("float32")
    if kind == "small":  # two of three levels have none
        boxes[:, 2:] = boxes[:, :2] + 10
    elif kind == "no area":
        boxes[::2, 2:] = boxes[::2, :2]
    elif kind == "zeros":  # as padding is
        boxes[:] = 0
    elif kind == "borders of levels":
        boxes[:, 2:] = boxes[:, :2] + np.resize(np.float32([56, 112, 224, 448]), n)[:, None]
    return boxes


KINDS = ("random", "small", "no area", "zeros", "borders of levels")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("ratio", "aligned"), [(2, False), (1, True), (0, False), (0, True)])
def test_portable_roi_align_equals_the_native_one(kind, ratio, aligned):
    rng = np.random.default_rng(ratio)
    maps = [random_map(rng, 2, SIDE // s, SIDE // s + 3, 5) for s in STRIDES]
    rois, image = boxes_of(rng, 40, kind), rng.integers(0, 2, 40).astype("int32")
    how = (3, [1 / s for s in STRIDES], ratio, aligned)
    expected = listed_roi_align(maps, rois, image, *how)
    np.testing.assert_allclose(portable_roi_align(maps, rois, image, *how), expected, atol=1e-4)
    # An aligned RoI without an area has no samples where their number follows its size.
    empty = kind == "zeros" and ratio == 0 and aligned
    assert np.abs(expected).max() == 0 if empty else np.abs(expected).max() > 0.1


def test_roi_align_of_one_map_and_of_nothing():
    rng = np.random.default_rng(0)
    maps, image = [random_map(rng, 2, 9, 12, 5)], np.int32([1, 0, 1])
    rois = boxes_of(rng, 3, "random") / 8
    expected = listed_roi_align(maps, rois, image, 2, [1 / 8])
    np.testing.assert_allclose(
        portable_roi_align(maps, rois, image, 2, [1 / 8]), expected, atol=1e-4
    )
    assert portable_roi_align(maps, rois[:0], image[:0], 2, [1 / 8]).shape == (0, 2, 2, 5)
    assert portable_roi_align(maps, rois[:0], image[:0], 2, [1 / 8], 0).shape == (0, 2, 2, 5)


def test_gradients_of_roi_align_agree():
    rng = np.random.default_rng(3)
    maps = [tf.constant(random_map(rng, 1, SIDE // s, SIDE // s, 2)) for s in STRIDES]
    rois, image = boxes_of(rng, 20, "random"), np.zeros(20, "int32")
    weights = random_map(rng, 20, 3, 3, 2)
    gradients = []
    for pool in (listed_roi_align, portable_roi_align):
        with tf.GradientTape() as tape:
            tape.watch(maps)
            pooled = pool(maps, rois, image, 3, [1 / s for s in STRIDES])
            total = tf.reduce_sum(pooled * weights)
        gradients.append([tf.convert_to_tensor(g) for g in tape.gradient(total, maps)])
    for ours, theirs in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 3, 7])
def test_portable_roi_pool_equals_the_native_one(kind, size):
    rng = np.random.default_rng(size)
    features = random_map(rng, 2, 33, 20, 4) - 3  # an empty cell is 0, not its maximum
    rois, image = boxes_of(rng, 60, kind), rng.integers(0, 2, 60).astype("int32")
    rois[-1] = [-2000, -3000, 5000, 4000]
    expected = listed_roi_pool(features, rois, image, size, 1 / 16)
    found = portable_roi_pool(tf.constant(features), rois, image, size, 1 / 16)
    np.testing.assert_array_equal(found, expected)


def test_roi_pool_of_every_side_has_the_cells_of_the_native_one():
    """The quotients that decide the cells' borders, whatever a compiler makes of a division."""
    rng = np.random.default_rng(0)
    features = tf.constant(random_map(rng, 1, 1, 700, 1))
    rois = np.float32([[0, 0, side, 0] for side in range(700)])
    image = np.zeros(700, "int32")
    for size in (3, 7):
        expected = listed_roi_pool(features, rois, image, size, 1.0)
        np.testing.assert_array_equal(portable_roi_pool(features, rois, image, size, 1.0), expected)


def test_roi_pool_of_a_map_of_unknown_size():
    rng = np.random.default_rng(0)
    features, rois = random_map(rng, 1, 9, 8, 2), boxes_of(rng, 5, "random") / 8
    image = np.zeros(5, "int32")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2))], autograph=False)
    def pool(features):
        return portable_roi_pool(features, rois, image, 2, 1 / 8)

    np.testing.assert_array_equal(pool(features), listed_roi_pool(features, rois, image, 2, 1 / 8))


def test_portable_warps_equal_the_native_ones():
    rng = np.random.default_rng(0)
    images = rng.uniform(0, 255, (2, 50, 60, 3)).astype("float32")
    sizes, image = np.int32([[50, 60], [31, 44]]), rng.integers(0, 2, 30).astype("int32")
    rois = boxes_of(rng, 30, "no area") / 10
    expected = warp_regions(images, sizes, rois, image, 11, 2)
    found = portable_warp_regions(images, sizes, rois, image, 11, 2)
    np.testing.assert_allclose(found, expected, atol=2e-2)  # of 255
    assert (expected.numpy() == 0).any()


AWKWARD = {
    "random": lambda boxes, scores: (boxes, scores),
    "equal scores": lambda boxes, scores: (boxes, scores * 0 + 0.5),
    "few scores": lambda boxes, scores: (boxes, np.round(scores * 3) / 3),
    "identical": lambda boxes, scores: (np.tile(boxes[:, :8], (1, 10, 1)), scores),
    "whole pixels": lambda boxes, scores: (np.round(boxes / 20) * 20 + [0, 0, 1, 1], scores),
    "no score": lambda boxes, scores: (boxes, scores - np.inf),
}


@pytest.mark.parametrize("awkward", AWKWARD)
@pytest.mark.parametrize("images", [1, 2])
def test_portable_nms_equals_the_native_one(awkward, images):
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 100, (images, 80, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 60, low.shape)], -1).astype("float32")
    scores = rng.uniform(size=(images, 80)).astype("float32")
    boxes, scores = (x.astype("float32") for x in AWKWARD[awkward](boxes, scores))
    groups = np.arange(80) % 3
    for threshold, most, least in ((0.5, 100, 0.2), (0.0, 9, -1e30), (1.0, 80, 0.5)):
        for run in (nms, lambda b, s, *rest: grouped_nms(b, s, groups, *rest)):
            ours = run(boxes, scores, threshold, most, least, "portable")
            theirs = run(boxes, scores, threshold, most, least)
            for x, y in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(x, y)


@pytest.mark.slow
def test_xla_computes_the_same():
    """All of them in one graph of fixed shapes."""
    rng = np.random.default_rng(0)
    maps = [random_map(rng, 2, SIDE // s, SIDE // s, 3) for s in STRIDES]
    rois, image = boxes_of(rng, 20, "random"), rng.integers(0, 2, 20).astype("int32")
    scores = np.round(rng.uniform(size=(1, 20)) * 4).astype("float32")
    images, sizes = random_map(rng, 2, 40, 50, 3), np.int32([[40, 50], [30, 20]])

    def run(level0, level1, level2, rois, scores, images):
        maps, scales = [level0, level1, level2], [1 / s for s in STRIDES]
        return (
            portable_roi_align(maps, rois, image, 3, scales),
            portable_roi_pool(level2, rois, image, 3, 1 / 16),
            portable_warp_regions(images, sizes, rois / 10, image, 5, 1),
            *nms(rois[None], scores, 0.3, 12, 0.5, "portable"),
        )

    expected = run(*maps, rois, scores, images)
    found = tf.function(run, jit_compile=True, autograph=False)(*maps, rois, scores, images)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_portable_nms_leaves_out_boxes_without_an_area():
    boxes = np.float32([[[0, 0, 10, 10], [3, 3, 3, 9], [20, 0, 30, 9], [5, 4, 9, 4]]])
    indices, count = nms(boxes, np.float32([[0.5, 0.9, 0.6, 0.7]]), 0.5, 4, kernels="portable")
    assert (indices.numpy().tolist(), count.numpy().tolist()) == ([[2, 0, 0, 0]], [2])
    nothing = nms(boxes[:, :0], np.zeros((1, 0), "float32"), 0.5, 4, kernels="portable")
    assert [x.numpy().tolist() for x in nothing] == [[[0] * 4], [0]]


def test_chunks_of_one_size():
    rows, numbers = np.arange(14, dtype="float32").reshape(7, 2), np.arange(7)
    arguments = (
        lambda x, k: [x * 2, tf.cast(k, tf.float32)[:, None] + tf.reduce_sum(x, 1, True)],
        3,
        [(2,), (1,)],
        rows,
        numbers,
    )
    for ours, theirs in zip(in_equal_chunks(*arguments), in_chunks(*arguments), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    rois, image = flatten_batch(rows.reshape(1, 7, 2).repeat(2, axis=0))
    np.testing.assert_array_equal(image, np.repeat([0, 1], 7))
    np.testing.assert_array_equal(rois, np.concatenate([rows, rows]))


@pytest.mark.parametrize("awkward", ["random", "equal scores", "few scores", "whole pixels"])
def test_a_limit_of_candidates_keeps_the_best(awkward):
    """2,000 candidates above the threshold: those beyond the best 100 are as if they were not."""
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 400, (2, 2000, 2))
    boxes = np.concatenate([low, low + rng.uniform(1, 60, low.shape)], -1).astype("float32")
    scores = rng.uniform(0.1, 1, size=(2, 2000)).astype("float32")
    boxes, scores = (x.astype("float32") for x in AWKWARD[awkward](boxes, scores))
    groups = np.arange(2000) % 3
    best = np.argsort(-scores, axis=1, kind="stable")[:, :100]
    beyond = np.ones(scores.shape, bool)
    np.put_along_axis(beyond, best, False, axis=1)
    without = np.where(beyond, -np.inf, scores).astype("float32")
    settings = (boxes, without, groups, 0.3, 60, 0.05)
    limited = grouped_nms(boxes, scores, *settings[2:], "portable", max_candidates=100)
    for ours, theirs in zip(limited, grouped_nms(*settings), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    if awkward == "random":  # enough are left of the best 100 that the others do not matter
        few = (boxes, scores, groups, 0.3, 20, 0.05)
        limited = grouped_nms(*few, "portable", max_candidates=100)
        for ours, theirs in zip(limited, grouped_nms(*few), strict=True):
            np.testing.assert_array_equal(ours, theirs)
