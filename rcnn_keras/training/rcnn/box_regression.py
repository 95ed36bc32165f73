"""Stage 3: ridge regression from pool5 to the nearest ground truth (R-CNN, appendix C).

n windows, P features of pool5, K classes.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from rcnn_keras.training.rcnn.features import FeatureCache

EXAMPLES_PER_CHUNK = 4096  # each chunk updates all P x P numbers


def train_box_regressors(
    cache: FeatureCache, num_classes: int, ridge: float
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Fit for each class the regression that moves its proposals onto their objects.

    Examples of a class are the windows with IoU above 0.6 with an object of the class, if no other
    object overlaps them more. Features are scaled to a mean norm of 20 as in the published code,
    on which the meaning of `ridge` depends; the returned kernel includes the scale.

    Args:
        cache: filled with all features.
        num_classes: K. A class without examples does not move its proposals.
        ridge: lambda, the penalty of squared weights; 1000 in the paper.

    Returns:
        Kernel `(P, 4K)` and bias `(4K,)` float32, the four deltas of a class side by side, and the
        number of examples of each class.
    """
    scale = cache.scale("pool5")
    kernels, biases, counts = [], [], []
    for label in range(num_classes):
        kernel, bias, count = ridge_regression(_examples(cache, label, scale), ridge)
        kernels.append(kernel * scale)
        biases.append(bias)
        counts.append(count)
    kernel = np.concatenate(kernels, axis=1).astype(np.float32)
    return kernel, np.concatenate(biases).astype(np.float32), counts


def ridge_regression(
    chunks: Iterable[tuple[np.ndarray, np.ndarray]], ridge: float
) -> tuple[np.ndarray, np.ndarray, int]:
    """Minimise `|Y - X w - b|^2 + ridge * |w|^2` in closed form, in float64.

    The bias is not penalised, which is why features and targets are centred. Examples are read
    once, chunk by chunk; memory holds P x P numbers and not the examples.

    Args:
        chunks: features `(m, P)` and targets `(m, T)`, at least one chunk, which may be empty.
        ridge: above 0.

    Returns:
        `w` `(P, T)`, `b` `(T,)` and the number of examples; zeros without any.
    """
    count = 0
    gram: Any = 0.0
    cross: Any = 0.0
    sum_x: Any = 0.0
    sum_y: Any = 0.0
    for features, targets in chunks:
        x, y = np.asarray(features, np.float64), np.asarray(targets, np.float64)
        count += len(x)
        gram, cross = gram + x.T @ x, cross + x.T @ y
        sum_x, sum_y = sum_x + x.sum(axis=0), sum_y + y.sum(axis=0)
    mean_x, mean_y = np.divide(sum_x, max(count, 1)), np.divide(sum_y, max(count, 1))
    gram = gram - count * np.outer(mean_x, mean_x)
    np.fill_diagonal(gram, gram.diagonal() + ridge)
    weights = np.linalg.solve(gram, cross - count * np.outer(mean_x, mean_y))
    return weights, mean_y - mean_x @ weights, count


def _examples(
    cache: FeatureCache, label: int, scale: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield scaled pool5 features and targets of a class, in chunks."""
    chunk: list[tuple[np.ndarray, np.ndarray]] = []
    for index in range(len(cache)):
        features, windows, near = cache.near(index)
        of_class = windows.labels[windows.nearest[near]] == label
        scaled = features[of_class] * np.float32(scale)
        chunk.append((scaled, windows.targets()[near[of_class]]))
        if index == len(cache) - 1 or sum(len(x) for x, _ in chunk) >= EXAMPLES_PER_CHUNK:
            x, y = zip(*chunk, strict=True)
            yield np.concatenate(x), np.concatenate(y)
            chunk = []
