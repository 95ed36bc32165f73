"""Non-maximum suppression with outputs padded to a fixed number.

B images, n candidate boxes an image. The kernel is `NonMaxSuppressionV4`, which TensorFlow, XLA
and LiteRT all have; among equal scores the box that comes first wins. Not all of them agree where
scores are equal, an overlap is exactly the threshold, or a box has no area: LiteRT's then has no
order, drops the box, and chooses the same one again and again. Portable kernels ask them nothing of
the kind. `nms_loop` says in numpy what is meant.
"""

import numpy as np
import tensorflow as tf

from rcnn_keras.ops.batching import take_rows
from rcnn_keras.ops.types import Kernels, Tensor


def nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_output: int,
    score_threshold: float = float("-inf"),
    kernels: Kernels = "native",
    max_candidates: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Keep the best boxes of each image, dropping those that overlap a better one too much.

    Args:
        boxes: `(B, n, 4)` float32 boxes.
        scores: `(B, n)` float32.
        iou_threshold: a box is dropped when its IoU with a kept one is above this.
        max_output: how many boxes to keep at the most.
        score_threshold: boxes with a score of this or less are not considered.
        kernels: `"native"`, or `"portable"` for the same result in XLA and LiteRT too, but for
            boxes without an area, which are left out.
        max_candidates: how many boxes, the best ones, portable kernels consider at the most; None
            for all. They sort, which takes long in some runtimes; native kernels need no limit.
            Boxes beyond it matter only where fewer than `max_output` of the better ones are kept.

    Returns:
        `indices` `(B, max_output)` int32, best first, 0 as padding, and `count` `(B,)` int32.
    """
    if kernels == "portable":
        return _portable_nms(
            boxes, scores, iou_threshold, max_output, score_threshold, max_candidates
        )
    # XLA's kernel cannot return more boxes than it is given. A score of -inf is never considered.
    missing = tf.maximum(max_output - tf.shape(scores)[1], 0)
    boxes = tf.pad(boxes, [[0, 0], [0, missing], [0, 0]])
    scores = tf.pad(scores, [[0, 0], [0, missing]], constant_values=float("-inf"))

    def one_image(image: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        kept = tf.raw_ops.NonMaxSuppressionV4(
            boxes=image[0],
            scores=image[1],
            max_output_size=max_output,
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
            pad_to_max_output_size=True,
        )
        return kept.selected_indices, kept.valid_outputs

    if boxes.shape[0] == 1:  # no loop, which not every runtime takes
        index, count = one_image((boxes[0], scores[0]))
        index, count = index[None], count[None]
        return tf.where(tf.range(max_output) < count[:, None], index, 0), count
    signature = (tf.TensorSpec((max_output,), tf.int32), tf.TensorSpec((), tf.int32))
    indices, count = tf.map_fn(
        one_image, (boxes, scores), fn_output_signature=signature, parallel_iterations=16
    )
    # XLA's kernel leaves other numbers in the padding.
    return tf.where(tf.range(max_output) < count[:, None], indices, 0), count


def _portable_nms(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    max_output: int,
    score_threshold: float,
    max_candidates: int | None,
) -> tuple[Tensor, Tensor]:
    """Sort by score, and let places in that order stand for the scores: no two are equal."""
    count = tf.shape(scores)[1]
    if max_candidates is None:
        scores, order = tf.math.top_k(scores, count)
    else:
        count = tf.minimum(count, max_candidates)
        scores, order = top_k(scores, count, "portable")
    boxes = take_rows(boxes, order)
    sides = boxes[..., 2:] - boxes[..., :2]
    sound = (scores > score_threshold) & (sides[..., 0] > 0) & (sides[..., 1] > 0)
    places = tf.cast(count - tf.range(count), tf.float32)
    above = float(np.nextafter(np.float32(iou_threshold), np.float32(1)))
    index, found = nms(boxes, tf.where(sound, places, 0.0), above, max_output, 0.0)
    order = tf.pad(order, [[0, 0], [0, 1]])  # so that there is something to gather from
    index = take_rows(order, index)
    return tf.where(tf.range(max_output) < found[:, None], index, 0), found


def grouped_nms(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor,
    iou_threshold: float,
    max_output: int,
    score_threshold: float = float("-inf"),
    kernels: Kernels = "native",
    max_candidates: int | None = None,
) -> tuple[Tensor, Tensor]:
    """`nms` in which boxes of different groups (classes, pyramid levels) never suppress each other.

    The groups are moved apart by the extent of the image's boxes, so that one run serves them all.

    Args:
        boxes: `(B, n, 4)` float32 boxes.
        scores: `(B, n)` float32.
        groups: `(n,)` or `(B, n)` integers from 0.
        iou_threshold: as in `nms`.
        max_output: as in `nms`, over all groups together.
        score_threshold: as in `nms`.
        kernels: as in `nms`.
        max_candidates: as in `nms`, over all groups together.

    Returns:
        As `nms`.
    """
    apart = move_apart(boxes, groups)
    return nms(apart, scores, iou_threshold, max_output, score_threshold, kernels, max_candidates)


def move_apart(boxes: Tensor, groups: Tensor) -> Tensor:
    """Return boxes `(B, n, 4)` moved so that those of different groups do not overlap."""
    axes = [1, 2]
    extent = tf.reduce_max(boxes, axes, True) - tf.reduce_min(boxes, axes, True) + 1
    return boxes + tf.cast(groups, boxes.dtype)[..., None] * extent


def nms_loop(
    boxes: np.ndarray,
    scores: np.ndarray,
    iou_threshold: float,
    max_output: int | None = None,
    score_threshold: float = float("-inf"),
) -> np.ndarray:
    """Keep the best boxes of one image in plain numpy: the algorithm to read, `nms` to use.

    Greedy suppression as R-CNN does it (Girshick et al. 2014): the best box stays, whatever
    overlaps it too much goes, and so on with the rest. Overlaps are float32, as in the kernel.

    Args:
        boxes: `(n, 4)` boxes.
        scores: `(n,)`; among equal ones the box that comes first wins.
        iou_threshold: as in `nms`.
        max_output: how many boxes to keep at the most; None for all.
        score_threshold: as in `nms`.

    Returns:
        Indices of the boxes kept, int32, best first; not padded.
    """
    boxes, scores = np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(scores, np.float32)
    rest = np.argsort(-scores, kind="stable")
    rest = rest[scores[rest] > score_threshold]
    kept: list[int] = []
    while len(rest) and len(kept) != max_output:
        best, rest = rest[0], rest[1:]
        kept.append(best)
        rest = rest[_iou_with(boxes[best], boxes[rest]) <= iou_threshold]
    return np.array(kept, np.int32)


def suppressors(
    boxes: np.ndarray,
    scores: np.ndarray,
    kept: np.ndarray,
    iou_threshold: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return which kept box removed each candidate: the best that overlaps it too much.

    Args:
        boxes: `(n, 4)` boxes, of several groups after `move_apart`.
        scores: `(n,)`; among equal ones the box that comes first wins.
        kept: `(m,)` indices that `nms` kept, best first.
        iou_threshold: as in `nms`.

    Returns:
        `by` `(n,)` int32: the index of the kept box, a kept box's own, and -1 where none removed
        the box: NMS kept as many as it may before it came to it. And the IoUs with them `(n,)`
        float32, 0 where there is none.
    """
    by, overlaps = np.full(len(boxes), -1, np.int32), np.zeros(len(boxes), np.float32)
    by[kept], overlaps[kept] = kept, 1.0
    # A candidate meets the kept boxes in the order of their scores.
    for best in kept:
        later = (scores < scores[best]) | (
            (scores == scores[best]) & (np.arange(len(boxes)) > best)
        )
        rest = np.flatnonzero((by < 0) & later)
        found = _iou_with(boxes[best], boxes[rest])
        removed = found > iou_threshold
        by[rest[removed]], overlaps[rest[removed]] = best, found[removed]
    return by, overlaps


def _iou_with(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return the IoU of a box with others, `(m, 4)` to `(m,)`; 0 where one has no area."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    intersection = np.maximum(high - low, 0).prod(axis=1)
    area, areas = (box[2:] - box[:2]).prod(), (others[:, 2:] - others[:, :2]).prod(axis=1)
    real = (area > 0) & (areas > 0)
    return np.where(real, intersection / np.where(real, area + areas - intersection, 1), 0)


BLOCK = 8  # scores; both steps take about the same time where n is 10 to 200 times k


def top_k(scores: Tensor, k: int | Tensor, kernels: Kernels = "native") -> tuple[Tensor, Tensor]:
    """Return the k largest scores of each image, the largest first; of equal ones the first.

    The k largest scores lie in the k blocks of largest maxima: each of those blocks has one score,
    its maximum, that is at least as large as any score of the other blocks. Portable kernels choose
    these blocks first. OpenVINO compares each of n scores with k others, for a stable order, and so
    looks at n / BLOCK + k BLOCK of them instead of n; the result is the same.

    Args:
        scores: `(B, n)` float32.
        k: how many, at most n.
        kernels: `"native"`, or `"portable"` for blocks.

    Returns:
        The scores `(B, k)` and their places `(B, k)` int32, as `tf.math.top_k`.
    """
    n, known = scores.shape[1], tf.get_static_value(k)
    few = n is not None and known is not None and n <= 2 * BLOCK * int(known)
    if kernels != "portable" or few:
        return tf.math.top_k(scores, k)
    length = tf.shape(scores)[1]
    blocks = (length + BLOCK - 1) // BLOCK
    missing = blocks * BLOCK - length
    padded = tf.pad(scores, [[0, 0], [0, missing]], constant_values=float("-inf"))
    table = tf.reshape(padded, [tf.shape(scores)[0], blocks, BLOCK])
    chosen = tf.minimum(k, blocks)
    _, best = tf.math.top_k(tf.reduce_max(table, axis=2), chosen)
    best = -tf.math.top_k(-best, chosen)[0]  # ascending, so that equal scores keep their order
    candidates = tf.reshape(take_rows(table, best), [tf.shape(scores)[0], chosen * BLOCK])
    largest, place = tf.math.top_k(candidates, k)
    return largest, take_rows(best, place // BLOCK) * BLOCK + place % BLOCK
