"""How a detector with a rule of its own sees an image, and how its boxes return to the image.

Most detectors see an image by `data.resized_size` and `data.resize_image`; `ImageRule` is what
others bring instead. H and W are an image's own height and width, h and w those it is seen in.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

RESIZE_MODES = ("square", "pad64", "none")


class ImageRule(Protocol):
    """The rule of a detector."""

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return h and w of an image of H x W pixels."""
        ...

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the sizes of which a training draws one; mostly that of `size` alone."""
        ...

    def size_in_graph(self, size: tf.Tensor) -> tf.Tensor:
        """Return what `size` does: `(2,)` int32 H and W to `(2,)` int32 h and w."""
        ...

    def resize(self, image: Any, height: Any, width: Any) -> tf.Tensor:
        """Return images `(..., H, W, 3)` as `(..., h, w, 3)` float32 in 0..255."""
        ...

    def restore(self, boxes: Any, seen: Any, given: Any) -> tf.Tensor:
        """Return `(..., D, 4)` boxes in the pixels of the image that was given.

        Args:
            boxes: `xyxy` in pixels of the image as it was seen.
            seen: `(..., 2)` h and w.
            given: `(..., 2)` H and W.
        """
        ...


@dataclass(frozen=True)
class MatterportImageRule:
    """The rule of matterport/Mask_RCNN: `utils.resize_image` and `unmold_detections`.

    Attributes:
        mode: `"square"` keeps the longer side within `max_size`, `"pad64"` has no such limit, and
            `"none"` leaves images as they are.
        min_size: length in pixels to which a shorter side is enlarged; it is never made smaller.
        max_size: most pixels of the longer side.
        min_scale: the least factor of both sides, unless `max_size` forbids it; 0 for none.
    """

    mode: str = "square"
    min_size: int = 800
    max_size: int = 1024
    min_scale: float = 0.0

    def scale(self, height: int, width: int) -> float:
        """Return the factor by which the sides of an image of H x W pixels grow."""
        if self.mode == "none":
            return 1.0
        scale = max(1.0, self.min_size / min(height, width), self.min_scale)
        longer = max(height, width)
        if self.mode == "square" and round(longer * scale) > self.max_size:
            return self.max_size / longer
        return scale

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Return h and w of an image of H x W pixels."""
        scale = self.scale(height, width)
        return max(round(height * scale), 1), max(round(width * scale), 1)

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return the one size of an image of H x W pixels."""
        return [self.size(height, width)]

    def size_in_graph(self, size: tf.Tensor) -> tf.Tensor:
        """Return what `size` does, in the same float64."""
        if self.mode == "none":
            return size
        sides = tf.cast(size, tf.float64)
        longer = tf.reduce_max(sides)
        scale = tf.maximum(self.min_size / tf.reduce_min(sides), max(1.0, self.min_scale))
        if self.mode == "square":
            too_long = tf.round(longer * scale) > self.max_size
            scale = tf.where(too_long, self.max_size / longer, scale)
        return tf.maximum(tf.cast(tf.round(sides * scale), tf.int32), 1)

    def resize(self, image: Any, height: Any, width: Any) -> tf.Tensor:
        """Return images of whole values; the fractions are cut off, as a cast to uint8 does."""
        return tf.cast(tf.floor(resize_on_zeros(image, height, width)), tf.float32)

    def restore(self, boxes: Any, seen: Any, given: Any) -> tf.Tensor:
        """Return boxes in whole pixels of the given image.

        The original counts from the middle of the first pixel to that of the last, and its boxes
        end a pixel after the last one that is inside.
        """
        seen, given = (tf.cast(size, tf.float64) for size in (seen, given))
        ratio = (given - 1) / tf.maximum(seen - 1, 1)
        ratio = tf.concat([ratio[..., ::-1], ratio[..., ::-1]], axis=-1)[..., None, :]
        end = tf.constant([0.0, 0.0, 1.0, 1.0], tf.float64)
        whole = tf.round((tf.cast(boxes, tf.float64) - end) * ratio + end)
        return tf.cast(whole, tf.float32)


def resize_on_zeros(image: Any, height: Any, width: Any) -> tf.Tensor:
    """Resize `(..., H, W, C)` bilinearly to `(..., h, w, C)` float64, with zeros around the image.

    Half-pixel centres, and no average over what a smaller image leaves out: `skimage.transform`'s
    `resize` with `order=1`, `mode="constant"` and `anti_aliasing=False`, to the bit. Whole numbers
    are where products of float64 add up to them, so the order in which that multiplies and adds is
    kept. Where an image grows, its outermost pixels fade.
    """
    image = tf.cast(image, tf.float64)
    rows = [_tap(image, -3, *tap) for tap in _taps(tf.shape(image)[-3], height)]
    pixels = [_tap(x, -2, *tap) for x in rows for tap in _taps(tf.shape(image)[-2], width)]
    return pixels[0] + pixels[1] + pixels[2] + pixels[3]


def _taps(extent: tf.Tensor, side: Any) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Return the two positions that each new one reads along an axis, and their weights."""
    ratio = tf.cast(extent, tf.float64) / tf.cast(side, tf.float64)
    points = (tf.range(tf.cast(side, tf.float64), dtype=tf.float64) + 0.5) * ratio - 0.5
    lower = tf.floor(points)
    beyond = points - lower
    places = tf.cast(lower, tf.int32)
    return [(places, 1.0 - beyond), (places + 1, beyond)]


def _tap(image: tf.Tensor, axis: int, place: tf.Tensor, weight: tf.Tensor) -> tf.Tensor:
    """Return an image read at some places along an axis, times their weights; 0 outside."""
    extent = tf.shape(image)[axis]
    inside = tf.cast((place >= 0) & (place < extent), tf.float64)
    weight = tf.reshape(weight * inside, [-1] + [1] * (-axis - 1))
    axis += image.shape.rank
    return tf.gather(image, tf.clip_by_value(place, 0, extent - 1), axis=axis) * weight


def weights_on_zeros(cells: int, side: int) -> np.ndarray:
    """Return the `(side, cells)` weights by which `resize_on_zeros` makes `side` of `cells`."""
    points = (np.arange(side) + 0.5) * (cells / side) - 0.5
    return np.maximum(1.0 - np.abs(points[:, None] - np.arange(cells)), 0.0)
