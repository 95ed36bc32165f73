import numpy as np

from rcnn_keras.layers import RoIAlign


def ramp(height, width, stride):
    """A map that holds its own x and y in pixels, so that what is pooled is known exactly."""
    y, x = np.mgrid[:height, :width] * float(stride)
    return np.stack([x, y], axis=-1)[None].astype(np.float32)


def centres(box, size):
    x1, y1, x2, y2 = box
    x = x1 + (np.arange(size) + 0.5) * (x2 - x1) / size
    y = y1 + (np.arange(size) + 0.5) * (y2 - y1) / size
    return np.stack(np.meshgrid(x, y), axis=-1)


def test_cells_of_a_ramp_hold_their_centres():
    rois = np.array([[[10, 6, 94, 62], [33.3, 20, 77.7, 41.5]]], np.float32)
    pooled = RoIAlign(7, (8,))([ramp(12, 16, 8)], rois)
    assert pooled.shape == (1, 2, 7, 7, 2)
    assert pooled.dtype == "float32"
    for k in range(2):
        np.testing.assert_allclose(pooled[0, k], centres(rois[0, k], 7), atol=5e-3)


def test_the_sizes_of_the_paper_choose_the_level():
    levels = [
        np.full((1, n, n, 1), k, np.float32) for k, n in ((2, 256), (3, 128), (4, 64), (5, 32))
    ]
    extra = np.full((1, 16, 16, 1), 6, np.float32)  # for the RPN alone
    sides = [20, 111, 113, 223, 225, 447, 449, 900]
    rois = np.array([[[0, 0, s, s] for s in sides]], np.float32)
    pooled = RoIAlign(2, (4, 8, 16, 32))([*levels, extra], rois).numpy()
    # floor(4 + log2(side / 224)), within 2..5
    np.testing.assert_allclose(pooled.mean(axis=(2, 3, 4)), [[2, 2, 3, 3, 4, 4, 5, 5]], rtol=1e-5)


def test_each_image_is_read_for_its_own_rois():
    maps = np.concatenate([np.full((1, 8, 8, 1), k, np.float32) for k in (1, 2, 3)])
    rois = np.tile(np.array([[[8, 8, 40, 40], [16, 0, 60, 50]]], np.float32), (3, 1, 1))
    pooled = RoIAlign(3, (8,))([maps], rois).numpy()
    np.testing.assert_allclose(pooled.reshape(3, -1), [[k] * 18 for k in (1, 2, 3)], rtol=1e-6)


def test_the_sampling_ratio_is_the_number_of_points_averaged():
    feature = np.zeros((1, 1, 4, 1), np.float32)
    feature[0, 0, 1] = 1  # a tent over positions 0..2
    rois = np.array([[[0, 0, 4, 1]]], np.float32)
    for ratio, points in ((1, [0.5 * 4]), (2, [0.25 * 4, 0.75 * 4]), (4, [0.5, 1.5, 2.5, 3.5])):
        expected = np.mean([max(0, 1 - abs(p - 1)) for p in points])
        pooled = RoIAlign(1, (1,), ratio)([feature], rois).numpy()
        np.testing.assert_allclose(pooled.item(), expected, atol=1e-3)


def test_boxes_stay_float32_under_mixed_precision(mixed_bfloat16):
    rois = np.array([[[1001, 4, 1029, 32]]], np.float32)  # bfloat16 knows 1000 and 1032
    pooled = RoIAlign(7, (4,))([ramp(16, 300, 4)], rois)
    np.testing.assert_allclose(pooled[0, 0], centres(rois[0, 0], 7), atol=0.1)
