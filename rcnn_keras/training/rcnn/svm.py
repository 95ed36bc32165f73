"""Stage 2: one linear SVM a class, with hard negative mining (R-CNN, 2.3).

w windows of an image, F numbers a window, K classes.
"""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from rcnn_keras.training.rcnn.features import Windows

NEGATIVE_IOU = 0.3  # windows that overlap every object of a class by less are its negatives
# The published code's numbers.
POSITIVE_WEIGHT = 2.0
BIAS_SCALE = 10.0  # the bias is the weight of a feature of this value
HARD_MARGIN = -1.0001  # negatives above this are hard
EASY_MARGIN = -1.2  # negatives below this are dropped
NEGATIVES_A_RETRAINING = 2000
MOST_PASSES = 10
MOST_ITERATIONS = 100_000  # of the solver, which is rarely near to it
NEVER = -20.0  # margin of a class that has nothing to learn from


@dataclass
class SVMs:
    """What the mining ends with.

    Attributes:
        kernel: `(F, K)` float32.
        bias: `(K,)` float32.
        rounds: for each pass over the images a dict: `images` seen so far, and for each class
            number lists of `added` hard negatives, `kept` negatives and `retrainings`.
        converged: whether the last pass found no hard negative any more.
    """

    kernel: np.ndarray
    bias: np.ndarray
    rounds: list[dict]
    converged: bool


@dataclass
class _OneClass:
    """The examples of one class that are in memory, and its SVM."""

    positives: np.ndarray
    negatives: list[np.ndarray] = field(default_factory=list)
    keys: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))  # image, row
    weights: np.ndarray | None = None
    bias: float = NEVER
    waiting: int = 0  # negatives that the SVM has not seen
    added: int = 0  # in this pass
    retrainings: int = 0

    def add(self, image: int, features: np.ndarray, margins: np.ndarray, allowed: np.ndarray):
        """Take the negatives of an image that are hard and not here yet; all, without an SVM."""
        hard = allowed if self.weights is None else allowed & (margins > HARD_MARGIN)
        known = self.keys[self.keys[:, 0] == image, 1]
        rows = np.setdiff1d(np.flatnonzero(hard), known)
        self.negatives.append(features[rows])
        self.keys = np.concatenate([self.keys, np.stack([np.full_like(rows, image), rows], 1)])
        self.waiting += len(rows)
        self.added += len(rows)

    def retrain(self, c: float) -> None:
        """Solve for the examples that are here, and drop the easy negatives."""
        negatives = np.concatenate(self.negatives)
        self.weights, self.bias = linear_svm(self.positives, negatives, c)
        keep = negatives @ self.weights + self.bias >= EASY_MARGIN
        self.negatives, self.keys = [negatives[keep]], self.keys[keep]
        self.waiting = 0
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
    most_passes: int = MOST_PASSES,
) -> SVMs:
    """Train one SVM a class, looking for hard negatives image by image.

    Positives are the ground truth boxes; negatives the windows with IoU below 0.3 with all of the
    class. A negative is hard when its margin is above -1. An SVM is trained anew whenever 2,000
    hard negatives have come together, and at the end of a pass; easy ones (below -1.2) are dropped
    then. The passes end when one finds nothing new: what was never taken in, or dropped, lies
    beyond the margin, so the solution is the one for all negatives.

    Args:
        images: for each image features `(w, F)`, scaled, and their windows.
        num_classes: K. A class without ground truth, or without negatives, gets an SVM that never
            finds it.
        c: what a unit of hinge loss costs; that of a positive costs twice as much.
        log: takes lines of text.
        most_passes: after which mining ends all the same.

    Raises:
        ImportError: without scikit-learn; says how to get it.
    """
    require_sklearn()
    classes = [_OneClass(p) for p in _positives(images, num_classes)]
    rounds: list[dict] = []
    converged = False
    while not converged and len(rounds) < most_passes:
        for number in range(len(images)):
            features, windows = images[number]
            features = np.asarray(features)
            margins = features @ _kernel(classes, features) + [one.bias for one in classes]
            last = number == len(images) - 1
            for k, one in enumerate(classes):
                if not len(one.positives):
                    continue
                first = one.weights is None
                allowed = windows.overlaps[:, k] < NEGATIVE_IOU
                one.add(number, features, margins[:, k], allowed)
                if one.waiting and (first or last or one.waiting > NEGATIVES_A_RETRAINING):
                    one.retrain(c)
        added, kept, retrainings = zip(*(one.end_pass() for one in classes), strict=True)
        seen = len(images) * (len(rounds) + 1)
        rounds.append({"images": seen, "added": added, "kept": kept, "retrainings": retrainings})
        log(
            f"pass {len(rounds)}: {seen} images seen, {sum(added)} hard negatives added, "
            f"{sum(kept)} kept, {sum(retrainings)} trainings"
        )
        converged = sum(added) == 0
    bias = np.array([one.bias for one in classes], np.float32)
    return SVMs(_kernel(classes, images[0][0]), bias, rounds, converged)


def _kernel(classes: Sequence[_OneClass], features: np.ndarray) -> np.ndarray:
    """Return the weights of all classes, `(F, K)` float32, zeros where there are none yet."""
    zeros = np.zeros(features.shape[1])
    weights = [zeros if one.weights is None else one.weights for one in classes]
    return np.stack(weights, axis=1).astype(np.float32)


def linear_svm(positives: np.ndarray, negatives: np.ndarray, c: float) -> tuple[np.ndarray, float]:
    """Return weights `(F,)` and bias of a linear SVM with hinge loss.

    It minimises `(|w|^2 + (b / 10)^2) / 2 + c * (2 * loss of positives + loss of negatives)`.

    Args:
        positives: `(p, F)`.
        negatives: `(n, F)`.
        c: cost of a unit of loss.
    """
    from sklearn.svm import LinearSVC

    svm = LinearSVC(
        C=c,
        loss="hinge",
        class_weight={1: POSITIVE_WEIGHT, -1: 1.0},
        intercept_scaling=BIAS_SCALE,
        max_iter=MOST_ITERATIONS,
        random_state=0,
    )
    signs = np.repeat([1, -1], [len(positives), len(negatives)])
    svm.fit(np.concatenate([positives, negatives]), signs)
    return svm.coef_[0], float(svm.intercept_[0])


def require_sklearn() -> None:
    """Raise an ImportError that says how to get scikit-learn, if it is missing."""
    if importlib.util.find_spec("sklearn") is None:
        raise ImportError(
            "the SVMs of R-CNN are trained by scikit-learn: pip install 'rcnn-keras[rcnn]', or "
            "pip install scikit-learn"
        )


def _positives(images: Sequence[tuple[np.ndarray, Windows]], num_classes: int) -> list[np.ndarray]:
    """Return the features of each class's ground truth, `(p_k, F)`."""
    found: list[list[np.ndarray]] = [[] for _ in range(num_classes)]
    for number in range(len(images)):
        features, windows = images[number]
        for k, rows in enumerate(found):
            rows.append(np.asarray(features)[windows.labels == k])
    return [np.concatenate(rows) for rows in found]
