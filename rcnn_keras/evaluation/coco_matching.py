"""COCO's matching of detections and objects, in numpy, for all images at once.

The rules are those of pycocotools' `COCOeval`, and so are the numbers, to the last bit. It looks at
one detection of one image after the other; here the first detections of every image and class are
matched together, then the second ones, and so on, at all thresholds and area ranges.

D detections and G objects of all images, P pairs of the two, A area ranges, T IoU thresholds.
"""

from itertools import pairwise

import numpy as np

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0, 1e10), "APs": (0, 32**2), "APm": (32**2, 96**2), "APl": (96**2, 1e10)}

WRONG, IGNORED, RIGHT = range(3)


def outside_areas(areas: np.ndarray) -> np.ndarray:
    """Return which areas, `(n,)` in square pixels, are outside of each range: `(n, A)` bool."""
    low, high = np.array(list(AREAS.values())).T
    return (areas[:, None] < low) | (areas[:, None] > high)


def match(
    detections: np.ndarray,
    objects: np.ndarray,
    overlaps: np.ndarray,
    groups: np.ndarray,
    crowd: np.ndarray,
    ignored: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Give objects to detections greedily by score, as COCO does.

    A detection takes the free object that it overlaps most, of equals the last; one that is ignored
    only if there is no other. Any number may take a region of a crowd.

    Args:
        detections: `(P,)` int, each pair's detection. Numbers follow each other within an image and
            class, the best score first.
        objects: `(P,)` int in 0..G-1, each pair's object, of the same image and class.
        overlaps: `(P,)` float64 IoU.
        groups: `(G,)` int, the same for objects of one image and class.
        crowd: `(G,)` bool.
        ignored: `(G, A)` bool, objects that count neither way.

    Returns:
        The detections that are in a pair, `(n,)` int, rising, and what each of them is at each area
        range and threshold, `(n, A, T)` int8: `RIGHT`, `IGNORED` or `WRONG`.
    """
    found, first, place = np.unique(detections, return_index=True, return_inverse=True)
    new_group = np.diff(groups[objects[first]], prepend=-1) != 0
    starts = np.flatnonzero(new_group)
    turns = np.arange(len(found)) - starts[np.cumsum(new_group) - 1]  # of each in its group
    order = np.lexsort((objects, overlaps, place, turns[place]))
    place, objects, overlaps = place[order], objects[order], overlaps[order]
    reached = overlaps[:, None, None] >= THRESHOLDS
    outcomes = np.full((len(found), len(AREAS), len(THRESHOLDS)), WRONG, np.int8)
    taken = np.zeros((len(crowd), *outcomes.shape[1:]), bool)
    ends = np.searchsorted(turns[place], np.arange(turns.max(initial=-1) + 2))
    for begin, end in pairwise(ends):
        of_turn, candidates, count = place[begin:end], objects[begin:end], end - begin
        free = reached[begin:end] & (~taken[candidates] | crowd[candidates, None, None])
        # the later in order, the better; beyond `count`, those that are not ignored
        value = np.arange(1, count + 1)[:, None] + count * ~ignored[candidates]
        firsts = np.flatnonzero(np.diff(of_turn, prepend=-1))
        best = np.maximum.reduceat(np.where(free, value[..., None], 0), firsts)
        outcomes[of_turn[firsts]] = np.where(best > count, RIGHT, np.where(best, IGNORED, WRONG))
        _, area, threshold = hit = np.nonzero(best)
        taken[candidates[(best[hit] - 1) % count], area, threshold] = True
    return found, outcomes
