import numpy as np
import pytest

from rcnn_keras.layers import ImageNormalization

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def expected(images, sizes, divisor):
    batch, height, width, _ = images.shape
    out_height = -(-height // divisor) * divisor
    out_width = -(-width // divisor) * divisor
    out = np.zeros((batch, out_height, out_width, 3))
    for b, (valid_height, valid_width) in enumerate(sizes):
        for c in range(3):
            valid = images[b, :valid_height, :valid_width, c].astype(np.float64)
            out[b, :valid_height, :valid_width, c] = (valid - MEAN[c]) / STD[c]
    return out


@pytest.fixture
def images():
    return np.random.default_rng(0).integers(1, 256, (2, 37, 65, 3), dtype=np.uint8)


@pytest.mark.parametrize(("divisor", "size"), [(32, (64, 96)), (16, (48, 80)), (1, (37, 65))])
def test_odd_sizes_and_padding(images, divisor, size):
    sizes = np.array([(37, 65), (20, 33)], np.int32)
    out = ImageNormalization(MEAN, STD, size_divisor=divisor)(images, sizes).numpy()
    assert out.shape == (2, *size, 3)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected(images, sizes, divisor), atol=1e-6)
    assert not out[1, 20:].any()
    assert not out[1, :, 33:].any()


def test_float_images_and_sizes_that_need_no_padding(images):
    images = images[:, :32, :64]
    sizes = np.array([(32, 64), (32, 64)], np.int64)
    layer = ImageNormalization(MEAN, STD)
    out = layer(images.astype(np.float32), sizes).numpy()
    assert out.shape == images.shape
    np.testing.assert_array_equal(out, layer(images, sizes).numpy())


def test_pixels_are_not_rounded_before_the_mean_is_taken_off(images, mixed_bfloat16):
    images = images - np.float32(0.3)  # resized images have pixels between the whole numbers
    sizes = np.array([(37, 65), (37, 65)], np.int32)
    out = ImageNormalization(MEAN, STD)(images, sizes)
    assert out.dtype == "bfloat16"
    wanted = expected(images, sizes, 32)
    error = np.abs(out.numpy().astype(np.float64) - wanted)
    assert (error <= np.abs(wanted) * 2**-8 + 1e-6).all()  # that of rounding the result once
