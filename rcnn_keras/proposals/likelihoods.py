"""What is learnt about a cue of objectness: how its values spread over objects and background.

b         bins of the cue's values
n         windows
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.written_aside import written_aside

BINS = 30
FORMAT = "rcnn_keras objectness 1"  # the last word changes when older programs cannot read a file


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """The two histograms of a cue.

    Attributes:
        theta: the cue's parameter, above 0.
        edges: `(b - 1,)` increasing values between the bins; a value on an edge lies above it.
        object: `(b,)` p(bin | object): sums to 1, all above 0.
        background: `(b,)` p(bin | background): likewise.

    Raises:
        ValueError: the numbers do not fit this description; says which.
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
        """Learn the histograms from the cue's values of windows of either kind.

        The edges are such that each bin has the same share of both kinds together, each kind
        counting as much as the other; where many values are equal there are fewer bins. Each bin
        has one window more than was seen, so that none is impossible.

        Args:
            theta: the parameter that the values were computed with.
            objects: `(n,)` values of windows of objects, at least one.
            background: `(m,)` values of the others, at least one.
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
    """Write a prior and the likelihoods of cues as JSON, aside first and then renamed."""
    content: dict[str, Any] = {"format": FORMAT, "prior": prior, "cues": {}}
    for name, likelihoods in cues.items():
        numbers = {key: np.asarray(value).tolist() for key, value in asdict(likelihoods).items()}
        content["cues"][name] = numbers
    with written_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1), encoding="utf-8")


def read_likelihoods(path: str | PathLike[str]) -> tuple[float, dict[str, Likelihoods]]:
    """Return what `write_likelihoods` wrote.

    Raises:
        ValueError: the file is another one or damaged; names it and says where.
        OSError: it cannot be read.
    """
    name = os.fspath(path)
    try:
        content = json.loads(Path(path).read_bytes())
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{name}: is not a file of objectness ({error})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        found = content.get("format") if isinstance(content, dict) else type(content).__name__
        raise ValueError(f"{name}: is not a file of objectness: format {found!r}, not {FORMAT!r}")
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
