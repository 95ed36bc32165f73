import warnings
import zlib

import numpy as np
import PIL
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from rcnn_keras.data import ImageError, images, read_image
from rcnn_keras.data.images import image_header, read_header, resize_image, resized_size

# height and width as SOURCE.md of the photos lists them; for the three turned ones, exchanged
PHOTOS = {
    "astronaut.png": (512, 512),
    "bird_rgba.png": (384, 576),
    "camera.png": (512, 512),
    "cards_table.jpg": (756, 1008),
    "chelsea.png": (300, 451),
    "cmyk_graphic.jpg": (100, 100),
    "coco_000000084477.jpg": (427, 640),
    "coco_000000183500.jpg": (430, 640),
    "coco_000000248810.jpg": (500, 375),
    "coco_000000365655.jpg": (427, 640),
    "coco_000000410712.jpg": (426, 640),
    "coco_000000415536.jpg": (480, 640),
    "coco_000000421757.jpg": (480, 640),
    "coffee.png": (400, 600),
    "coffee_cmyk.jpg": (400, 600),
    "concert_gray.jpg": (267, 400),
    "hopper_16bit.pgm": (128, 128),
    "hopper_small.jpg": (128, 128),
    "landscape_3_exif.jpg": (1200, 1800),
    "landscape_6_exif.jpg": (1200, 1800),
    "portrait_8_exif.jpg": (1800, 1200),
    "retina.jpg": (1411, 1411),
    "rocket.jpg": (427, 640),
}


@pytest.fixture
def rgb():
    """A smooth picture with four different corners, 48x64, that JPEG hardly changes."""
    y, x = np.mgrid[0:48, 0:64]
    return np.stack([x * 4, y * 5, 255 - x * 2 - y * 2], axis=-1).clip(0, 255).astype(np.uint8)


def png_chunk(kind, body):
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def exif_bytes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


@pytest.mark.parametrize("name", PHOTOS)
def test_photo_decodes_to_its_shape_without_warning(shared_data, name):
    path = shared_data / "photos" / name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(path)
        assert image_header(path) == PHOTOS[name]
    assert image.shape == (*PHOTOS[name], 3)
    assert image.dtype == np.uint8
    assert image.std() > 5


def test_turned_photos_come_out_upright(shared_data):
    for name in ("landscape_3_exif.jpg", "landscape_6_exif.jpg", "portrait_8_exif.jpg"):
        path = shared_data / "photos" / name
        expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
        np.testing.assert_array_equal(read_image(path), expected)
    # both landscapes show the same photo, stored differently
    first, second = (
        read_image(shared_data / "photos" / f"landscape_{i}_exif.jpg").astype(float) for i in (3, 6)
    )
    assert np.abs(first - second).mean() < 6


def test_cmyk_photo_has_the_colours_of_its_rgb_original(shared_data):
    rgb = read_image(shared_data / "photos/coffee.png").astype(float)
    cmyk = read_image(str(shared_data / "photos/coffee_cmyk.jpg")).astype(float)
    np.testing.assert_allclose(cmyk.mean((0, 1)), rgb.mean((0, 1)), atol=1)
    assert np.abs(cmyk - rgb).mean() < 8


def test_cmyk_graphic_is_red_on_black(shared_data):
    image = read_image(shared_data / "photos/cmyk_graphic.jpg")
    assert image[0, 0, 0] > 200  # the red block in the corner
    assert image[0, 0, 1:].max() < 60
    assert image[-10:].max() < 30


def test_16_bit_photo_is_scaled_not_clipped(shared_data):
    path = shared_data / "photos/hopper_16bit.pgm"
    raw = path.read_bytes()
    values = np.frombuffer(raw[-2 * 128 * 128 :], ">u2").reshape(128, 128)
    np.testing.assert_array_equal(read_image(path)[..., 0], np.rint(values / 257))
    colour = read_image(shared_data / "photos/hopper_small.jpg") @ [0.299, 0.587, 0.114]
    assert abs(read_image(path).mean() - colour.mean()) < 3


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm"])
def test_16_bit_gray_files(tmp_path, ending):
    values = np.arange(0, 65536, 128, dtype=np.uint16).reshape(16, 32)
    path = tmp_path / f"gray.{ending}"
    Image.fromarray(values).save(path)
    np.testing.assert_array_equal(read_image(path)[..., 1], np.rint(values / 257))
    np.testing.assert_array_equal(read_image(values)[..., 1], np.rint(values / 257))


@pytest.mark.parametrize("ending", ["png", "bmp", "tiff", "ppm", "webp"])
def test_lossless_formats_give_their_pixels(tmp_path, rgb, ending):
    path = tmp_path / f"image.{ending}"
    Image.fromarray(rgb).save(path, **({"lossless": True} if ending == "webp" else {}))
    image = read_image(path)
    np.testing.assert_array_equal(image, rgb)
    assert image.flags.writeable
    assert image_header(path) == (48, 64)


def in_ycbcr():
    broken = int(PIL.__version__.split(".")[0]) < 13
    return pytest.param(
        "YCbCr", marks=pytest.mark.skipif(broken, reason="Pillow before 13 cannot read its own")
    )


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", in_ycbcr(), "F"])
def test_images_of_every_mode_become_rgb(tmp_path, rgb, mode):
    image = Image.fromarray(rgb).convert(mode)
    path = tmp_path / ("image.tiff" if mode in ("YCbCr", "F") else "image.png")
    image.save(path)
    expected = np.asarray(image.convert("L" if mode == "F" else "RGB").convert("RGB"))
    difference = np.abs(read_image(path).astype(int) - expected)
    assert difference.max() <= 1


def test_alpha_is_dropped_also_from_palettes_without_warning(tmp_path, rgb):
    alpha = np.zeros((48, 64, 1), np.uint8)
    Image.fromarray(np.concatenate([rgb, alpha], -1)).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), rgb)
    palette = Image.fromarray(rgb).convert("P")
    palette.save(tmp_path / "p.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = read_image(tmp_path / "p.png")
    np.testing.assert_array_equal(image, np.asarray(palette.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff"])
def test_exif_orientations(tmp_path, rgb, orientation, ending):
    path = tmp_path / f"turned.{ending}"
    Image.fromarray(rgb).save(path, exif=exif_bytes(orientation))
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))
    image = read_image(path)
    np.testing.assert_array_equal(image, expected)
    stored = 1 if ending == "tiff" else orientation  # Pillow itself turns a TIFF as it loads it
    assert read_header(path) == (*expected.shape[:2], stored)
    assert image.shape[:2] == ((48, 64) if orientation <= 4 else (64, 48))


def test_png_with_metadata_behind_its_pixels(tmp_path, rgb):
    path = tmp_path / "late.png"
    Image.fromarray(rgb).save(path)
    content = path.read_bytes()
    exif = exif_bytes(6).removeprefix(b"Exif\0\0")
    path.write_bytes(content[:-12] + png_chunk(b"eXIf", exif) + content[-12:])
    assert read_image(path).shape == (64, 48, 3)
    assert image_header(path) == (64, 48)


def test_broken_exif_is_no_orientation(tmp_path, rgb):
    path = tmp_path / "broken.jpg"
    Image.fromarray(rgb).save(path, exif=b"Exif\0\0nonsense")
    assert image_header(path) == read_image(path).shape[:2] == (48, 64)


def test_header_of_a_whole_file_does_not_decode(tmp_path, rgb, monkeypatch):
    paths = [tmp_path / "a.jpg", tmp_path / "a.png"]
    for path in paths:
        Image.fromarray(rgb).save(path)
    tail = tmp_path / "tail.jpg"  # as phones append; harmless, but the file has to be decoded
    tail.write_bytes(paths[0].read_bytes() + b"appended" * 20)
    assert image_header(tail) == (48, 64)

    def load(self):
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", load)
    for path in paths:
        assert image_header(path) == (48, 64)
    with pytest.raises(ImageError, match="decoded"):
        image_header(tail)


@pytest.mark.parametrize("read", [read_image, image_header])
class TestBadFiles:
    def test_a_missing_file_is_refused(self, tmp_path, read):
        with pytest.raises(ImageError, match=r"nowhere\.jpg: no such file"):
            read(tmp_path / "nowhere.jpg")

    def test_a_folder_is_refused(self, tmp_path, read):
        with pytest.raises(ImageError, match="no such file"):
            read(tmp_path)

    def test_an_empty_file_is_refused(self, tmp_path, read):
        (tmp_path / "a.jpg").touch()
        with pytest.raises(ImageError, match=r"a\.jpg: the file is empty"):
            read(tmp_path / "a.jpg")

    def test_a_text_file_is_refused(self, tmp_path, read):
        (tmp_path / "a.jpg").write_text("not a picture at all, but long enough for a header")
        with pytest.raises(ImageError, match=r"a\.jpg: is not an image"):
            read(tmp_path / "a.jpg")

    @pytest.mark.parametrize("ending", ["jpg", "png", "bmp", "tiff", "webp"])
    @pytest.mark.parametrize("part", [0.5, 0.9, 0.99])
    def test_a_truncated_file_is_refused(self, tmp_path, read, ending, part):
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
        path = tmp_path / f"cut.{ending}"
        Image.fromarray(noise).save(path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])
        with pytest.raises(ImageError, match=rf"cut\.{ending}"):
            read(path)

    def test_bomb_is_refused_from_its_header(self, tmp_path, read):
        head = (30000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
        body = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")]
        path = tmp_path / "bomb.png"
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in body))
        with pytest.raises(ImageError, match=r"bomb\.png.*900000000 pixels.*178956970"):
            read(path)

    def test_more_pixels_than_the_limit_are_refused(self, tmp_path, read, rgb, monkeypatch):
        Image.fromarray(rgb).save(tmp_path / "a.png")
        monkeypatch.setattr(images, "MAX_PIXELS", 3000)
        with pytest.raises(ImageError, match=r"a\.png: 64x48 pixels are more than .* 3000"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5, np.uint8), "shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((3, 8, 9), np.uint8), r"\(3, 8, 9\) is not .*: its channels come first, tran"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.full((4, 4, 3), np.nan), "not in 0..255"),
        (np.full((4, 4, 3), np.inf), "not in 0..255"),
        (np.full((4, 4, 3), 256.0), "not in 0..255"),
        (np.full((4, 4), -1), "not in 0..255"),
        (np.full((4, 4, 3), 0.5), "multiply by 255"),
        (np.zeros((4, 4), bool), "bool"),
        (np.full((4, 4), "a"), "not numbers"),
    ],
)
def test_arrays_of_other_shapes_or_values_are_refused(array, message):
    with pytest.raises(ImageError, match=message):
        read_image(array)


def test_other_types_are_refused():
    with pytest.raises(ImageError, match="list"):
        read_image([[1, 2], [3, 4]])


def test_arrays_of_every_form_become_rgb(rgb):
    np.testing.assert_array_equal(read_image(rgb), rgb)
    np.testing.assert_array_equal(read_image(rgb.astype(np.float32) * 0.9), np.rint(rgb * 0.9))
    np.testing.assert_array_equal(read_image(rgb.astype(np.int64)), rgb)
    rgba = np.concatenate([rgb, rgb[..., :1]], axis=-1)
    np.testing.assert_array_equal(read_image(rgba), rgb)
    gray = np.repeat(rgb[..., :1], 3, axis=-1)
    np.testing.assert_array_equal(read_image(rgb[..., 0]), gray)
    np.testing.assert_array_equal(read_image(rgb[..., :1]), gray)
    assert read_image(np.zeros((2, 2, 3))).max() == 0  # a black float image needs no guess
    result = read_image(rgb)
    result[:] = 0
    assert rgb.any()


@pytest.mark.parametrize(
    ("image", "min_size", "max_size", "expected"),
    [
        ((480, 640), 240, 320, (240, 320)),
        ((375, 500), 800, 1333, (800, 1066)),
        ((500, 375), 800, 1333, (1066, 800)),
        ((427, 640), 800, 1333, (800, 1199)),
        ((100, 1000), 800, 1333, (133, 1333)),
        ((640, 480), 640, 640, (640, 480)),
        ((97, 97), 800, 1333, (799, 799)),  # 97 * (800 / 97) = 799.9999999999999 in float64
        ((1, 5000), 800, 1000, (1, 1000)),
    ],
)
def test_resized_size_is_torchvisions(image, min_size, max_size, expected):
    assert resized_size(*image, min_size, max_size) == expected


def test_resized_size_refuses_nothing():
    with pytest.raises(ValueError, match="min_size 0"):
        resized_size(10, 10, 0, 10)


def bilinear(image, height, width):
    """Sample an image between the centres of its pixels, one output pixel at a time."""
    rows, columns = image.shape[:2]
    out = np.zeros((height, width, image.shape[2]))
    for i in range(height):
        for j in range(width):
            y = np.clip((i + 0.5) * rows / height - 0.5, 0, rows - 1)
            x = np.clip((j + 0.5) * columns / width - 0.5, 0, columns - 1)
            top, left = int(y), int(x)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            above = image[top, left] * (1 - x + left) + image[top, right] * (x - left)
            below = image[bottom, left] * (1 - x + left) + image[bottom, right] * (x - left)
            out[i, j] = above * (1 - y + top) + below * (y - top)
    return out


@pytest.mark.parametrize("size", [(5, 9), (14, 20), (23, 31), (7, 10)])
def test_resize_image_samples_between_pixel_centres(size):
    image = np.random.default_rng(1).integers(0, 256, (7, 10, 3), np.uint8)
    resized = resize_image(image, *size)
    assert resized.dtype == tf.float32
    np.testing.assert_allclose(resized, bilinear(image.astype(float), *size), atol=1e-3)


def test_resize_image_antialiased():
    image = (np.indices((16, 16)).sum(0) % 2 * 255).astype(np.uint8)[..., None]  # a chessboard
    smooth = resize_image(image, 4, 4, antialias=True)
    np.testing.assert_allclose(smooth[1:3, 1:3], 127.5, atol=1e-3)


def test_resize_image_in_a_tf_data_graph():
    image = np.random.default_rng(2).integers(0, 256, (1, 8, 12, 3), np.uint8)
    size = tf.constant([[4, 6]])
    data = tf.data.Dataset.from_tensor_slices((image, size))
    (resized,) = data.map(lambda image, size: resize_image(image, size[0], size[1]))
    np.testing.assert_array_equal(resized, resize_image(image[0], 4, 6))
