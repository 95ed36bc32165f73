"""Non-maximum suppression with outputs padded to a fixed number.

B images, n candidate boxes an image. The kernel is `NonMaxSuppressionV4`, which TensorFlow, XLA
and LiteRT all have; among equal scores the box that comes first wins, except in XLA, whose sort
keeps no order among them.
"""

import tensorflow as tf


def nms(boxes, scores, iou_threshold, max_output, score_threshold=float("-inf")):
    """Keep the best boxes of each image, dropping those that overlap a better one too much.

    Args:
        boxes: `(B, n, 4)` float32 boxes.
        scores: `(B, n)` float32.
        iou_threshold: a box is dropped when its IoU with a kept one is above this.
        max_output: how many boxes to keep at the most.
        score_threshold: boxes with a score of this or less are not considered.

    Returns:
        `indices` `(B, max_output)` int32, best first, 0 as padding, and `count` `(B,)` int32.
    """
    # XLA's kernel cannot return more boxes than it is given. A score of -inf is never considered.
    missing = tf.maximum(max_output - tf.shape(scores)[1], 0)
    boxes = tf.pad(boxes, [[0, 0], [0, missing], [0, 0]])
    scores = tf.pad(scores, [[0, 0], [0, missing]], constant_values=float("-inf"))

    def one_image(image):
        kept = tf.raw_ops.NonMaxSuppressionV4(
            boxes=image[0],
            scores=image[1],
            max_output_size=max_output,
            iou_threshold=iou_threshold,
            score_threshold=score_threshold,
            pad_to_max_output_size=True,
        )
        return kept.selected_indices, kept.valid_outputs

    signature = (tf.TensorSpec((max_output,), tf.int32), tf.TensorSpec((), tf.int32))
    indices, count = tf.map_fn(
        one_image, (boxes, scores), fn_output_signature=signature, parallel_iterations=16
    )
    # XLA's kernel leaves other numbers in the padding.
    return tf.where(tf.range(max_output) < count[:, None], indices, 0), count


def grouped_nms(boxes, scores, groups, iou_threshold, max_output, score_threshold=float("-inf")):
    """`nms` in which boxes of different groups (classes, pyramid levels) never suppress each other.

    The groups are moved apart by the extent of the image's boxes, so that one run serves them all.

    Args:
        boxes: `(B, n, 4)` float32 boxes.
        scores: `(B, n)` float32.
        groups: `(n,)` or `(B, n)` integers from 0.
        iou_threshold: as in `nms`.
        max_output: as in `nms`, over all groups together.
        score_threshold: as in `nms`.

    Returns:
        As `nms`.
    """
    axes = [1, 2]
    extent = tf.reduce_max(boxes, axes, True) - tf.reduce_min(boxes, axes, True) + 1
    shifted = boxes + tf.cast(groups, boxes.dtype)[..., None] * extent
    return nms(shifted, scores, iou_threshold, max_output, score_threshold)
