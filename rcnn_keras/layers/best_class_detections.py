"""Detections of one class a proposal, as matterport/Mask_RCNN keeps them."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from rcnn_keras.layers.detection_layer import DetectionLayer
from rcnn_keras.ops import clip_to_windows, decode_inclusive, to_inclusive
from rcnn_keras.ops.types import Tensor


@keras.saving.register_keras_serializable(package="rcnn_keras")
class BestClassDetectionLayer(DetectionLayer):
    """Give each proposal its most probable class alone, and thin out class by class.

    Proposals whose best class is the background go, and a score of just the threshold is enough.
    Boxes are clipped to the image, where a single pixel may be left of them. Overlaps are those of
    boxes that end at the last pixel inside.

    Arguments and call arguments are those of `DetectionLayer`, but for `image_sizes`: `(B, 4)`
    windows `xyxy` of the images on their canvases. Proposals that are padding count as they stand,
    as in the original.
    """

    def candidates(
        self, logits: Tensor, deltas: Tensor, rois: Tensor, num_rois: Tensor, image_sizes: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Decode and clip every class's box of every RoI; only the best class has a score.

        Args:
            logits: as in the call, like the others.
            deltas: likewise.
            rois: likewise.
            num_rois: likewise.
            image_sizes: likewise.

        Returns:
            As `DetectionLayer`.
        """
        count, num_classes = ops.shape(rois)[1], deltas.shape[2]
        boxes = decode_inclusive(deltas, rois[:, :, None], self.box_weights)
        boxes = ops.reshape(boxes, (-1, count * num_classes, 4))
        boxes = clip_to_windows(boxes, image_sizes)
        classes = ops.arange(num_classes, dtype="int32")
        # Not Keras' argmax, whose bit operations LiteRT lacks.
        best = tf.argmax(logits, axis=-1, output_type=tf.int32)[..., None] - 1
        scores = ops.where(classes == best, ops.softmax(logits)[..., 1:], 0.0)
        scores = ops.reshape(scores, (-1, count * num_classes))
        return boxes, scores, ops.tile(classes, (count,))

    def suppress(self, boxes: Tensor, scores: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Run NMS class by class on candidates that score enough; returns as `DetectionLayer`."""
        return super().suppress(to_inclusive(boxes), scores, classes)

    @property
    def least_score(self) -> float:
        """The score that a detection must exceed."""
        least = np.nextafter(np.float32(self.score_threshold), np.float32(-1))
        return max(float(least), 0.0)
