"""Images and their objects as the network sees them, read from a `Dataset`."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from rcnn_keras.compat.mrcnn import utils
from rcnn_keras.compat.mrcnn.augmentation import augmented
from rcnn_keras.compat.mrcnn.config import Config


def load_image_gt(
    dataset: utils.Dataset,
    config: Config,
    image_id: int,
    augment: bool = False,
    augmentation: Any = None,
    use_mini_mask: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return an image as the network sees it, and its objects there.

    Args:
        dataset: prepared.
        config: of sizes.
        image_id: the image's number.
        augment: mirror it left to right by chance.
        augmentation: as in `train`.
        use_mini_mask: give masks inside their boxes, of `MINI_MASK_SHAPE`.

    Returns:
        `image` `(H, W, 3)` of the dataset's type; `image_meta`, see `compose_image_meta`;
        `class_ids` `(N,)`, `bbox` `(N, 4)` int32, and `mask` `(H, W, N)` bool.

    Raises:
        ValueError: for masks that do not fit the image or their class ids; names the image.
    """
    image = np.asarray(dataset.load_image(image_id))
    mask, class_ids = dataset.load_mask(image_id)
    mask, class_ids = _checked_masks(dataset, image_id, image, mask, class_ids)
    original_shape = image.shape
    image, window, scale, padding, crop = utils.resize_image(
        image,
        min_dim=config.IMAGE_MIN_DIM,
        max_dim=config.IMAGE_MAX_DIM,
        min_scale=config.IMAGE_MIN_SCALE,
        mode=config.IMAGE_RESIZE_MODE,
    )
    mask = utils.resize_mask(mask, scale, padding, crop)
    if augment and np.random.randint(2):
        image, mask = np.fliplr(image), np.fliplr(mask)
    if augmentation is not None:
        image, mask = augmented(augmentation, image, mask)
    kept = mask.any(axis=(0, 1))
    mask, class_ids = mask[..., kept], class_ids[kept]
    bbox = utils.extract_bboxes(mask)
    active = np.zeros([dataset.num_classes], np.int32)
    active[dataset.source_class_ids[dataset.image_info[image_id]["source"]]] = 1
    if use_mini_mask:
        mask = utils.minimize_mask(bbox, mask, config.MINI_MASK_SHAPE)
    meta = compose_image_meta(image_id, original_shape, image.shape, window, scale, active)
    return image, meta, class_ids, bbox, mask


def _checked_masks(
    dataset: utils.Dataset, image_id: int, image: np.ndarray, mask: Any, class_ids: Any
) -> tuple[np.ndarray, np.ndarray]:
    info = dataset.image_info[image_id]
    where = f"image {image_id} ({info['source']}.{info['id']}, {info.get('path')})"
    mask, class_ids = np.asarray(mask), np.asarray(class_ids, np.int32).reshape(-1)
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"{where}: load_image gives the shape {image.shape}, not (H, W, 3)")
    if mask.size == 0 and len(class_ids) == 0:
        return np.zeros((*image.shape[:2], 0), bool), class_ids
    if mask.ndim != 3 or mask.shape[:2] != image.shape[:2] or mask.shape[2] != len(class_ids):
        raise ValueError(
            f"{where}: load_mask gives the shape {mask.shape} with {len(class_ids)} class ids; "
            f"for this image it must be {(*image.shape[:2], len(class_ids))}"
        )
    wrong = class_ids[(np.abs(class_ids) < 1) | (np.abs(class_ids) >= dataset.num_classes)]
    if len(wrong):
        raise ValueError(
            f"{where}: class id {wrong[0]} is not in 1..{dataset.num_classes - 1}, the classes of "
            f"the dataset"
        )
    return mask.astype(bool), class_ids


def compose_image_meta(
    image_id: int,
    original_image_shape: Sequence[int],
    image_shape: Sequence[int],
    window: Sequence[int],
    scale: float,
    active_class_ids: Any,
) -> np.ndarray:
    """Return an image's meta data as numbers: id, shapes (3, 3), window (4), scale, classes."""
    parts = ([image_id], original_image_shape, image_shape, window, [scale], active_class_ids)
    return np.concatenate([np.asarray(part, np.float64).reshape(-1) for part in parts])


def parse_image_meta(meta: np.ndarray) -> dict[str, np.ndarray]:
    """Return the parts of `(B, n)` meta data by their names."""
    return {
        "image_id": meta[:, 0].astype(np.int32),
        "original_image_shape": meta[:, 1:4].astype(np.int32),
        "image_shape": meta[:, 4:7].astype(np.int32),
        "window": meta[:, 7:11].astype(np.int32),
        "scale": meta[:, 11].astype(np.float32),
        "active_class_ids": meta[:, 12:].astype(np.int32),
    }


def mold_image(images: np.ndarray, config: Config) -> np.ndarray:
    """Subtract the mean; float32. `MaskRCNN` does it by itself."""
    return images.astype(np.float32) - config.MEAN_PIXEL


def unmold_image(normalized_images: np.ndarray, config: Config) -> np.ndarray:
    """Undo `mold_image`; uint8."""
    return (normalized_images + config.MEAN_PIXEL).astype(np.uint8)
