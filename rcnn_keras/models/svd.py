"""Dense layers of a box head as two thin ones (Fast R-CNN, 3.1): less time for many proposals."""

import numpy as np

from rcnn_keras.models.fast_rcnn import FastRCNN


def truncate_svd(model: FastRCNN, ranks: tuple[int, int] = (1024, 256)) -> FastRCNN:
    """Return a copy of a detector whose fc6 and fc7 have lost their least singular values.

    A layer of u x v weights W = U S V^T becomes two of t (u + v) weights, V^T and U S, where t
    singular values are kept: a fifth of the work for VGG-16's fc6 with t = 1024. For inference; the
    detections change a little, the less the more values are kept.

    Args:
        model: the detector, which stays as it is; its head must have the two layers.
        ranks: t of fc6 and of fc7; the defaults are the paper's for VGG-16.

    Raises:
        ValueError: for a head without the two layers, or one that was truncated before, and for
            ranks above what the layers have.
    """
    names = [layer.name for layer in model.box_head.trunk.layers]
    if not {"fc6", "fc7"} <= set(names) or "fc6_v" in names:
        raise ValueError(
            f"truncate_svd needs a box head with whole layers fc6 and fc7; has {names}"
        )
    if len(ranks) != 2:
        raise ValueError(f"ranks must be two numbers, of fc6 and fc7; received {ranks!r}")
    factors: dict[str, list[np.ndarray]] = {}
    for name, rank in zip(("fc6", "fc7"), ranks, strict=True):
        kernel, bias = model.box_head.trunk.get_layer(name).get_weights()
        if not 1 <= rank <= min(kernel.shape):
            raise ValueError(f"the rank of {name} must be in 1..{min(kernel.shape)}; got {rank!r}")
        first, second = _factors(kernel, rank)
        factors |= {f"{name}_v": [first], name: [second, bias]}
    thin = type(model).from_config(model.get_config() | {"box_ranks": tuple(ranks)})
    for name, weights in factors.items():
        thin.box_head.trunk.get_layer(name).set_weights(weights)
    _copy_all_but_trunk(model, thin)
    return thin


def _factors(kernel: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `(v, t)` and `(t, u)` whose product is nearest to a kernel `(v, u)`."""
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    return left[:, :rank], values[:rank, None] * right[:rank]


def _copy_all_but_trunk(source: FastRCNN, target: FastRCNN) -> None:
    pairs = [(source.backbone, target.backbone), (source.fpn, target.fpn)]
    pairs += [
        (getattr(source.box_head, name), getattr(target.box_head, name))
        for name in ("class_logits", "box_deltas")
    ]
    for ours, theirs in pairs:
        if ours is not None:
            theirs.set_weights(ours.get_weights())
