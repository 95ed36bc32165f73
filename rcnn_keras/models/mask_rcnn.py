"""Mask R-CNN (He et al. 2017): Faster R-CNN with a mask for each detection.

B images, N ground-truth objects, D detections, n RoIs of the whole batch, M mask size, K classes.
"""

from typing import Any

import keras
from keras import ops

from rcnn_keras.backbones import Backbone
from rcnn_keras.backbones.backbone import MASK_POOLED_SIZE
from rcnn_keras.layers import MaskHead, MaskLayer, RealRoIs, RoIAlign
from rcnn_keras.layers.mask_layer import of_class
from rcnn_keras.losses import mask_head_loss
from rcnn_keras.models.faster_rcnn import FasterRCNN
from rcnn_keras.ops import mask_targets, portable_mask_targets, select_rows


@keras.saving.register_keras_serializable(package="rcnn_keras")
class MaskRCNN(FasterRCNN):
    """Mask R-CNN; the arguments are those of `FasterRCNN`.

    The mask branch runs on positive RoIs while training and on the final detections, with the boxes
    that they ended up with, at inference. After a pyramid it is four convolutions on 14x14 features
    and M = 28; the C4 detector shares the fifth stage with its box head and M = 14.

    Training targets have, beside boxes, labels and crowd, `"masks"`: `(B, N, H, W)` of 0 and 1, or
    `(B, N, H, ceil(W / 8))` uint8 with eight pixels a byte; `fit` on `Batches` sees to it.
    Detections have `"masks"` `(B, D, M, M)` in 0..1, each inside its box.
    """

    loss_names = (*FasterRCNN.loss_names, "mask_loss")

    def _build_more(self, parts: Backbone, config: dict[str, Any]) -> None:
        self.real_rois = RealRoIs(config["kernels"], name="real_rois")
        self.mask_roi_align = RoIAlign(
            MASK_POOLED_SIZE, parts.strides, kernels=config["kernels"], name="mask_roi_align"
        )
        self.mask_head = MaskHead(
            len(config["classes"]), parts.mask_trunk(), config["fpn_channels"], name="mask_head"
        )
        self.mask_layer = MaskLayer(config["kernels"], name="masks")

    def second_stage(self, first: dict) -> dict:
        """Detect as Faster R-CNN does, and draw each detection's mask."""
        found = super().second_stage(first)
        rois, image = self.real_rois(found["boxes"], found["labels"])
        logits = self.mask_head(self.mask_roi_align(first["features"], rois, image))
        return found | {"masks": self.mask_layer(logits, found["labels"])}

    def roi_losses_of(self, first, targets, sampled, step, training) -> dict[str, tuple]:
        """Return the losses of classes, boxes and masks, the last on positive RoIs alone."""
        losses = super().roi_losses_of(first, targets, sampled, step, training)
        kernels = self._config["kernels"]
        most = max(
            int(self.roi_sampler.batch_size_per_image * self.roi_sampler.positive_fraction), 1
        )
        rois, classes, _, matches = (x[:, :most] for x in sampled)  # positives come first
        image, rois, labels, matches = select_rows(kernels, classes > 0, rois, classes - 1, matches)
        logits = self.mask_head(
            self.mask_roi_align(first["features"], rois, image), training=training
        )
        cut = portable_mask_targets if kernels == "portable" else mask_targets
        goals = cut(targets["masks"], first["image_sizes"], rois, image, matches, logits.shape[1])
        own = of_class(logits, ops.maximum(labels, 0))
        return losses | mask_head_loss(own, goals, labels >= 0)
