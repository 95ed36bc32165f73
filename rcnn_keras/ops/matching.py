"""Which anchor or proposal answers to which ground-truth box, and which of them are trained on.

B images, N ground-truth boxes (padded), A candidates (anchors or proposals), S samples an image.
"""

from collections.abc import Callable, Mapping

from keras import ops

from rcnn_keras.ops.types import Tensor

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1


def real_boxes(targets: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the `(B, N, 4)` float32 boxes of targets, and which are neither padding nor crowd."""
    crowd = ops.cast(targets["crowd"], "bool")
    return ops.cast(targets["boxes"], "float32"), ops.logical_and(targets["labels"] >= 0, ~crowd)


def match(
    iou: Callable[[int | Tensor], Tensor],
    gt_valid: Tensor,
    fg_iou_thresh: float,
    bg_iou_thresh: float,
    allow_low_quality_matches: bool = False,
    bg_iou_low_thresh: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Match every candidate to the ground-truth box that it overlaps most.

    A candidate is positive from `fg_iou_thresh` up, negative below `bg_iou_thresh` and ignored in
    between. With `allow_low_quality_matches` (the RPN's second rule in Faster R-CNN) a candidate
    that no other beats on some ground-truth box is positive too, as long as they overlap at all; it
    keeps the box that it overlaps most, as in torchvision.

    One ground-truth box is looked at after the other, as an image has many anchors: 60 boxes and
    240,000 anchors would be 58 MB an image for each of the parts of which an IoU is made.

    Args:
        iou: function from the number of a ground-truth box, 0..N-1, to its `(B, A)` IoUs
            with all candidates, in 0..1.
        gt_valid: `(B, N)` bool, which ground-truth boxes are real.
        fg_iou_thresh: threshold in 0..1.
        bg_iou_thresh: threshold in 0..1, at most `fg_iou_thresh`.
        allow_low_quality_matches: whether to apply the second rule.
        bg_iou_low_thresh: candidates below this IoU are ignored, in 0..1.

    Returns:
        `matches` `(B, A)` int32, the index of each candidate's box, and `match_labels` `(B, A)`
        int32: 1 positive, 0 negative, -1 ignored. Without ground truth every candidate is negative,
        or ignored if there is a `bg_iou_low_thresh`.
    """

    def look_at(n: Tensor, so_far: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        best, matches, forced = so_far
        valid = ops.take(gt_valid, n, axis=1)[:, None]
        overlap = ops.where(valid, iou(n), -1.0)
        better = overlap > best
        top = ops.max(overlap, axis=1, keepdims=True)
        is_top = ops.logical_and(overlap == top, top > 0)
        return (
            ops.where(better, overlap, best),
            ops.where(better, ops.cast(n, "int32"), matches),
            ops.logical_or(forced, is_top),
        )

    nothing = ops.zeros_like(iou(0))
    start = (nothing - 1.0, ops.cast(nothing, "int32"), ops.cast(nothing, "bool"))
    numbers = ops.arange(1, ops.shape(gt_valid)[1] + 1)
    last = ops.max(ops.where(gt_valid, numbers, 0))  # what follows is padding
    best, matches, forced = ops.fori_loop(0, last, look_at, start)
    match_labels = ops.where(best >= fg_iou_thresh, POSITIVE, IGNORED)
    match_labels = ops.where(best < bg_iou_thresh, NEGATIVE, match_labels)
    if bg_iou_low_thresh:
        match_labels = ops.where(best < bg_iou_low_thresh, IGNORED, match_labels)
    if allow_low_quality_matches:
        match_labels = ops.where(forced, POSITIVE, match_labels)
    return matches, ops.cast(match_labels, "int32")


def sample(
    match_labels: Tensor, priorities: Tensor, count: int, positive_fraction: float
) -> tuple[Tensor, Tensor]:
    """Choose `count` candidates an image, positives first, then negatives to fill up.

    Args:
        match_labels: `(B, A)` int32 from `match`.
        priorities: `(B, A)` float32 in 0..1, drawn at random; the highest are taken.
        count: S, how many to take.
        positive_fraction: the largest share of positives, in 0..1.

    Returns:
        `indices` `(B, S)` int32 into the candidates and `match_labels` `(B, S)` int32 of those;
        where an image has too few candidates the rest have label -1 and index 0.
    """
    padding = ((0, 0), (0, count))
    match_labels = ops.pad(match_labels, padding, constant_values=IGNORED)
    priorities = ops.pad(priorities, padding)
    most_positives = int(count * positive_fraction)
    positives, num_positives = _take(match_labels == POSITIVE, priorities, most_positives)
    negatives, num_negatives = _take(match_labels == NEGATIVE, priorities, count)

    place = ops.arange(count, dtype="int32")[None]
    is_positive = place < num_positives
    is_negative = ops.logical_and(~is_positive, place < num_positives + num_negatives)
    source = ops.where(is_positive, place, most_positives + place - num_positives)
    candidates = ops.concatenate([positives, negatives], axis=1)
    indices = ops.take_along_axis(candidates, source, axis=1)
    sampled = ops.where(is_positive, POSITIVE, ops.where(is_negative, NEGATIVE, IGNORED))
    return ops.where(sampled == IGNORED, 0, indices), ops.cast(sampled, "int32")


def _take(wanted: Tensor, priorities: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the `count` wanted candidates of highest priority and `(B, 1)` how many there are."""
    _, indices = ops.top_k(ops.where(wanted, priorities, -1.0), count)
    available = ops.sum(ops.cast(wanted, "int32"), axis=1, keepdims=True)
    return ops.cast(indices, "int32"), ops.minimum(available, count)
