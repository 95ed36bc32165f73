"""Image files and arrays to upright 8-bit RGB, and the one resizing rule.

Decoding is Pillow's: TensorFlow's decoders know no EXIF orientation, CMYK or 16-bit gray. EXIF
orientation 1 is upright, 2 to 4 mirror or turn by 180 degrees, 5 to 8 exchange height and width
(Exif 2.3, tag 0x0112). A TFRecord file keeps bytes of which `decode_upright` gives the same pixels
in the graph; the writer of the file makes sure of it.
"""

import io
import math
import os
import struct
from collections.abc import Callable
from os import PathLike
from typing import IO, Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as rle

from rcnn_keras.data.keypoints import NOT_LABELLED
from rcnn_keras.data.tfrecord_images import TFRecordImage
from rcnn_keras.data.value_range import (
    FULL,
    ValueRange,
    check_value_range,
    to_8_bits,
    warn_if_dark,
)

TAG = 0x0112

EXCHANGES_SIDES = (5, 6, 7, 8)

UPSIDE_DOWN = (3, 4, 7, 8)  # what is left to do once sides are exchanged

MIRRORED = (2, 3, 6, 7)


def turn_pixels(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels or a mask, `(H, W, ...)`, upright."""
    if orientation in EXCHANGES_SIDES:
        pixels = pixels.swapaxes(0, 1)
    if orientation in UPSIDE_DOWN:
        pixels = pixels[::-1]
    if orientation in MIRRORED:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_points(points: np.ndarray, orientation: int, height: int, width: int) -> np.ndarray:
    """Return `(n, 2)` points x, y of stored pixels on the upright image of this size."""
    if orientation in EXCHANGES_SIDES:
        points = points[:, ::-1]
    x, y = points[:, 0], points[:, 1]
    if orientation in UPSIDE_DOWN:
        y = height - y
    if orientation in MIRRORED:
        x = width - x
    return np.stack([x, y], axis=1)


def turn_boxes(boxes: np.ndarray, orientation: int, height: int, width: int) -> np.ndarray:
    """Return `(n, 4)` boxes `xyxy` of stored pixels on the upright image of this size."""
    corners = turn_points(boxes.reshape(-1, 2), orientation, height, width).reshape(-1, 2, 2)
    return np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)


def turn_keypoints(keypoints: np.ndarray, orientation: int, height: int, width: int) -> np.ndarray:
    """Return `(P, 3)` keypoints of stored pixels on the upright image of this size."""
    turned = turn_points(keypoints[:, :2], orientation, height, width)
    labelled = keypoints[:, 2:] > NOT_LABELLED
    return np.concatenate([np.where(labelled, turned, 0), keypoints[:, 2:]], axis=1)


def turn_segmentation(segmentation: Any, orientation: int, height: int, width: int) -> Any:
    """Return COCO polygons or an RLE of stored pixels on the upright image of this size."""
    if isinstance(segmentation, list):
        return [
            turn_points(np.reshape(polygon, (-1, 2)), orientation, height, width).ravel().tolist()
            for polygon in segmentation
        ]
    if isinstance(segmentation, dict):
        if isinstance(segmentation["counts"], list):
            segmentation = rle.frPyObjects(segmentation, *segmentation["size"])
        mask = turn_pixels(rle.decode(segmentation), orientation)
        turned = rle.encode(np.asfortranarray(mask))
        return {"size": turned["size"], "counts": turned["counts"].decode("ascii")}
    return segmentation


# Pillow's own limit. A file over either one is refused, so larger images need both raised.
MAX_PIXELS = 178_956_970


NEEDED = (
    "a path, an array or a Pillow image is needed (cv2.imread returns None for a file that is "
    "missing or that it cannot read)"
)

JPEG_END = b"\xff\xd9"

PNG_SIGNATURE_BYTES = 8

PNG_METADATA = (b"eXIf", b"tEXt", b"zTXt", b"iTXt")


class ImageError(ValueError):
    """An image cannot be read; the message names it, `reason` says what is wrong."""

    def __init__(self, name: str, reason: str):
        super().__init__(f"{name}: {reason}")
        self.reason = reason


class ImageHeader(NamedTuple):
    """Size of the upright image in pixels, and the EXIF orientation it is stored in."""

    height: int
    width: int
    orientation: int


def read_image(
    source: Any, value_range: ValueRange = FULL, *, name: str = "image array"
) -> np.ndarray:
    """Return an image as uint8 RGB `(H, W, 3)`, upright.

    Args:
        source: a file in any format of Pillow's (of several frames or pages, the first), or its
            place in a TFRecord file; a Pillow image; or an array or tensor `(H, W)`, `(H, W, 1)`,
            `(H, W, 3)` or `(H, W, 4)` of integers or floats in 0..255, or of uint16 in 0..65535.
            Alpha is dropped, and gray is repeated.
        value_range: which values of an image of more than 8 bits become 0 and 255: "full" for
            0..65535 (value / 257), "max" for 0 up to its own greatest value, "percentiles" for
            its own 0.5th to 99.5th percentile, a number such as 4095 for 0 up to it, or the least
            and the greatest value. Images of 8 bits stay as they are.
        name: of an array or a Pillow image, for messages.

    Raises:
        ImageError: for a file that is missing, empty, cut off, no image, or over `MAX_PIXELS`,
            for an array of another rank, type or value range, and for anything else.
        ValueError: for a `value_range` that is none.

    Warns:
        UserWarning: once in a process, for an image of 16 bits that leaves most of their range
            unused, if `value_range` is "full".
    """
    check_value_range(value_range)
    if isinstance(source, Image.Image):
        try:
            source.load()
            pixels = _to_rgb(source, name, value_range)
        except Exception as error:
            _raise_image_error(error, name)
            raise
        return turn_pixels(pixels, _orientation(source))
    if hasattr(source, "__array__") and not isinstance(source, np.generic):
        return _array_to_rgb(_numpy(source, name), name, value_range)
    with _ImageFile(source) as file:
        is_wide = _has_wide_colours(file.image)
        if is_wide and value_range != FULL:
            pixels = to_8_bits(_wide_colours(file, value_range), value_range)
        else:
            file.image.load()
            pixels = _to_rgb(file.image, file.name, value_range)
        if is_wide and value_range == FULL:
            warn_if_dark(int(pixels.max()), 255, file.name)
        return turn_pixels(pixels, file.orientation())


def image_header(path: str | PathLike | TFRecordImage) -> tuple[int, int]:
    """Return height and width in pixels of the image that `read_image` would give.

    A JPEG or PNG file is not decoded if its end is where it should be; others are.

    Raises:
        ImageError: as `read_image`, except for damage inside a JPEG or PNG file.
    """
    return read_header(path)[:2]


def read_header(path: str | PathLike | TFRecordImage) -> ImageHeader:
    """Return `image_header`'s size together with the EXIF orientation."""
    with _ImageFile(path) as file:
        if not file.has_its_end():
            file.image.load()
        orientation = file.orientation()
        width, height = file.image.size
    if orientation in EXCHANGES_SIDES:
        height, width = width, height
    return ImageHeader(height, width, orientation)


def resized_size(height: int, width: int, min_size: int, max_size: int) -> tuple[int, int]:
    """Return the size at which a detector sees an image of this height and width, in pixels.

    The shorter side becomes `min_size`, unless the longer one would pass `max_size`. This is the
    arithmetic of torchvision's `GeneralizedRCNNTransform`, to the pixel: float64, and the fraction
    is cut off, so that a product that falls short of `min_size` by rounding loses a pixel.

    Raises:
        ValueError: for a size below one pixel.
    """
    if min(height, width, min_size, max_size) < 1:
        raise ValueError(
            f"sizes must be at least 1 pixel, not image {height}x{width}, min_size {min_size}, "
            f"max_size {max_size}"
        )
    scale = min(min_size / min(height, width), max_size / max(height, width))
    return max(1, math.floor(height * scale)), max(1, math.floor(width * scale))


def resize_image(
    image: np.ndarray | tf.Tensor, height: int, width: int, *, antialias: bool = False
) -> tf.Tensor:
    """Return `(H, W, C)` or `(B, H, W, C)` as float32 of another size, in the same value range.

    Bilinear with half-pixel centres, as torchvision's detectors resize; `antialias` averages over
    all the pixels that a smaller image leaves out. Works eagerly and inside `tf.data`.
    """
    resized = tf.image.resize(image, (height, width), "bilinear", antialias=antialias)
    return tf.cast(resized, tf.float32)


class _ImageFile:
    """An open image file; whatever goes wrong inside its `with` block becomes an ImageError."""

    def __init__(self, source: str | PathLike | TFRecordImage):
        self.tfrecord = source if isinstance(source, TFRecordImage) else None
        path = source if self.tfrecord is None else self.tfrecord.path
        if not isinstance(path, str | PathLike):
            kind = type(path).__name__
            raise ImageError(f"image of type {kind}", NEEDED)
        self.name = os.fsdecode(path)

    def __enter__(self) -> "_ImageFile":
        self.file = self._opened()
        try:
            self.image = Image.open(self.file)
            self._check_pixels()
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self

    def _opened(self) -> IO[bytes]:
        if self.tfrecord is not None:
            try:
                return io.BytesIO(self.tfrecord.read())
            except (OSError, ValueError) as error:
                raise ImageError(self.name, f"cannot be read: {error}") from error
        if not os.path.isfile(self.name):
            raise ImageError(self.name, "no such file")
        if os.path.getsize(self.name) == 0:
            raise ImageError(self.name, "the file is empty (0 bytes)")
        try:
            return open(self.name, "rb")
        except OSError as error:
            raise ImageError(self.name, f"cannot be opened: {error.strerror}") from error

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.file.close()
        _raise_image_error(error, self.name)

    def orientation(self) -> int:
        """Return the EXIF orientation, 1 if the file states none that is valid."""
        # Pillow's own getexif of a PNG would decode it; has_its_end looked for late metadata
        return _orientation(self.image)

    def has_its_end(self) -> bool:
        """Return whether the end of the file shows that it is whole and the header says it all."""
        position = self.file.tell()  # Pillow goes on reading from there
        try:
            if self.image.format in ("JPEG", "MPO"):
                self.file.seek(max(0, self.file.seek(0, os.SEEK_END) - 64))
                return self.file.read().rstrip(b"\0\r\n").endswith(JPEG_END)
            return self.image.format == "PNG" and self._has_png_end()
        finally:
            self.file.seek(position)

    def _has_png_end(self) -> bool:
        """Walk the chunks of a PNG: its last one is IEND, and no metadata follow the pixels."""
        position, pixels_seen = PNG_SIGNATURE_BYTES, False
        while True:
            self.file.seek(position)
            head = self.file.read(8)
            if len(head) < 8:
                return False
            length, kind = struct.unpack(">I4s", head)
            if kind == b"IEND":
                return True
            if pixels_seen and kind in PNG_METADATA:
                return False
            pixels_seen = pixels_seen or kind == b"IDAT"
            position += length + 12  # length, kind and checksum are 4 bytes each

    def _check_pixels(self) -> None:
        width, height = self.image.size
        if width * height > MAX_PIXELS:
            raise ImageError(
                self.name, f"{width}x{height} pixels are more than the limit of {MAX_PIXELS}"
            )


def _raise_image_error(error: BaseException | None, name: str) -> None:
    """Raise what went wrong in Pillow as an ImageError."""
    if isinstance(error, UnidentifiedImageError):
        raise ImageError(name, "is not an image that Pillow can read") from error
    if isinstance(error, Exception) and not isinstance(error, ImageError):
        # Pillow's decoders raise all kinds of errors on damaged files.
        raise ImageError(name, f"cannot be decoded: {error}") from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 if it states none that is valid."""
    try:
        orientation = Image.Image.getexif(image).get(TAG, 1)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error):
        return 1  # broken metadata; the pixels are whole, and this is all that it could say
    return orientation if orientation in range(1, 9) else 1


def _numpy(source: Any, name: str) -> np.ndarray:
    """Return an array or a tensor as one of NumPy's own types."""
    try:
        array = np.asarray(source)
    except Exception as error:  # of another library, such as a tensor that is on a GPU
        raise ImageError(name, f"{type(source).__name__} is not an array: {error}") from error
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _has_wide_colours(image: Image.Image) -> bool:
    """Return whether a file that is not loaded has 16-bit colours, of which Pillow keeps 8 bits."""
    modes = (str(tile[3]) for tile in getattr(image, "tile", ()) if isinstance(tile[3], str))
    return any(mode.startswith(("RGB;16", "RGBA;16", "LA;16")) for mode in modes)


def _wide_colours(file: "_ImageFile", value_range: ValueRange) -> np.ndarray:
    """Return a PNG of 16-bit colours as uint16 RGB `(H, W, 3)`."""
    if file.image.format != "PNG":
        raise ImageError(
            file.name,
            f"16-bit colours of {file.image.format} are read as 8 bits, which leaves nothing for "
            f"value_range={value_range!r}: store the image as PNG",
        )
    file.file.seek(0)
    decoded = tf.io.decode_png(file.file.read(), channels=0, dtype=tf.uint16).numpy()
    return decoded[..., :3] if decoded.shape[-1] > 2 else np.repeat(decoded[..., :1], 3, axis=-1)


def _to_rgb(image: Image.Image, name: str, value_range: ValueRange) -> np.ndarray:
    """Return a decoded Pillow image as uint8 RGB `(H, W, 3)`."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PPM", "PNG")):
        return _array_to_rgb(np.asarray(image).astype(np.uint16), name, value_range)
    if image.mode in ("I", "F"):
        return _array_to_rgb(np.asarray(image), name, value_range)
    if image.mode == "P":
        image = image.convert("RGBA")  # Pillow warns if a transparent palette goes straight to RGB
    return np.array(image.convert("RGB"))


def _array_to_rgb(array: np.ndarray, name: str, value_range: ValueRange) -> np.ndarray:
    """Return an array of gray, RGB or RGBA values as uint8 RGB `(H, W, 3)`."""
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        is_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = ": its channels come first, transpose it" if is_first else ""
        raise ImageError(
            name, f"shape {array.shape} is not (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}"
        )
    array = array[..., :3]
    if array.dtype == np.uint16 and value_range == FULL:
        warn_if_dark(int(array.max()), 65535, name)
        array = to_8_bits(array, value_range)
    elif array.dtype != np.uint8 and value_range != FULL and _is_deep(array):
        array = to_8_bits(array, value_range)
    elif array.dtype != np.uint8:
        _check_range(array, name)
        array = np.rint(array)
    rgb = np.empty((*array.shape[:2], 3), np.uint8)
    rgb[:] = array
    return rgb


def _is_deep(array: np.ndarray) -> bool:
    """Return whether values are finite, at least 0, and of a type or size of more than 8 bits."""
    if array.dtype == np.uint16:
        return True
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        return False
    return bool(np.isfinite(array).all() and array.max() > 255)


def _check_range(array: np.ndarray, name: str) -> None:
    """Raise ImageError unless the values of an array can only be meant as 0..255."""
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ImageError(name, f"values are {array.dtype}, not numbers in 0..255")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= 255):  # NaN fails both
        raise ImageError(name, f"values from {low} to {high} are not in 0..255")
    if np.issubdtype(array.dtype, np.floating) and 0 < high <= 1:
        raise ImageError(
            name, f"values from {low} to {high} look like 0..1; multiply by 255 for 0..255"
        )


def decode_upright(content: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Return the image of a JPEG, PNG or GIF file as uint8 RGB `(H, W, 3)`, turned upright.

    Args:
        content: a string scalar.
        orientation: of EXIF, 1 to 8, an int64 scalar.

    Raises:
        tf.errors.InvalidArgumentError: while the graph runs, for bytes that cannot be decoded.
    """
    # The kernel recognises the format by itself. Pillow's libjpeg transforms accurately too, and
    # smooths the colours that are stored at half the resolution.
    image = tf.io.decode_jpeg(
        content, channels=3, fancy_upscaling=True, dct_method="INTEGER_ACCURATE"
    )
    image = _where(orientation, EXCHANGES_SIDES, lambda x: tf.transpose(x, [1, 0, 2]), image)
    image = _where(orientation, UPSIDE_DOWN, lambda x: tf.reverse(x, [0]), image)
    return _where(orientation, MIRRORED, lambda x: tf.reverse(x, [1]), image)


def _where(
    orientation: tf.Tensor,
    cases: tuple[int, ...],
    turn: Callable[[tf.Tensor], tf.Tensor],
    image: tf.Tensor,
) -> tf.Tensor:
    """Turn the image if its orientation is one of the cases."""
    is_case = tf.reduce_any(orientation == tf.constant(cases, tf.int64))
    turned = tf.cond(is_case, lambda: turn(image), lambda: image)
    return tf.ensure_shape(turned, (None, None, 3))
