"""A sample: one image and its objects on the way to a batch; `augmentation` lists its entries."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import keras
import tensorflow as tf

from rcnn_keras.data.bitmasks import change_masks, mirror_masks, visible_masks
from rcnn_keras.data.images import resize_image
from rcnn_keras.data.keypoints import HIDDEN, NOT_LABELLED

Sample = dict[str, tf.Tensor]


NOT_OF_OBJECTS = ("image", "proposals", "mirrored_keypoints")


def keep_objects(sample: Sample, keep: tf.Tensor) -> Sample:
    """Return the sample with the objects that `keep`, `(n,)` bool, is true for."""
    rows = {name: value for name, value in sample.items() if name not in NOT_OF_OBJECTS}
    return sample | {name: tf.boolean_mask(value, keep) for name, value in rows.items()}


def drop_empty_masks(sample: Sample) -> Sample:
    """Return the sample without the objects whose mask has no pixel; crowd regions stay."""
    return keep_objects(sample, visible_masks(sample["masks"]) | sample["crowd"])


Augmentation = Callable[[Sample, tf.Tensor], Sample]


MIN_SIDE = 1.0  # pixels of a clipped box's shorter side

MIN_VISIBLE = 0.1  # of a box's area


@dataclass(frozen=True)
class RandomFlip:
    """Mirror left to right, and upside down, each with probability 0.5.

    In a mirror a left hand is a right one, so pairs of keypoints change places, whichever way the
    image is mirrored; turned half way round, which is both at once, it stays what it was.
    """

    horizontal: bool = True
    vertical: bool = False

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Flip one sample."""
        coin = _uniform(seed, (2,), 0.0, 1.0) < 0.5
        height, width = _size(sample["image"])
        image = sample["image"]
        if self.horizontal:
            image = tf.cond(coin[0], lambda: tf.reverse(image, [1]), lambda: image)
        if self.vertical:
            upright = image
            image = tf.cond(coin[1], lambda: tf.reverse(upright, [0]), lambda: upright)

        def flip_boxes(boxes: tf.Tensor) -> tf.Tensor:
            x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
            if self.horizontal:
                x1, x2 = tf.where(coin[0], width - x2, x1), tf.where(coin[0], width - x1, x2)
            if self.vertical:
                y1, y2 = tf.where(coin[1], height - y2, y1), tf.where(coin[1], height - y1, y2)
            return tf.stack([x1, y1, x2, y2], axis=1)

        flipped = _with_boxes(sample, flip_boxes) | {"image": image}
        if "masks" in sample:
            flipped["masks"] = self._flip_masks(sample["masks"], tf.shape(image)[1], coin)
        if "keypoints" in sample:
            flipped["keypoints"] = self._flip_keypoints(sample, coin)
        return sample | flipped

    def _flip_keypoints(self, sample: Sample, coin: tf.Tensor) -> tf.Tensor:
        across, down = coin[0] & self.horizontal, coin[1] & self.vertical
        height, width = _size(sample["image"])
        keypoints = sample["keypoints"]
        order = tf.where(across ^ down, sample["mirrored_keypoints"], _numbers(keypoints))
        x, y, visibility = tf.unstack(tf.gather(keypoints, order, axis=1), axis=2)
        x, y = tf.where(across, width - x, x), tf.where(down, height - y, y)
        return only_labelled(tf.stack([x, y, visibility], axis=2))

    def _flip_masks(self, masks: tf.Tensor, width: tf.Tensor, coin: tf.Tensor) -> tf.Tensor:
        if self.horizontal:
            masks = tf.cond(coin[0], lambda: mirror_masks(masks, width), lambda: masks)
        if self.vertical:
            upright = masks
            masks = tf.cond(coin[1], lambda: tf.reverse(upright, [1]), lambda: upright)
        return masks


@dataclass(frozen=True)
class ScaleJitter:
    """Rescale by a factor drawn from low..high; what outgrows the image's first size is cropped.

    Large-scale jittering (Ghiasi et al., 2021, "Simple Copy-Paste"; torchvision's ScaleJitter and
    FixedSizeCrop). Below 1 the image becomes smaller, and the batch's padding fills what is left;
    above 1 a random window of 1/factor of each side is enlarged to the size that the image had.
    Both sides keep their ratio up to rounding to whole pixels.

    Raises:
        ValueError: unless 0 < low <= high.
    """

    low: float = 0.5
    high: float = 1.5

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"ScaleJitter needs 0 < low <= high, got {self.low} and {self.high}")

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Rescale one sample."""
        draw, place = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
        factor = _uniform(draw, (), self.low, self.high)
        size = tf.stack(_size(sample["image"]))
        window = tf.maximum(tf.round(size / tf.maximum(factor, 1.0)), 1.0)
        offset = tf.floor(_uniform(place, (2,), 0.0, 1.0) * (size - window + 1.0))
        resized = tf.maximum(tf.round(size * tf.minimum(factor, 1.0)), 1.0)

        top, left, height, width = tf.unstack(tf.cast(tf.concat([offset, window], 0), tf.int32))
        new_height, new_width = tf.unstack(tf.cast(resized, tf.int32))

        def rescale(image: tf.Tensor) -> tf.Tensor:
            crop = image[top : top + height, left : left + width]
            return resize_image(crop, new_height, new_width)

        ratio = tf.tile((resized / window)[::-1], [2])
        corner = tf.tile(offset[::-1], [2])
        return _moved(
            sample,
            rescale,
            lambda boxes: (boxes - corner) * ratio,
            lambda points: (points - corner[:2]) * ratio[:2],
        )


@dataclass(frozen=True)
class ColorJitter:
    """Change brightness, contrast, saturation and hue, in this order; boxes stay.

    As torchvision's ColorJitter, through `tf.image`: brightness adds up to the given part of 255,
    contrast and saturation are multiplied by a factor from 1 - value to 1 + value, hue turns by up
    to the given part of a whole turn.

    Raises:
        ValueError: when brightness, contrast or saturation is outside 0..1, or hue outside 0..0.5.
    """

    brightness: float = 0.125
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.05

    def __post_init__(self) -> None:
        _check("ColorJitter", "brightness", self.brightness, 1)
        _check("ColorJitter", "contrast", self.contrast, 1)
        _check("ColorJitter", "saturation", self.saturation, 1)
        _check("ColorJitter", "hue", self.hue, 0.5)

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Recolour one sample."""
        seeds = tf.random.experimental.stateless_split(seed, 4)
        image = sample["image"] / 255
        if self.brightness:
            image = tf.image.stateless_random_brightness(image, self.brightness, seeds[0])
        if self.contrast:
            factors = 1 - self.contrast, 1 + self.contrast
            image = tf.image.stateless_random_contrast(image, *factors, seeds[1])
        image = tf.clip_by_value(image, 0.0, 1.0)
        if self.saturation:
            factors = 1 - self.saturation, 1 + self.saturation
            image = tf.image.stateless_random_saturation(image, *factors, seeds[2])
        if self.hue:
            image = tf.image.stateless_random_hue(image, self.hue, seeds[3])
        return sample | {"image": 255 * tf.clip_by_value(image, 0.0, 1.0)}


@dataclass(frozen=True)
class RandomRotation:
    """Turn about the image's centre by an angle drawn from -degrees..degrees; the size stays.

    A box becomes the upright hull of its four turned corners, so it holds its object and is
    exact at quarter turns, loose between them: keep to small angles.

    Raises:
        ValueError: when degrees is outside 0..180.
    """

    degrees: float = 10.0

    def __post_init__(self) -> None:
        _check("RandomRotation", "degrees", self.degrees, 180)

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Turn one sample."""
        angle = _uniform(seed, (), -1.0, 1.0) * math.radians(self.degrees)
        cos, sin = tf.cos(angle), tf.sin(angle)
        return _affine(sample, tf.stack([[cos, -sin], [sin, cos]]), tf.zeros(2))


@dataclass(frozen=True)
class RandomTranslation:
    """Shift by whole pixels, up to the given fraction of the width and of the height.

    Raises:
        ValueError: when fraction is outside 0..1.
    """

    fraction: float = 0.1

    def __post_init__(self) -> None:
        _check("RandomTranslation", "fraction", self.fraction, 1)

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Shift one sample."""
        height, width = _size(sample["image"])
        most = self.fraction * tf.stack([width, height])
        return _affine(sample, tf.eye(2), tf.round(_uniform(seed, (2,), -1.0, 1.0) * most))


@dataclass(frozen=True)
class RandomErasing:
    """Cover one rectangle with noise or with the image's mean colour; boxes stay.

    Random erasing (Zhong et al., 2020) over the whole image. Keypoints under the rectangle stay,
    and count as hidden.

    Args:
        probability: of erasing at all.
        area: least and greatest part of the image's area.
        aspect: least and greatest height / width, drawn evenly in the logarithm.
        fill: "noise" draws every value from 0..255, "mean" uses the image's mean colour.

    Raises:
        ValueError: when a value is out of range or fill is neither of the two.
    """

    probability: float = 0.5
    area: tuple[float, float] = (0.02, 0.33)
    aspect: tuple[float, float] = (0.3, 3.3)
    fill: Literal["noise", "mean"] = "noise"

    def __post_init__(self) -> None:
        _check("RandomErasing", "probability", self.probability, 1)
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise ValueError(f"RandomErasing needs 0 < area[0] <= area[1] <= 1, got {self.area}")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"RandomErasing needs 0 < aspect[0] <= aspect[1], got {self.aspect}")
        if self.fill not in ("noise", "mean"):
            raise ValueError(f'RandomErasing: fill must be "noise" or "mean", got {self.fill!r}')

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Erase a rectangle of one sample."""
        image = sample["image"]
        seeds = tf.random.experimental.stateless_split(seed, 5)

        def erased() -> tuple[tf.Tensor, tf.Tensor]:
            size = tf.stack(_size(image))
            area = _uniform(seeds[1], (), *self.area) * tf.reduce_prod(size)
            aspect = tf.exp(_uniform(seeds[2], (), *map(math.log, self.aspect)))
            sides = tf.sqrt(tf.stack([area * aspect, area / aspect]))
            sides = tf.clip_by_value(tf.round(sides), 1.0, size)
            start = tf.floor(_uniform(seeds[3], (2,), 0.0, 1.0) * (size - sides + 1.0))
            margins = tf.cast(tf.stack([start, size - start - sides], axis=1), tf.int32)
            inside = tf.cast(sides, tf.int32)
            if self.fill == "noise":
                patch = _uniform(seeds[4], tf.concat([inside, [3]], 0), 0.0, 255.0)
                patch = tf.pad(patch, tf.concat([margins, [[0, 0]]], 0))
            else:
                patch = tf.reduce_mean(image, axis=[0, 1])
            rectangle = tf.pad(tf.ones(inside, tf.bool), margins)
            corners = tf.concat([start[::-1], (start + sides)[::-1]], axis=0)
            return tf.where(rectangle[..., None], patch, image), corners

        erase = _uniform(seeds[0], (), 0.0, 1.0) < self.probability
        image, corners = tf.cond(erase, erased, lambda: (image, tf.fill([4], -1.0)))
        changed = {"image": image}
        if "keypoints" in sample:
            points, visibility = sample["keypoints"][..., :2], sample["keypoints"][..., 2:]
            under = tf.reduce_all((points >= corners[:2]) & (points < corners[2:]), 2, True)
            visibility = tf.where(under, tf.minimum(visibility, HIDDEN), visibility)
            changed["keypoints"] = tf.concat([points, visibility], axis=2)
        return sample | changed


class Compose:
    """Apply augmentations one after the other, each with a seed of its own."""

    def __init__(self, *augmentations: Augmentation) -> None:
        for augmentation in augmentations:
            if not callable(augmentation):
                raise TypeError(f"Compose: {augmentation!r} is not callable")
        self.augmentations = augmentations

    def __call__(self, sample: Sample, seed: tf.Tensor) -> Sample:
        """Apply all to one sample."""
        for position, augmentation in enumerate(self.augmentations):
            own_seed = tf.random.experimental.stateless_fold_in(
                seed, tf.constant(position, seed.dtype)
            )
            sample = augmentation(sample, own_seed)
        return sample

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.augmentations))})"


def _affine(sample: Sample, matrix: tf.Tensor, shift: tf.Tensor) -> Sample:
    """Map each point p to matrix (p - c) + c + shift, with c the image's centre."""
    height, width = _size(sample["image"])
    centre = tf.stack([width, height]) / 2

    # Keras asks where each output pixel comes from, counting from the centre of the first pixel.
    inverse, middle = tf.linalg.inv(matrix), centre - 0.5
    origin = middle - tf.linalg.matvec(inverse, middle + shift)
    rows = tf.concat([inverse, origin[:, None]], axis=1)
    transform = tf.concat([tf.reshape(rows, [6]), tf.zeros(2)], axis=0)

    def move(image: tf.Tensor) -> tf.Tensor:
        return keras.ops.image.affine_transform(image, transform, data_format="channels_last")

    def turn(points: tf.Tensor) -> tf.Tensor:
        return tf.linalg.matvec(matrix, points - centre) + centre + shift

    def hull(boxes: tf.Tensor) -> tf.Tensor:
        x1, y1, x2, y2 = tf.unstack(boxes, axis=1)
        corners = tf.stack([[x1, x2, x2, x1], [y1, y1, y2, y2]])
        corners = tf.transpose(corners, [2, 1, 0])  # (n, 4 corners, xy)
        moved = turn(corners)
        return tf.concat([tf.reduce_min(moved, axis=1), tf.reduce_max(moved, axis=1)], axis=1)

    return _moved(sample, move, hull, turn)


Change = Callable[[tf.Tensor], tf.Tensor]


def _with_boxes(sample: Sample, change: Change) -> Sample:
    """Change the boxes of the objects, and the proposals where there are some."""
    names = [name for name in ("boxes", "proposals") if name in sample]
    return sample | {name: change(sample[name]) for name in names}


def _moved(sample: Sample, move: Change, move_boxes: Change, move_points: Change) -> Sample:
    """Move the image, each mask, boxes and keypoints; drop objects that are out of sight."""
    moved = _visible(_with_boxes(sample, move_boxes) | {"image": move(sample["image"])})
    if "keypoints" in moved:  # in the order of `_visible`, of the objects that are left
        points = move_points(moved["keypoints"][..., :2])
        keypoints = tf.concat([points, moved["keypoints"][..., 2:]], axis=2)
        moved |= {"keypoints": keypoints_in_sight(keypoints, moved["image"])}
    if "masks" in moved:  # of the objects that are left
        masks = change_masks(moved["masks"], tf.shape(sample["image"])[1], move)
        moved = drop_empty_masks(moved | {"masks": masks})
    return moved


def _visible(sample: Sample) -> Sample:
    """Clip the boxes to the image and drop the objects of which too little is left."""
    height, width = _size(sample["image"])
    whole = tf.stack([width, height, width, height])
    clipped = _with_boxes(sample, lambda boxes: tf.clip_by_value(boxes, 0.0, whole))
    sides, seen = _sides(sample["boxes"]), _sides(clipped["boxes"])
    keep = tf.reduce_min(seen, axis=1) >= MIN_SIDE
    keep &= tf.reduce_prod(seen, axis=1) >= MIN_VISIBLE * tf.reduce_prod(sides, axis=1)
    if "proposals" in sample:
        proposals = clipped["proposals"]
        large = tf.reduce_min(_sides(proposals), axis=1) >= MIN_SIDE
        clipped |= {"proposals": tf.boolean_mask(proposals, large)}
    return keep_objects(clipped, keep)


def only_labelled(keypoints: tf.Tensor) -> tf.Tensor:
    """Return keypoints `(n, P, 3)` with zeros for those that are not labelled."""
    return tf.where(keypoints[..., 2:] > NOT_LABELLED, keypoints, 0.0)


def keypoints_in_sight(keypoints: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Return keypoints `(n, P, 3)` with those outside the image no longer labelled."""
    height, width = _size(image)
    points = keypoints[..., :2]
    inside = tf.reduce_all((points >= 0.0) & (points <= tf.stack([width, height])), 2, True)
    return only_labelled(tf.where(inside, keypoints, 0.0))


def _numbers(keypoints: tf.Tensor) -> tf.Tensor:
    return tf.range(tf.shape(keypoints)[1])


def _sides(boxes: tf.Tensor) -> tf.Tensor:
    """Width and height, `(n, 2)`."""
    return boxes[:, 2:] - boxes[:, :2]


def _size(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Height and width as float32."""
    shape = tf.cast(tf.shape(image), tf.float32)
    return shape[0], shape[1]


def _uniform(
    seed: tf.Tensor, shape: tuple[int, ...] | tf.Tensor, low: float, high: float
) -> tf.Tensor:
    return low + (high - low) * tf.random.stateless_uniform(shape, seed)


def _check(augmentation: str, name: str, value: float, most: float) -> None:
    if not 0 <= value <= most:
        raise ValueError(f"{augmentation}: {name} must be in 0..{most}, got {value}")
