"""What detection takes as an image, or as many."""

import warnings

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from rcnn_keras.data import ImageError, read_image
from rcnn_keras.data.image_files import images_in
from rcnn_keras.data.inputs import unlabelled

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def read(images):
    return [read_image(record.image) for record in unlabelled(images, ["owl"])]


@pytest.fixture
def folder(tmp_path):
    """A folder of images as phones, browsers and systems leave it."""
    for name in ("b.jfif", "c.webp", "A.PNG", "d.jp2", "e.ppm"):
        Image.fromarray(PIXELS).save(tmp_path / name)
    for name in ("._b.jfif", ".DS_Store", "Thumbs.db", "notes.txt", "f.heic"):
        (tmp_path / name).write_bytes(b"\0\5\26\7")
    (tmp_path / "more").mkdir()
    return tmp_path


def test_what_pillow_reads_is_found_and_the_rest_is_counted(folder):
    images, passed_over = images_in(folder)
    assert [path.name for path in images] == ["A.PNG", "b.jfif", "c.webp", "d.jp2", "e.ppm"]
    assert sorted(passed_over.split(", ")) == [
        "1 file .heic", "1 file .txt", "1 sub-folder", "3 system files",
    ]  # fmt: skip


def test_a_folder_is_its_images(folder):
    with pytest.warns(UserWarning, match=r"passed over .*3 system files") as caught:
        dataset = unlabelled([folder, folder / "A.PNG", PIXELS], ["owl"])
    assert len(caught) == 1
    names = [record.path.removeprefix(f"{folder}/") for record in dataset]
    assert names == ["A.PNG", "b.jfif", "c.webp", "d.jp2", "e.ppm", "A.PNG", "image 6"]
    with pytest.raises(ImageError, match="no image in this folder; it is empty"):
        unlabelled(folder / "more", ["owl"])


@pytest.mark.parametrize(
    "image",
    [
        PIXELS,
        PIXELS.astype(np.float32),
        tf.constant(PIXELS),
        tf.cast(PIXELS, tf.float32),
        Image.fromarray(PIXELS),
        Image.fromarray(PIXELS).convert("RGBA"),
    ],
    ids=["array", "floats", "tensor", "float tensor", "Pillow", "Pillow with alpha"],
)
def test_forms_of_one_image(image):
    for images in (image, [image], (image,), iter([image])):
        (found,) = read(images)
        np.testing.assert_array_equal(found, PIXELS)


def test_torch_like_arrays():
    class Tensor:
        def __array__(self, dtype=None, copy=None):
            return PIXELS

    class Elsewhere:
        def __array__(self, dtype=None, copy=None):
            raise TypeError("copy the tensor to host memory first")

    np.testing.assert_array_equal(read([Tensor()])[0], PIXELS)
    with pytest.raises(ImageError, match=r"image 0: Elsewhere .*copy the tensor"):
        read([Elsewhere()])


@pytest.mark.parametrize("convert", [np.asarray, tf.constant])
def test_a_batch_is_many_images(convert):
    batch = np.stack([PIXELS, 255 - PIXELS])
    for images in (convert(batch), [convert(batch)]):
        np.testing.assert_array_equal(read(images), batch)
    assert len(read([convert(batch), PIXELS])) == 3


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_pillow_images_are_read_as_their_files(tmp_path, orientation, mode):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).convert(mode).save(path, exif=exif)
    np.testing.assert_array_equal(read(Image.open(path))[0], read_image(path))
    deep = Image.fromarray(np.arange(0, 65536, 512, dtype=np.uint16).reshape(8, 16))
    deep.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read(deep)[0], read_image(tmp_path / "a.png"))


def test_a_pillow_image_that_is_damaged_is_an_image_error(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ImageError, match="image 0: cannot be decoded"):
        read(Image.open(path))


@pytest.mark.parametrize(
    ("images", "kind"),
    [
        (None, "NoneType"),
        ([None], "image 0 of type NoneType"),
        ([PIXELS, None], "image 1 of type NoneType"),
        (b"\xff\xd8\xff", "bytes"),
        ([b"\xff\xd8\xff"], "bytes"),
        (3, "int"),
        ([3.5], "float"),
        ([[PIXELS]], "list"),
        ({"image": PIXELS}, "dict"),
        (object(), "object"),
        (np.uint8(3), "uint8"),
    ],
    ids=str,
)
def test_what_is_no_image_is_refused(images, kind):
    with pytest.raises(ImageError, match=f"type {kind}|{kind}") as error:
        unlabelled(images, ["owl"])
    assert "a path, an array or a Pillow image is needed" in str(error.value)


def test_no_images_are_no_images():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read([]) == []
