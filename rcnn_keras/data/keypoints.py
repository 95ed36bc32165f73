"""Keypoints: what the points of an object are called, and how they change with its image.

n objects, P keypoints of each: x, y in continuous pixels as those of boxes, and COCO's visibility:
0 not labelled (x and y are then 0), 1 labelled and hidden, 2 labelled and in sight.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

NOT_LABELLED, HIDDEN, VISIBLE = range(3)

Pairs = tuple[tuple[int, int], ...]

# The word of a side in a name, the other side's in its place.
SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^A-Za-z]+")  # "leftEye", "LEye", "eye_l"


@dataclass(frozen=True)
class Skeleton:
    """The P keypoints of an object.

    Attributes:
        names: P different names.
        flip_pairs: keypoints that change places when the image is mirrored, as a person's left and
            right eye; each keypoint is in one pair at the most. Numbers count from 0.
        edges: pairs of keypoints between which a line is drawn.

    Raises:
        ValueError: for repeated names, numbers that are no keypoint's, a pair of one keypoint, and
            a keypoint in two of `flip_pairs`.
    """

    names: tuple[str, ...]
    flip_pairs: Pairs = ()
    edges: Pairs = ()

    def __post_init__(self) -> None:
        if isinstance(self.names, str):
            raise ValueError(f"names must be a list of names, not the string {self.names!r}")
        names = tuple(self.names)
        object.__setattr__(self, "names", names)
        if not names or len(set(names)) != len(names):
            raise ValueError(f"names must be one or more different names, not {list(names)}")
        for field in ("flip_pairs", "edges"):
            object.__setattr__(self, field, _pairs(getattr(self, field), field, len(names)))
        paired = [number for pair in self.flip_pairs for number in pair]
        if len(set(paired)) != len(paired):
            raise ValueError(f"flip_pairs must have each keypoint once, not {self.flip_pairs}")

    def __len__(self) -> int:
        """P."""
        return len(self.names)

    @property
    def mirrored(self) -> tuple[int, ...]:
        """For each keypoint the number of the one that it becomes in a mirrored image."""
        order = list(range(len(self)))
        for one, other in self.flip_pairs:
            order[one], order[other] = other, one
        return tuple(order)

    @property
    def is_numbered(self) -> bool:
        """Whether the names say no more than the numbers, see `numbered_skeleton`."""
        return self.names == numbered_skeleton(len(self)).names

    def to_coco(self) -> dict[str, list]:
        """Return what COCO's categories have of it; numbers count from 1 there.

        `"flip_pairs"` is no field of COCO's, and `load_coco` reads it back.
        """
        return {
            "keypoints": list(self.names),
            "skeleton": [[one + 1, other + 1] for one, other in self.edges],
            "flip_pairs": [[one + 1, other + 1] for one, other in self.flip_pairs],
        }


def _pairs(pairs: Iterable[Sequence[int]], field: str, count: int) -> Pairs:
    """Return pairs of numbers as tuples, checked."""
    found = tuple(tuple(pair) for pair in pairs)
    for pair in found:
        numbers = [n for n in pair if isinstance(n, int | np.integer) and 0 <= n < count]
        if len(pair) != 2 or len(numbers) != 2 or pair[0] == pair[1]:
            raise ValueError(
                f"{field} must be pairs of two different keypoints of 0..{count - 1}, not {pair}"
            )
    return tuple((int(one), int(other)) for one, other in found)


def numbered_skeleton(count: int) -> Skeleton:
    """Return the keypoints "keypoint_0" and so on, of which only the number is known."""
    return Skeleton(tuple(f"keypoint_{number}" for number in range(count)))


def flip_pairs_of(names: Sequence[str]) -> Pairs:
    """Return the pairs of names that differ in left and right alone.

    As "left_eye" and "right_eye", "LEye" and "REye", "eye.l" and "eye.r"; whatever the letter case.
    """
    numbers = {_words(name): number for number, name in enumerate(names)}
    pairs = []
    for words, number in numbers.items():
        other = numbers.get(tuple(SIDES.get(word, word) for word in words), number)
        if number < other:
            pairs.append((number, other))
    return tuple(pairs)


def _words(name: str) -> tuple[str, ...]:
    return tuple(word.lower() for word in WORDS.findall(name))


_SIDED = ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
_NAMES = ("nose", *(f"{side}_{part}" for part in _SIDED for side in ("left", "right")))

COCO_PERSON = Skeleton(
    _NAMES,
    flip_pairs_of(_NAMES),
    (
        *((15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7)),
        *((6, 8), (7, 9), (8, 10), (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6)),
    ),
)


def check_keypoints(keypoints: np.ndarray, objects: int) -> np.ndarray:
    """Return an image's keypoints as float32 `(n, P, 3)`, zeros where none is labelled.

    Raises:
        ValueError: for another shape, visibilities other than 0, 1, 2, and labelled keypoints that
            are not finite.
    """
    keypoints = np.array(keypoints, np.float32)
    if keypoints.ndim != 3 or keypoints.shape[::2] != (objects, 3) or not keypoints.shape[1]:
        raise ValueError(f"keypoints have shape {keypoints.shape}, not ({objects}, P, 3)")
    visibility = keypoints[..., 2]
    others = ~np.isin(visibility, (NOT_LABELLED, HIDDEN, VISIBLE))
    if others.any():
        i, p = np.argwhere(others)[0]
        raise ValueError(
            f"object {i}: keypoint {p} has the visibility {visibility[i, p]:g}, not 0, 1 or 2"
        )
    labelled = visibility > NOT_LABELLED
    infinite = labelled & ~np.isfinite(keypoints).all(axis=-1)
    if infinite.any():
        i, p = np.argwhere(infinite)[0]
        raise ValueError(f"object {i}: keypoint {p} is at {keypoints[i, p, :2].tolist()}")
    return np.where(labelled[..., None], keypoints, np.float32(0))


def points_inside(
    points: np.ndarray, height: int, width: int, tolerance: float = 0.0
) -> np.ndarray:
    """Return which points `(..., 2)` are in an image of this size or on its border: `(...)`."""
    low, high = -tolerance, np.array([width, height]) + tolerance
    return np.all((points >= low) & (points <= high), axis=-1)


def num_labelled(keypoints: np.ndarray) -> np.ndarray:
    """Return how many keypoints of each object are labelled: `(n, P, 3)` to `(n,)`."""
    return np.count_nonzero(keypoints[..., 2] > NOT_LABELLED, axis=-1)
