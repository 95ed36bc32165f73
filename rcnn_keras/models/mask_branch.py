"""The mask branch of a detector (Mask R-CNN, He et al. 2017, 3), on positives and on detections.

B images, N ground-truth objects, D detections, n RoIs of the whole batch, M mask size, K classes.
"""

from typing import Any

from keras import ops

from rcnn_keras.backbones import Backbone
from rcnn_keras.backbones.backbone import MASK_POOLED_SIZE
from rcnn_keras.layers import MaskHead, MaskLayer, RealRoIs
from rcnn_keras.layers.mask_head import of_class
from rcnn_keras.models.custom_layers import check_mask_head, with_kernels_of
from rcnn_keras.models.faster_rcnn import FasterRCNN
from rcnn_keras.models.two_stage import Sampled
from rcnn_keras.ops import mask_targets, portable_mask_targets, select_rows
from rcnn_keras.ops.types import Tensor


class MaskBranch(FasterRCNN):
    """Faster R-CNN with the parts of a mask branch, which a subclass builds and calls."""

    def _build_masks(self, parts: Backbone, config: dict[str, Any]) -> None:
        self.real_rois = RealRoIs(config["kernels"], name="real_rois")
        self.mask_roi_align = self._roi_align(MASK_POOLED_SIZE, parts, config, "mask_roi_align")
        num_classes = len(config["classes"])
        if config["mask_head"] is None:
            trunk = parts.mask_trunk()
            self.mask_head = MaskHead(num_classes, trunk, config["fpn_channels"], name="mask_head")
        else:
            self.mask_head = with_kernels_of(config["mask_head"], config["kernels"])
            pooled = (MASK_POOLED_SIZE, MASK_POOLED_SIZE, parts.channels)
            check_mask_head(self.mask_head, pooled, num_classes)
        self.mask_layer = MaskLayer(config["kernels"], name="masks")

    def draw_masks(self, extracted: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
        """Return detections with a mask `(B, D, M, M)` each, read inside their final boxes."""
        rois, image = self.real_rois(found["boxes"], found["labels"])
        masks = self.mask_head(self.mask_roi_align(extracted["features"], rois, image))
        return found | {"masks": self.mask_layer(masks, found["labels"])}

    def draw_sampled(
        self,
        extracted: dict[str, Any],
        targets: dict[str, Tensor],
        sampled: Sampled,
        training: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the mask head on sampled positives, and return what `mask_head_loss` takes."""
        kernels = self._config["kernels"]
        rois, classes, _, matches = self.sampled_positives(sampled)
        image, rois, labels, matches = select_rows(kernels, classes > 0, rois, classes - 1, matches)
        logits = self.mask_head(
            self.mask_roi_align(extracted["features"], rois, image), training=training
        )
        crop_masks = portable_mask_targets if kernels == "portable" else mask_targets
        masks, sizes = targets["masks"], extracted.get("given_sizes", extracted["image_sizes"])
        mask_size = logits.shape[1]
        rois = self.in_image(extracted, rois, image)
        roi_targets = crop_masks(masks, sizes, rois, image, matches, mask_size)
        class_logits = of_class(logits, ops.maximum(labels, 0))
        return class_logits, roi_targets, labels >= 0

    def in_image(self, extracted: dict[str, Any], rois: Tensor, image: Tensor) -> Tensor:
        """Return `(n, 4)` RoIs in pixels of the images as they came in, where they are not yet.

        Args:
            extracted: what `extract_features` returned.
            rois: in pixels of what the backbone sees.
            image: `(n,)` place of each one's image in the batch.
        """
        return rois
