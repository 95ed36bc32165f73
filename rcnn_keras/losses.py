"""The losses of the family, each a sum over a denominator.

S sampled anchors or RoIs an image, B images, K classes. Every function returns `(sum, count)`;
`mean_over_batch` alone divides, so that the denominator, and what it becomes under
`tf.distribute`, is decided in one place.
"""

from keras import ops

from rcnn_keras.ops import sum_over_replicas
from rcnn_keras.ops.matching import IGNORED, POSITIVE
from rcnn_keras.ops.types import Tensor

__all__ = [
    "box_head_losses",
    "keypoint_head_loss",
    "mask_head_loss",
    "mean_over_batch",
    "rpn_losses",
    "smooth_l1",
]

Losses = dict[str, tuple[Tensor, Tensor]]  # name to sum and count
SMOOTH_L1_BETA = 1 / 9  # torchvision's, for the RPN and the box head


def mean_over_batch(total: Tensor, count: Tensor) -> Tensor:
    """Return `total / count`, with `count` taken over the batch of all replicas.

    Keras adds the gradients of the replicas, so each replica's sum over the common count gives
    the gradient of one device with the whole batch. A count of zero counts as one.

    Args:
        total: scalar sum of a loss on this replica.
        count: scalar number of samples on this replica.
    """
    count = sum_over_replicas(ops.cast(count, "float32"))
    return total / ops.maximum(count, 1.0)


def smooth_l1(prediction: Tensor, target: Tensor, beta: float = SMOOTH_L1_BETA) -> Tensor:
    """Return Fast R-CNN's smooth L1 of each element: quadratic within `beta` of the target."""
    error = ops.abs(prediction - target)
    if beta == 0:  # L1
        return error
    return ops.where(error < beta, 0.5 * error * error / beta, error - 0.5 * beta)


def rpn_losses(
    logits: Tensor,
    deltas: Tensor,
    target_deltas: Tensor,
    match_labels: Tensor,
    beta: float = SMOOTH_L1_BETA,
) -> Losses:
    """Return the RPN's two losses (Faster R-CNN, equation 1).

    The paper writes `sum(L_cls) / N_cls + lambda * sum(p* L_reg) / N_reg` with N_cls = 256, the
    sampled anchors, and lambda / N_reg = 10 / 2400, nearly the same weight. As in torchvision both
    are divided by the number of sampled anchors here, and lambda is 1.

    Args:
        logits: `(B, S)` objectness of the sampled anchors; with the paper's softmax over two
            classes the difference of their logits, of which this is the same cross-entropy.
        deltas: `(B, S, 4)` predictions for them.
        target_deltas: `(B, S, 4)`.
        match_labels: `(B, S)` 1 positive, 0 negative, -1 padding.
        beta: where smooth L1 turns from quadratic to linear.

    Returns:
        `{"rpn_objectness_loss": (sum, count), "rpn_box_loss": (sum, count)}`.
    """
    n_cls = ops.sum(ops.cast(match_labels != IGNORED, "float32"))
    n_reg = n_cls
    terms = rpn_loss_terms(logits, deltas, target_deltas, match_labels, beta)
    return {
        "rpn_objectness_loss": (ops.sum(terms["rpn_objectness_loss"]), n_cls),
        "rpn_box_loss": (ops.sum(terms["rpn_box_loss"]), n_reg),
    }


def rpn_loss_terms(
    logits: Tensor,
    deltas: Tensor,
    target_deltas: Tensor,
    match_labels: Tensor,
    beta: float = SMOOTH_L1_BETA,
) -> dict[str, Tensor]:
    """Return what each sampled anchor adds to the sums of `rpn_losses`, which has the arguments.

    Args:
        logits: as in `rpn_losses`, like the others.
        deltas: likewise.
        target_deltas: likewise.
        match_labels: likewise.
        beta: where smooth L1 turns from quadratic to linear.

    Returns:
        `(B, S)` for each loss; 0 for padding, and for boxes of negatives.
    """
    sampled, positive = match_labels != IGNORED, match_labels == POSITIVE
    p_star = ops.cast(positive, "float32")
    l_cls = ops.softplus(logits) - logits * p_star
    l_reg = ops.sum(smooth_l1(deltas, target_deltas, beta), axis=-1)
    return {
        "rpn_objectness_loss": ops.where(sampled, l_cls, 0.0),
        "rpn_box_loss": ops.where(positive, l_reg, 0.0),
    }


def box_head_losses(
    logits: Tensor,
    deltas: Tensor,
    target_deltas: Tensor,
    classes: Tensor,
    beta: float = SMOOTH_L1_BETA,
) -> Losses:
    """Return the second stage's two losses (Fast R-CNN, equation 1).

    Args:
        logits: `(B, S, K + 1)`, background first.
        deltas: `(B, S, K, 4)`, of which only those of the RoI's own class count; or
            `(B, S, 1, 4)`, shared by all classes.
        target_deltas: `(B, S, 4)`.
        classes: `(B, S)` 0 background, 1..K foreground, -1 padding.
        beta: where smooth L1 turns from quadratic to linear; 1 in the paper.

    Returns:
        `{"class_loss": (sum, count), "box_loss": (sum, count)}`, both over all sampled RoIs.
    """
    count = ops.sum(ops.cast(classes != IGNORED, "float32"))
    terms = box_head_loss_terms(logits, deltas, target_deltas, classes, beta)
    return {name: (ops.sum(values), count) for name, values in terms.items()}


def box_head_loss_terms(
    logits: Tensor,
    deltas: Tensor,
    target_deltas: Tensor,
    classes: Tensor,
    beta: float = SMOOTH_L1_BETA,
) -> dict[str, Tensor]:
    """Return what each sampled RoI adds to the sums of `box_head_losses`, which has the arguments.

    Returns:
        `(B, S)` for each loss; 0 for padding, and for boxes of the background.
    """
    sampled, foreground = classes != IGNORED, classes > 0
    u = ops.maximum(classes, 0)
    log_p = ops.log_softmax(logits)
    l_cls = -ops.take_along_axis(log_p, u[..., None], axis=-1)[..., 0]
    own = ops.clip(classes - 1, 0, deltas.shape[2] - 1)[..., None, None]
    own_deltas = ops.take_along_axis(deltas, own, axis=2)[:, :, 0]
    l_loc = ops.sum(smooth_l1(own_deltas, target_deltas, beta), axis=-1)
    return {
        "class_loss": ops.where(sampled, l_cls, 0.0),
        "box_loss": ops.where(foreground, l_loc, 0.0),
    }


def mask_head_loss(logits: Tensor, targets: Tensor, real: Tensor) -> Losses:
    """Return the mask loss (Mask R-CNN, 3): cross-entropy of each cell, its own class's map alone.

    Args:
        logits: `(n, M, M)` of each RoI's ground-truth class.
        targets: `(n, M, M)` in 0..1, from `mask_targets`.
        real: `(n,)` bool, which RoIs are positive and not padding.

    Returns:
        `{"mask_loss": (sum, count)}`, the count being that of the cells of all positive RoIs.
    """
    count = ops.sum(ops.cast(real, "float32")) * float(logits.shape[1] * logits.shape[2])
    return {"mask_loss": (ops.sum(mask_head_loss_terms(logits, targets, real)), count)}


def mask_head_loss_terms(logits: Tensor, targets: Tensor, real: Tensor) -> Tensor:
    """Return what each RoI adds to the sum of `mask_head_loss`: `(n,)`, over all its cells."""
    cells = ops.sum(ops.softplus(logits) - logits * targets, axis=(1, 2))
    return ops.where(real, cells, 0.0)


def keypoint_head_loss(logits: Tensor, cells: Tensor, valid: Tensor) -> Losses:
    """Return the keypoint loss (Mask R-CNN, 5): cross-entropy of a softmax over a heat map's cells.

    Args:
        logits: `(n, M, M, P)`.
        cells: `(n, P)` int32, the cell of each keypoint, from `keypoint_targets`.
        valid: `(n, P)` bool, which keypoints count.

    Returns:
        `{"keypoint_loss": (sum, count)}`, the count being that of the valid keypoints.
    """
    terms = keypoint_head_loss_terms(logits, cells, valid)
    return {"keypoint_loss": (ops.sum(terms), ops.sum(ops.cast(valid, "float32")))}


def keypoint_head_loss_terms(logits: Tensor, cells: Tensor, valid: Tensor) -> Tensor:
    """Return what each keypoint adds to the sum of `keypoint_head_loss`: `(n, P)`."""
    flat = ops.reshape(logits, (-1, logits.shape[1] * logits.shape[2], logits.shape[3]))
    own = ops.take_along_axis(flat, cells[:, None], axis=1)[:, 0]
    return ops.where(valid, ops.logsumexp(flat, axis=1) - own, 0.0)
