"""Augmentations of a program: imgaug's, functions of its own, and this package's."""

import importlib
import inspect
from typing import Any

import numpy as np
import tensorflow as tf

# Augmenters of imgaug that move pixels and keep a mask a mask.
OF_MASKS = (
    *("Sequential", "SomeOf", "OneOf", "Sometimes", "Fliplr", "Flipud", "CropAndPad"),
    *("Affine", "PiecewiseAffine"),
)


def augmented(
    augmentation: Any, image: np.ndarray, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image `(H, W, 3)` and its masks `(H, W, N)` bool, changed alike.

    Args:
        augmentation: an augmenter of imgaug; a function from image and masks to both; or one of
            this package's, from a sample and a seed.
        image: uint8.
        mask: bool.

    Raises:
        TypeError: for anything else.
        ValueError: if the sizes change.
    """
    if hasattr(augmentation, "to_deterministic"):
        changed, masks = _by_imgaug(augmentation, image, mask)
    elif _takes_samples(augmentation):
        changed, masks = _by_sample(augmentation, image, mask)
    elif callable(augmentation):
        changed, masks = augmentation(image, mask)
    else:
        raise TypeError(
            f"augmentation must be an augmenter of imgaug, a function from image and masks to "
            f"both, or one of this package's; received {augmentation!r}"
        )
    changed, masks = np.asarray(changed), np.asarray(masks).astype(bool)
    if changed.shape != image.shape or masks.shape != mask.shape:
        raise ValueError(
            f"augmentation must keep the shapes {image.shape} and {mask.shape}; it gave "
            f"{changed.shape} and {masks.shape}"
        )
    return changed, masks


def _by_imgaug(augmenter: Any, image: np.ndarray, mask: np.ndarray) -> tuple[Any, Any]:
    """Augment image and masks by the same draw, the masks by what moves pixels alone."""
    fixed = augmenter.to_deterministic()
    changed = fixed.augment_image(image)
    if not mask.shape[-1]:
        return changed, mask
    hooks = {}
    if type(augmenter).__module__.split(".")[0] == "imgaug":
        imgaug = importlib.import_module("imgaug")

        def moves_pixels(images: Any, each: Any, parents: Any, default: Any) -> bool:
            return type(each).__name__ in OF_MASKS

        hooks["hooks"] = imgaug.HooksImages(activator=moves_pixels)
    return changed, fixed.augment_image(mask.astype(np.uint8), **hooks)


def _takes_samples(augmentation: Any) -> bool:
    """Return whether an augmentation is one of this package's, or of their form."""
    if not callable(augmentation):
        return False
    if type(augmentation).__module__.startswith("rcnn_keras."):
        return True
    return "seed" in inspect.signature(augmentation).parameters


def _by_sample(augmentation: Any, image: np.ndarray, mask: np.ndarray) -> tuple[Any, Any]:
    """Augment as `rk.data.Batches` does; objects that are cut away are left out there."""
    height, width, count = mask.shape
    whole = np.tile(np.array([[0, 0, width, height]], np.float32), (count, 1))
    sample = {
        "image": tf.constant(image, tf.float32),
        "boxes": tf.constant(whole, shape=(count, 4)),
        "labels": tf.range(count),
        "crowd": tf.zeros([count], tf.bool),
        "masks": tf.constant(np.packbits(np.moveaxis(mask, -1, 0), axis=2)),
    }
    seed = tf.constant(np.random.randint(0, 2**31, 2), tf.int64)
    changed = {k: np.asarray(v) for k, v in augmentation(sample, seed).items()}
    pixels = np.zeros(image.shape, image.dtype)
    high, wide = (min(a, b) for a, b in zip(changed["image"].shape, image.shape[:2], strict=False))
    part = np.clip(np.rint(changed["image"]), 0, 255).astype(image.dtype)
    pixels[:high, :wide] = part[:high, :wide]
    masks = np.zeros(mask.shape, bool)
    unpacked = np.unpackbits(changed["masks"], axis=2).astype(bool)
    for label, of_object in zip(changed["labels"], unpacked, strict=True):
        masks[:high, :wide, label] = of_object[:high, :wide]
    return pixels, masks
