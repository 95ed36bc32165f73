"""Objectness: how likely a window is to hold an object of any class.

Alexe, Deselaers, Ferrari, "Measuring the Objectness of Image Windows" (PAMI 2012): a naive Bayes
classifier on the cues of `objectness_cues`, fitted to images with boxes.

    image     a path or an array, as `rk.data.read_image` takes them
    boxes     (n, 4) xyxy in pixels of the original image, before it is shrunk
    b         number of bins of a cue's values
    n         number of windows
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import read_image
from rcnn_keras.proposals.objectness_cues import (
    check_windows,
    color_contrast,
    edge_density,
    overlaps,
    sample_windows,
    superpixels_straddling,
    suppress,
)
from rcnn_keras.utils.atomic import atomic_write

BINS = 30

FORMAT = "rcnn_keras objectness 1"  # the last word changes when older programs cannot read a file


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """The two histograms of a cue.

    Attributes:
        theta: the cue's parameter, above 0.
        edges: `(b - 1,)` increasing values between the bins; a value equal to an edge belongs to
            the bin above it.
        object: `(b,)` p(bin | object): sums to 1, all above 0.
        background: `(b,)` p(bin | background): sums to 1, all above 0.

    Raises:
        ValueError: a value does not fit this description; says which.
    """

    theta: float
    edges: np.ndarray
    object: np.ndarray
    background: np.ndarray

    def __post_init__(self) -> None:
        if not 0 < self.theta < np.inf:
            raise ValueError(f"theta must be a number above 0, not {self.theta!r}")
        for name in ("edges", "object", "background"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), np.float64))
        if self.edges.ndim != 1 or not np.isfinite(self.edges).all():
            raise ValueError("edges must be a list of numbers")
        if np.any(np.diff(self.edges) <= 0):
            raise ValueError("edges must increase")
        for name in ("object", "background"):
            shares = getattr(self, name)
            if shares.shape != (len(self.edges) + 1,):
                raise ValueError(f"{name} must have one number more than edges")
            if not np.all(shares > 0) or not np.isclose(shares.sum(), 1, atol=1e-6):
                raise ValueError(f"{name} must be numbers above 0 that sum to 1")

    @classmethod
    def fit(cls, theta: float, objects: np.ndarray, background: np.ndarray) -> "Likelihoods":
        """Fit the histograms to a cue's values in windows of objects and of background.

        Bins hold equal shares of all values, objects and background weighted equally; where many
        values are equal there are fewer bins. One is added to each bin's count (Laplace smoothing),
        so that no probability is 0.

        Args:
            theta: the parameter that the values were computed with.
            objects: `(n,)` values of windows of objects, at least one.
            background: `(m,)` values of the other windows, at least one.
        """
        quantiles = np.linspace(0, 1, 1001)
        both = np.concatenate([np.quantile(objects, quantiles), np.quantile(background, quantiles)])
        edges = np.unique(np.quantile(both, np.linspace(0, 1, BINS + 1)[1:-1]))

        def histogram(values: np.ndarray) -> np.ndarray:
            counts = 1 + np.bincount(_bins(edges, values), minlength=len(edges) + 1)
            return counts / counts.sum()

        return cls(theta, edges, histogram(objects), histogram(background))

    def log_ratio(self, values: np.ndarray) -> np.ndarray:
        """Return log p(value | object) - log p(value | background), `(n,)` as the values."""
        return np.log(self.object / self.background)[_bins(self.edges, values)]


def write_likelihoods(
    path: str | PathLike[str], prior: float, cues: Mapping[str, Likelihoods]
) -> None:
    """Write a prior and the likelihoods of cues as a JSON file, atomically."""
    content: dict[str, Any] = {"format": FORMAT, "prior": prior, "cues": {}}
    for name, likelihoods in cues.items():
        numbers = {key: np.asarray(value).tolist() for key, value in asdict(likelihoods).items()}
        content["cues"][name] = numbers
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_likelihoods(path: str | PathLike[str]) -> tuple[float, dict[str, Likelihoods]]:
    """Return what `write_likelihoods` wrote.

    Raises:
        ValueError: the file is of another kind or damaged; names the file and the field.
        OSError: it cannot be read.
    """
    name = os.fspath(path)
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{name}: is not a file of objectness ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        stated = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{name}: is not a file of objectness: format {stated!r}, not {FORMAT!r}")
    try:
        prior, numbers = float(content["prior"]), dict(content["cues"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: prior or cues: {error!r}") from error
    cues = {}
    for cue, values in numbers.items():
        try:
            cues[cue] = Likelihoods(**values)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{name}: cue {cue!r}: {error}") from error
    return prior, cues


def _bins(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.searchsorted(edges, values, side="right")


Image = str | PathLike[str] | np.ndarray

Cue = Callable[[np.ndarray, np.ndarray, float], np.ndarray]


# Each cue, and the values among which its parameter theta is chosen.
CUES: dict[str, tuple[Cue, tuple[float, ...]]] = {
    "color_contrast": (color_contrast, (1.1, 1.25, 1.5, 2.0)),
    "edge_density": (edge_density, (1.25, 1.5, 2.0, 3.0)),
    "superpixels_straddling": (superpixels_straddling, (30.0, 60.0, 120.0, 240.0, 480.0)),
}

LONGEST_SIDE = 400  # pixels; larger images are shrunk to it before cues are computed

POSITIVE_IOU = 0.5


@dataclass(frozen=True, eq=False)
class Objectness:
    """A fitted classifier: the prior of objects, and the likelihoods of each cue.

    Attributes:
        prior: p(object) of a sampled window, between 0 and 1.
        cues: parameter and likelihoods of each cue in use; names are those of `CUES`.

    Raises:
        ValueError: a prior outside of 0..1, no cue, or an unknown one.
    """

    prior: float
    cues: Mapping[str, Likelihoods]

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise ValueError(f"prior must be between 0 and 1, not {self.prior!r}")
        if not self.cues or not set(self.cues) <= set(CUES):
            raise ValueError(f"cues must be some of {list(CUES)}, not {list(self.cues)}")

    @classmethod
    def fit(
        cls, dataset: DetectionDataset, *, images: int = 100, windows: int = 3000, seed: int = 0
    ) -> "Objectness":
        """Fit the parameters to images with boxes of their objects, whatever their classes.

        A window is an object's if its IoU with a box is above 0.5, otherwise background. Windows of
        crowd regions are left out. Each cue's theta is the one of a few values with the greatest
        posterior over the objects' windows: the paper's criterion. Simpler than in the paper: theta
        has a few values, windows come from `sample_windows`, a few thousand per image instead of
        100,000, and include the objects' own boxes.

        Args:
            dataset: at least one object in the images that are used.
            images: how many of its images are used, evenly spread over the dataset.
            windows: how many are sampled in each image.
            seed: of the sampled windows.

        Raises:
            ImageError: an image cannot be read.
            ValueError: there are no objects, or an argument is below 1.
        """
        if images < 1 or windows < 1:
            raise ValueError(f"images and windows must be at least 1, not {images} and {windows}")
        examples = list(_examples(dataset, images, windows, seed))
        is_object = np.concatenate([np.zeros(0, bool), *(labels for _, _, labels in examples)])
        if is_object.all() or not is_object.any():
            kind = "background" if is_object.any() else "objects"
            raise ValueError(f"{dataset!r}: there are no windows of {kind} to learn from")
        prior = float(is_object.mean())
        cues = {}
        for name, (cue, grid) in CUES.items():
            candidates = []
            for theta in grid:
                values = np.concatenate([cue(image, boxes, theta) for image, boxes, _ in examples])
                likelihoods = Likelihoods.fit(theta, values[is_object], values[~is_object])
                evidence = _logit(prior) + likelihoods.log_ratio(values[is_object])
                candidates.append((np.log(_sigmoid(evidence)).mean(), theta, likelihoods))
            cues[name] = max(candidates, key=lambda entry: entry[0])[-1]
        return cls(prior, cues)

    def score(self, image: Image, boxes: np.ndarray) -> np.ndarray:
        """Return p(object | cues) of each box, `(n,)` float32 in 0..1.

        Args:
            image: as above.
            boxes: as above, each with an area and inside the image.

        Raises:
            ImageError: the image cannot be read.
            ValueError: for boxes of another shape, outside of the image or without area.
        """
        pixels = read_image(image)
        height, width = pixels.shape[:2]
        boxes = check_windows(boxes, height, width)
        return _sigmoid(self._evidence(pixels, boxes)).astype(np.float32)

    def propose(
        self,
        image: Image,
        count: int = 1000,
        *,
        candidates: int = 30_000,
        iou_threshold: float = 0.7,
        seed: int = 0,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the windows of an image that are most likely to hold an object.

        Sampled windows are scored and suppressed greedily, so that the first ones are not all of
        the same object.

        Args:
            image: as above.
            count: number of windows to return at most.
            candidates: how many windows are sampled. The more, the tighter the best of them fit.
            iou_threshold: of the suppression. With a hundred windows or fewer, the paper's 0.5
                finds more objects; with many, 0.7 finds as many, and fits more of them tightly.
            seed: of the sampled windows.

        Returns:
            boxes `(n, 4)` float32 and their scores `(n,)` float32, best first; n is `count`, or
            less if the suppression leaves fewer.

        Raises:
            ImageError: the image cannot be read.
            ValueError: an argument is out of range.
        """
        if count < 1 or not 0 <= iou_threshold <= 1:
            raise ValueError(
                f"count must be at least 1 and iou_threshold in 0..1, not {count} and "
                f"{iou_threshold}"
            )
        pixels = read_image(image)
        height, width = pixels.shape[:2]
        boxes = sample_windows(height, width, candidates, seed)
        evidence = self._evidence(pixels, boxes)  # not the sigmoids, which round to equal values
        kept = suppress(boxes, evidence, iou_threshold, count)
        return boxes[kept], _sigmoid(evidence[kept]).astype(np.float32)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the parameters as a JSON file of a few kilobytes, which `load` reads."""
        write_likelihoods(path, self.prior, self.cues)

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "Objectness":
        """Return the parameters that `save` wrote.

        Raises:
            ValueError: the file was not written by `save`; names the field.
            OSError: it cannot be read.
        """
        prior, cues = read_likelihoods(path)
        try:
            return cls(prior, cues)
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error

    def _evidence(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Return the log odds `(n,)` of object against background: Bayes' rule."""
        small, boxes = _shrink(image, boxes)
        evidence = np.full(len(boxes), _logit(self.prior))
        for name, likelihoods in self.cues.items():
            evidence += likelihoods.log_ratio(CUES[name][0](small, boxes, likelihoods.theta))
        return evidence


def objectness_windows(
    image: Image,
    parameters: str | PathLike[str] | Objectness,
    count: int = 1000,
    candidates: int = 30_000,
    iou_threshold: float = 0.7,
    seed: int = 0,
) -> np.ndarray:
    """Return only the boxes of `Objectness.propose`, as `propose` takes them from a method.

    Args:
        image: as above.
        parameters: an `Objectness`, or the path of a saved one.
        count: as in `Objectness.propose`.
        candidates: as there.
        iou_threshold: as there.
        seed: as there.

    Returns:
        `(n, 4)` float32, best first.
    """
    objectness = parameters if isinstance(parameters, Objectness) else Objectness.load(parameters)
    boxes, _ = objectness.propose(
        image, count, candidates=candidates, iou_threshold=iou_threshold, seed=seed
    )
    return boxes


def _examples(
    dataset: DetectionDataset, images: int, windows: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield shrunk images, windows in them, and which `(n,)` of the windows are objects."""
    for index in np.linspace(0, len(dataset) - 1, min(images, len(dataset))).round().astype(int):
        record = dataset[int(index)]
        image = read_image(record.image)
        height, width = image.shape[:2]
        boxes = sample_windows(height, width, windows, seed + int(index))
        boxes = np.concatenate([boxes, record.boxes])
        covered = np.greater(overlaps(boxes, record.boxes), POSITIVE_IOU)
        is_object = covered[:, ~record.crowd].any(1)
        used = is_object | ~covered.any(1)
        yield *_shrink(image, boxes[used]), is_object[used]


def _shrink(image: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of at most `LONGEST_SIDE` pixels a side, and the boxes in it."""
    height, width = image.shape[:2]
    factor = min(1.0, LONGEST_SIDE / max(height, width))
    size = max(1, round(factor * width)), max(1, round(factor * height))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return small, boxes * np.array([size[0] / width, size[1] / height] * 2, np.float32)


def _logit(p: float) -> float:
    return float(np.log(p) - np.log1p(-p))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
