"""Weights and images that both sides of the comparison draw themselves, so that none are shipped.

A tensor depends on its PyTorch name, its shape and a seed alone. Each layer keeps the size of its
input's signal; the layers that end a head are larger, so that scores and boxes spread as a trained
detector's do. Needs numpy only.
"""

import hashlib

import numpy as np

# Deviation of a kernel times the root of its inputs, by a part of the name; the first that fits.
GAINS = (
    ("fpn.layer_blocks", 0.4),
    ("rpn.head.cls_logits", 1.2),
    ("rpn.head.bbox_pred", 0.3),
    ("box_predictor.bbox_pred", 1.2),
    ("mask_fcn_logits", 2.5),
)
RESIDUAL_ENDS = ("bn3.weight", ".3.1.weight")  # small gains keep a sum of many blocks small


def seeded_tensor(name, shape, seed=0, class_gain=2.5):
    """Return the array `name` stands for: float32, or int64 zeros for batch norm's counters."""
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "big"))
    if name.endswith("running_var"):
        values = rng.uniform(0.7, 1.3, shape)
    elif name.endswith(("running_mean", "bias")):
        values = rng.normal(0, 0.03, shape)
    elif len(shape) == 1:
        values = rng.uniform(0.8, 1.2, shape) * (0.3 if name.endswith(RESIDUAL_ENDS) else 1)
    else:
        values = rng.normal(0, _gain(name, class_gain) / np.prod(shape[1:]) ** 0.5, shape)
    return values.astype(np.float32)


def _gain(name, class_gain):
    if "box_predictor.cls_score" in name:
        return class_gain
    return next((gain for part, gain in GAINS if part in name), 2**0.5)


def seeded_state(shapes, seed=0, class_gain=2.5):
    """Return the state dict for `shapes`, by the tensors' names."""
    return {name: seeded_tensor(name, tuple(shapes[name]), seed, class_gain) for name in shapes}


def seeded_image(height, width, seed=0):
    """Return a uint8 RGB image `(height, width, 3)` of a smooth ground with plain boxes on it."""
    rng = np.random.default_rng([height, width, seed])
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = rng.uniform(-40, 40, (6, 3, 2)), rng.uniform(0, 2 * np.pi, (6, 3))
    image = sum(
        np.sin(np.multiply.outer(y, f[:, 0]) + np.multiply.outer(x, f[:, 1]) + p)
        for f, p in zip(*waves, strict=True)
    )
    for _ in range(12):
        top, left = rng.uniform(0, 0.9, 2) * (height, width)
        side = rng.uniform(0.05, 0.4, 2) * min(height, width)
        inside = np.s_[int(top) : int(top + side[0]), int(left) : int(left + side[1])]
        image[inside] = image[inside] * 0.2 + rng.normal(0, 3, 3)
    image = (image - image.min()) / (image.max() - image.min())
    return np.round(image * 255).astype(np.uint8)
