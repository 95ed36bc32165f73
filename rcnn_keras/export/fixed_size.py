"""A detector as one graph for images of one size: what every file outside TensorFlow is made from.

H, W static height and width, R proposals, D detections, M mask size, P keypoints.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rcnn_keras.data.images import read_image, resize_image, resized_size
from rcnn_keras.export.preparation import check_detector, folded
from rcnn_keras.models import Detector, with_kernels
from rcnn_keras.models.inference import seen_size

STRIDE = 32  # pixels that height and width must divide by, as `ImageNormalization` pads to


class FixedSize(keras.Model):
    """A detector on one image of one size.

    The input is `{"images" (1, H, W, 3) uint8}`, and for detectors that take proposals also
    `"proposals" (1, R, 4)` float32 and `"num_proposals" (1,)` int32. Outputs are the detector's,
    of one image: `boxes` `(1, D, 4)` in pixels of the input, `scores` and `labels` `(1, D)`,
    `num_detections` `(1,)`, `masks` `(1, D, M, M)` and `keypoints` `(1, D, P, 3)`.

    Args:
        detector: the detector, of portable kernels.
        size: H and W.
        num_proposals: R; not used by a detector that finds its own.
    """

    def __init__(self, detector: Detector, size: tuple[int, int], num_proposals: int = 300):
        super().__init__()
        self.detector = detector
        self.size = size
        self.num_proposals = num_proposals
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Detect; see the class."""
        return self.detector(inputs, training=False)

    @property
    def signature(self) -> dict[str, tf.TensorSpec]:
        """Shapes and types of the inputs by their names."""
        shapes: dict[str, tuple] = {"images": ((1, *self.size, 3), "uint8")}
        if self.detector.takes_proposals:
            shapes["proposals"] = ((1, self.num_proposals, 4), "float32")
            shapes["num_proposals"] = ((1,), "int32")
        return {name: tf.TensorSpec(*shape, name=name) for name, shape in shapes.items()}


def fixed_size(model: Detector, size: tuple[int, int], num_proposals: int = 300) -> FixedSize:
    """Return a detector without batch norms, on portable kernels, for images of one size.

    Raises:
        ValueError: for a number of proposals below 1, of a detector that takes them.
    """
    if model.takes_proposals and num_proposals < 1:
        raise ValueError(f"num_proposals must be at least 1; received {num_proposals!r}")
    return FixedSize(with_kernels(folded(model), "portable"), size, num_proposals)


def checked_size(model: Any, size: Sequence[int] | None) -> tuple[int, int]:
    """Return the height and width of a file's images, the model's own where `size` is None.

    The model's own is that of its largest image in landscape: `min_size` high and `max_size` wide,
    rounded up to what the pyramid divides by.

    Raises:
        TypeError: if the model is not a detector of this package.
        ValueError: for a size that is none, too small, or that does not divide by 32.
    """
    check_detector(model)
    if size is None:
        if model.min_size is None:
            raise ValueError(
                f"{type(model).__name__} has no image size of its own: give size=(height, width)"
            )
        size = [-(-side // STRIDE) * STRIDE for side in (model.min_size, model.max_size)]
    sides = size if np.ndim(size) == 1 else ()
    if len(sides) != 2 or not all(isinstance(x, int | np.integer) and x > 0 for x in sides):
        raise ValueError(f"size must be height and width in pixels; received {size!r}")
    height, width = map(int, size)
    if min(height, width) < 2 * STRIDE or height % STRIDE or width % STRIDE:
        near = tuple(max(2, round(side / STRIDE)) * STRIDE for side in (height, width))
        raise ValueError(
            f"size must be multiples of {STRIDE} from {2 * STRIDE} up; received {(height, width)}, "
            f"near to which is {near}"
        )
    return height, width


def padding_of(model: Detector) -> tuple[int, int, int]:
    """Return the colour that `ImageNormalization` turns into its own padding: RGB."""
    layer = model.normalize
    parts = zip(layer.mean, layer.std, layer.padding, strict=True)
    red, green, blue = (round(mean + std * padding) for mean, std, padding in parts)
    return red, green, blue


def letterboxed(
    image: Any, model: Detector, size: tuple[int, int]
) -> tuple[np.ndarray, tuple[float, float]]:
    """Resize an image as `detect` does, and pad it to a file's size.

    Args:
        image: a path or an array, as `read_image` takes them.
        model: the detector.
        size: H and W. An image that the detector would see larger is made to fit.

    Returns:
        `(1, H, W, 3)` uint8, the image in the upper left corner, and by what x and y of a box in
        it are multiplied for pixels of the image that was given.
    """
    pixels = read_image(image, model.value_range)
    height, width = pixels.shape[:2]
    new = seen_size(model, height, width)
    if new[0] > size[0] or new[1] > size[1]:
        new = resized_size(height, width, *_fit(height, width, size))
    if model.image_rule is not None:
        pixels = np.asarray(model.image_rule.resize(pixels, *new))
    elif new != (height, width):
        pixels = np.asarray(resize_image(pixels, *new, antialias=model.antialias))
    canvas = np.empty((1, *size, 3), np.uint8)
    canvas[:] = padding_of(model)
    canvas[0, : new[0], : new[1]] = np.round(pixels)
    return canvas, (width / new[1], height / new[0])


def _fit(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the shorter and the longer side of the largest image that fits a size."""
    scale = min(size[0] / height, size[1] / width)
    sides = sorted((int(height * scale), int(width * scale)))
    return max(sides[0], 1), max(sides[1], 1)
