import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import portable_warp_regions, warp_regions

RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(2, 40, 50, 3)).astype("f4")
SIZES = np.array([(40, 50), (31, 27)], "i4")  # what lies beyond is padding that must not be read
ROIS = np.array(
    [
        [10.0, 12.0, 30.5, 20.25],  # inside, with its context
        [0.0, 0.0, 9.0, 31.0],  # in a corner
        [20.0, 25.5, 27.0, 31.0],  # in the other
        [-6.0, 5.0, 4.0, 9.0],  # over the border
        [0.0, 0.0, 27.0, 31.0],  # all of the second image
        [13.3, 7.1, 13.3, 7.1],  # a point
    ],
    "f4",
)


def slow_warp(image, box, size, context):
    """A crop pixel by pixel: the box grown by context, bilinear between pixel centres."""
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (float(v) for v in box)
    grow = size / (size - 2 * context)
    cx, cy, w, h = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) * grow, (y2 - y1) * grow
    crop = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            y, x = cy - h / 2 + (i + 0.5) * h / size, cx - w / 2 + (j + 0.5) * w / size
            if not (0 <= y <= height and 0 <= x <= width):
                continue
            row, column = np.floor(y - 0.5), np.floor(x - 0.5)
            for dy in (0, 1):
                for dx in (0, 1):
                    part = (1 - abs(y - 0.5 - row - dy)) * (1 - abs(x - 0.5 - column - dx))
                    r, c = np.clip(row + dy, 0, height - 1), np.clip(column + dx, 0, width - 1)
                    crop[i, j] += part * image[int(r), int(c)]
    return crop


@pytest.mark.parametrize(("size", "context"), [(14, 3), (9, 0), (33, 16)])
def test_against_a_slow_reference(size, context):
    for number in range(2):
        height, width = SIZES[number]
        found = warp_regions(IMAGES, SIZES, ROIS, np.full(len(ROIS), number), size, context)
        assert found.shape == (len(ROIS), size, size, 3)
        for box, crop in zip(ROIS, found.numpy(), strict=True):
            expected = slow_warp(IMAGES[number, :height, :width], box, size, context)
            np.testing.assert_allclose(crop, expected, atol=2e-4)


@pytest.mark.parametrize("warp", [warp_regions, portable_warp_regions])
def test_images_of_half_the_bits_are_read_in_float32(warp):
    images, image = tf.cast(IMAGES, tf.bfloat16), np.zeros(len(ROIS), "i4")
    expected = warp_regions(tf.cast(images, tf.float32), SIZES, ROIS, image, 14, 3)
    found = warp(images, SIZES, ROIS, image, 14, 3)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_paper_s_crop_has_16_pixels_of_context():
    """A region of 195 pixels is not scaled, so the crop is the image around it as it is."""
    image = RNG.uniform(0, 255, (1, 300, 300, 3)).astype("f4")
    box = np.array([[40, 60, 235, 255]], "f4")
    crop = warp_regions(image, [[300, 300]], box, [0], 227, 16)[0]
    np.testing.assert_allclose(crop, image[0, 44:271, 24:251], atol=0.02)  # of 255


def test_outside_the_image_is_zero_to_the_pixel():
    image = np.ones((1, 200, 200, 3), "f4")
    box = np.array([[0, 5, 195, 200]], "f4")  # 16 pixels missing left and below, 11 above
    crop = warp_regions(image, [[200, 200]], box, [0], 227, 16)[0].numpy()
    expected = np.zeros((227, 227, 3))
    expected[11:-16, 16 : 16 + 200] = 1
    np.testing.assert_allclose(crop, expected, atol=1e-5)


def test_images_of_any_size_in_one_graph():
    graph = tf.function(
        lambda images, sizes, rois, image: warp_regions(images, sizes, rois, image, 7, 1),
        [
            tf.TensorSpec((None, None, None, 3)),
            tf.TensorSpec((None, 2), tf.int32),
            tf.TensorSpec((None, 4)),
            tf.TensorSpec((None,), tf.int32),
        ],
    )
    for count in (0, 1, 6):
        image = np.arange(count, dtype="i4") % 2
        found = graph(IMAGES, SIZES, ROIS[:count], image)
        np.testing.assert_array_equal(found, warp_regions(IMAGES, SIZES, ROIS[:count], image, 7, 1))
