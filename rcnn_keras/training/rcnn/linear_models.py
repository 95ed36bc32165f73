"""Stages 2 and 3 of R-CNN: linear SVMs with hard negative mining, and box regression.

One SVM per class (R-CNN, 2.3), and a ridge regression from pool5 to the nearest ground truth
(appendix C). w windows of an image, n windows in all, F features of fc7 and P of pool5 a window, K
classes.
"""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rcnn_keras.training.rcnn.features import FeatureCache, Windows

NEGATIVE_IOU = 0.3  # windows of a smaller IoU with every object of a class are its negatives
# The published code's numbers.
POSITIVE_WEIGHT = 2.0
BIAS_SCALE = 10.0  # the bias is the weight of a constant feature of this value
HARD_MARGIN = -1.0001  # negatives above this are hard
EASY_MARGIN = -1.2  # negatives below this are dropped
NEGATIVES_PER_RETRAINING = 2000
MAX_PASSES = 10
MAX_ITERATIONS = 100_000  # of the solver, which rarely needs as many
NEVER = -20.0  # margin of a class without examples


@dataclass
class SVMs:
    """The result of hard negative mining.

    Attributes:
        kernel: `(F, K)` float32.
        bias: `(K,)` float32.
        rounds: for each pass over the images a dict: `images` seen so far, and for each class
            number lists of `added` hard negatives, `kept` negatives and `retrainings`.
        converged: whether the last pass found no new hard negative.
    """

    kernel: np.ndarray
    bias: np.ndarray
    rounds: list[dict]
    converged: bool


@dataclass
class _ClassSVM:
    """The SVM of one class, and the examples that are in memory."""

    positives: np.ndarray
    negatives: list[np.ndarray] = field(default_factory=list)
    keys: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))  # image, row
    weights: np.ndarray | None = None
    bias: float = NEVER
    pending: int = 0  # negatives that the SVM was not trained with
    added: int = 0  # in this pass
    retrainings: int = 0

    def add(
        self, image: int, features: np.ndarray, margins: np.ndarray, allowed: np.ndarray
    ) -> None:
        """Add the new hard negatives of an image; all its negatives if there is no SVM yet."""
        hard = allowed if self.weights is None else allowed & (margins > HARD_MARGIN)
        known = self.keys[self.keys[:, 0] == image, 1]
        rows = np.setdiff1d(np.flatnonzero(hard), known)
        self.negatives.append(features[rows])
        self.keys = np.concatenate([self.keys, np.stack([np.full_like(rows, image), rows], 1)])
        self.pending += len(rows)
        self.added += len(rows)

    def retrain(self, c: float) -> None:
        """Train on the examples in memory, and drop the easy negatives."""
        negatives = np.concatenate(self.negatives)
        self.weights, self.bias = linear_svm(self.positives, negatives, c)
        keep = negatives @ self.weights + self.bias >= EASY_MARGIN
        self.negatives, self.keys = [negatives[keep]], self.keys[keep]
        self.pending = 0
        self.retrainings += 1

    def end_pass(self) -> tuple[int, int, int]:
        """Return the pass's numbers of hard negatives, kept negatives and retrainings."""
        numbers = self.added, len(self.keys), self.retrainings
        self.added = self.retrainings = 0
        return numbers


def train_svms(
    images: Sequence[tuple[np.ndarray, Windows]],
    num_classes: int,
    *,
    c: float,
    log: Callable[[str], None],
    max_passes: int = MAX_PASSES,
) -> SVMs:
    """Train one SVM per class, mining hard negatives image by image.

    Positives are the ground truth boxes; negatives the windows with IoU below 0.3 with all of the
    class. A negative is hard when its margin is above -1. An SVM is trained again whenever 2,000
    new hard negatives were found, and at the end of a pass; easy ones (below -1.2) are then
    dropped. Mining ends when a pass finds no new ones: all other negatives lie beyond the margin,
    so the solution is that for all negatives.

    Args:
        images: for each image features `(w, F)`, scaled, and their windows.
        num_classes: K. A class without ground truth or without negatives gets an SVM that never
            predicts it.
        c: weight of the hinge loss; that of positives has twice this weight.
        log: called with lines of text.
        max_passes: number of passes after which mining ends in any case.

    Raises:
        ImportError: without scikit-learn; says how to get it.
    """
    require_sklearn()
    svms = [_ClassSVM(p) for p in _positives(images, num_classes)]
    rounds: list[dict] = []
    converged = False
    while not converged and len(rounds) < max_passes:
        for number in range(len(images)):
            features, windows = images[number]
            features = np.asarray(features)
            margins = features @ _kernel(svms, features) + [svm.bias for svm in svms]
            last = number == len(images) - 1
            for k, svm in enumerate(svms):
                if not len(svm.positives):
                    continue
                first = svm.weights is None
                allowed = windows.overlaps[:, k] < NEGATIVE_IOU
                svm.add(number, features, margins[:, k], allowed)
                if svm.pending and (first or last or svm.pending > NEGATIVES_PER_RETRAINING):
                    svm.retrain(c)
        added, kept, retrainings = zip(*(svm.end_pass() for svm in svms), strict=True)
        seen = len(images) * (len(rounds) + 1)
        rounds.append({"images": seen, "added": added, "kept": kept, "retrainings": retrainings})
        log(
            f"pass {len(rounds)}: {seen} images seen, {sum(added)} hard negatives added, "
            f"{sum(kept)} kept, {sum(retrainings)} trainings"
        )
        converged = sum(added) == 0
    bias = np.array([svm.bias for svm in svms], np.float32)
    return SVMs(_kernel(svms, images[0][0]), bias, rounds, converged)


def _kernel(svms: Sequence[_ClassSVM], features: np.ndarray) -> np.ndarray:
    """Return the weights of all classes, `(F, K)` float32, zeros for classes without an SVM."""
    zeros = np.zeros(features.shape[1])
    weights = [zeros if svm.weights is None else svm.weights for svm in svms]
    return np.stack(weights, axis=1).astype(np.float32)


def linear_svm(positives: np.ndarray, negatives: np.ndarray, c: float) -> tuple[np.ndarray, float]:
    """Return weights `(F,)` and bias of a linear SVM with hinge loss.

    It minimises `(|w|^2 + (b / 10)^2) / 2 + c * (2 * loss of positives + loss of negatives)`.

    Args:
        positives: `(p, F)`.
        negatives: `(n, F)`.
        c: weight of the loss.
    """
    from sklearn.svm import LinearSVC

    svm = LinearSVC(
        C=c,
        loss="hinge",
        class_weight={1: POSITIVE_WEIGHT, -1: 1.0},
        intercept_scaling=BIAS_SCALE,
        max_iter=MAX_ITERATIONS,
        random_state=0,
    )
    signs = np.repeat([1, -1], [len(positives), len(negatives)])
    svm.fit(np.concatenate([positives, negatives]), signs)
    return svm.coef_[0], float(svm.intercept_[0])


def require_sklearn() -> None:
    """Raise an ImportError that says how to install scikit-learn, if it is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "the SVMs of R-CNN are trained by scikit-learn: pip install 'rcnn-keras[rcnn]', or "
            "pip install scikit-learn"
        )


def _positives(images: Sequence[tuple[np.ndarray, Windows]], num_classes: int) -> list[np.ndarray]:
    """Return the features of each class's ground truth, `(p_k, F)`."""
    positives: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    for number in range(len(images)):
        features, windows = images[number]
        for k, rows in enumerate(positives):
            rows.append(np.asarray(features)[windows.labels == k])
    return [np.concatenate(rows) for rows in positives]


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
