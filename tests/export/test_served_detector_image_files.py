"""Files decoded in a graph beside those that `read_image` decodes."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rcnn_keras.data.images import read_image
from rcnn_keras.export.served_detector import decode_image

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (40, 52, 4), np.uint8)
RGB = Image.fromarray(PIXELS[..., :3])
SMOOTH = Image.fromarray(PIXELS[:5, :7, :3]).resize((200, 150), Image.Resampling.BICUBIC)
PALETTE = RGB.quantize(16)
PICTURES = {
    "rgb.png": (RGB, {}),
    "gray.png": (RGB.convert("L"), {}),
    "rgba.png": (Image.fromarray(PIXELS), {}),
    "gray with alpha.png": (Image.fromarray(PIXELS).convert("LA"), {}),
    "palette.png": (PALETTE, {}),
    "transparent palette.png": (PALETTE, {"transparency": 3}),
    "one bit.png": (RGB.convert("1"), {}),
    "noise.jpg": (RGB, {"quality": 90}),
    "subsampled.jpg": (SMOOTH, {"quality": 80, "subsampling": 2}),
    "progressive.jpg": (SMOOTH, {"progressive": True}),
    "gray.jpg": (SMOOTH.convert("L"), {}),
    "cmyk.jpg": (SMOOTH.convert("CMYK"), {}),
}


def decode(path):
    return decode_image(tf.constant(path.read_bytes()), tf.constant(0)).numpy()


@pytest.mark.parametrize("name", PICTURES)
def test_pixels_are_those_of_read_image(name, tmp_path):
    picture, options = PICTURES[name]
    path = tmp_path / name
    picture.save(path, **options)
    np.testing.assert_array_equal(decode(path), read_image(path))


def test_sixteen_bits_are_cut_off(tmp_path):
    deep = RNG.integers(0, 65536, (20, 30), np.uint16)
    path = tmp_path / "deep.png"
    Image.fromarray(deep).save(path)
    np.testing.assert_array_equal(decode(path)[..., 0], deep // 256)
    assert np.abs(decode(path).astype(int) - read_image(path)).max() == 1


def test_exif_orientation_is_not_followed(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    path = tmp_path / "turned.jpg"
    RGB.save(path, exif=turned)
    assert read_image(path).shape == (52, 40, 3)
    assert decode(path).shape == (40, 52, 3)


def test_animations_are_refused(tmp_path):
    file = io.BytesIO()
    RGB.save(file, "PNG", save_all=True, append_images=[SMOOTH.resize(RGB.size)])  # APNG
    first = decode_image(tf.constant(file.getvalue()), tf.constant(0)).numpy()
    np.testing.assert_array_equal(first, PIXELS[..., :3])  # viewers of plain PNG see the first
    file = io.BytesIO()
    RGB.save(file, "GIF")
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)image.*7.*neither JPEG nor"):
        decode_image(tf.constant(file.getvalue()), tf.constant(7))
