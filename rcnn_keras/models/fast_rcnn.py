"""Fast R-CNN (Girshick 2015): Faster R-CNN's second stage on proposals from elsewhere."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from rcnn_keras.losses import Losses
from rcnn_keras.models.arguments import FAST_RCNN, check_arguments, name_classes
from rcnn_keras.models.two_stage import TwoStageDetector
from rcnn_keras.ops.types import Kernels


@keras.saving.register_keras_serializable(package="rcnn_keras")
class FastRCNN(TwoStageDetector):
    """Fast R-CNN; the defaults are the paper's VGG-16 model on 2 images a batch.

    Inputs have, beside those of every detector, `"proposals"` `(B, R, 4)` in pixels and
    `"num_proposals"` `(B,)` int32, how many of them are real (all by default). `fit`, `evaluate`
    and `predict` on `Batches` read the records' proposals: see `DetectionDataset.with_proposals`.

    Args:
        backbone: as in `FasterRCNN`.
        classes: K class names, without the background.
        num_classes: as in `FasterRCNN`.
        min_size: length to which an image's shorter side is resized, in pixels;
            of several as in `FasterRCNN`, and `detect_at_scales` takes them all.
        max_size: most pixels of the longer side.
        norm: as in `FasterRCNN`.
        backbone_width: as in `FasterRCNN`.
        backbone_weights: as in `FasterRCNN`.
        stride_in_1x1: as in `FasterRCNN`.
        stochastic_depth: as in `FasterRCNN`.
        frozen_stages: how many of the backbone's first stages are frozen, see `freeze_backbone`;
            the paper freezes 2 of VGG-16.
        recompute_stages: as in `FasterRCNN`.
        feature_pyramid: as in `FasterRCNN`.
        fpn_channels: channels of the pyramid.
        head_norm: as in `FasterRCNN`.
        roi_pooling: `"pool"` for the paper's RoIPool, `"align"` for RoIAlign, which a pyramid
            needs; or a layer as in `FasterRCNN`.
        roi_aligned: as in `FasterRCNN`; of RoIAlign alone.
        roi_sampling_ratio: as in `FasterRCNN`; of RoIAlign alone.
        box_head: as in `FasterRCNN`.
        box_units: width of the box head's dense layers; default 1024, VGG 4096.
        box_ranks: of the two factors that stand for each dense layer, fc6 and then fc7, see
            `truncate_svd`; None for whole layers.
        box_score_thresh: detections score more than this, 0..1.
        box_nms_thresh: IoU above which a weaker detection of the same class is dropped.
        box_detections_per_img: D.
        box_fg_iou_thresh: RoIs from this IoU up are foreground.
        box_bg_iou_thresh: RoIs below this IoU, and
        box_bg_iou_low_thresh: from this one up, are background: those that overlap an object a
            little are the hard ones. 0 lets images without objects train as background.
        box_batch_size_per_image: RoIs sampled an image.
        box_positive_fraction: largest share of foreground among them.
        bbox_reg_weights: factors of the deltas.
        box_smooth_l1_beta: where smooth L1 turns linear.
        image_mean: as in `FasterRCNN`.
        image_std: as in `FasterRCNN`.
        antialias: as in `FasterRCNN`.
        size_divisor: as in `FasterRCNN`.
        value_range: as in `FasterRCNN`.
        kernels: `"native"`, those of TensorFlow, to train and to serve with it; `"portable"` for
            XLA, LiteRT, ONNX and OpenVINO, see `with_kernels`. Weights and detections are the same.
        seed: of the sampling of RoIs.
        name: the model's name.

    Raises:
        ValueError: for an argument out of its range, named with its value.
        OSError: if ImageNet weights are wanted and cannot be fetched.
    """

    loss_names = ("class_loss", "box_loss")
    takes_proposals = True

    def __init__(
        self,
        backbone: str | keras.Model = "vgg16",
        classes: Sequence[str] = (),
        *,
        num_classes: int | None = None,
        min_size: int | tuple[int, ...] = 600,
        max_size: int = 1000,
        norm: str | None = "batch",
        backbone_width: float = 1.0,
        backbone_weights: str | None = None,
        stride_in_1x1: bool = False,
        stochastic_depth: float = 0.0,
        frozen_stages: int | None = 0,
        recompute_stages: int | None = None,
        feature_pyramid: bool | None = None,
        fpn_channels: int = 256,
        head_norm: str | None = None,
        roi_pooling: str | keras.layers.Layer = "pool",
        roi_aligned: bool = False,
        roi_sampling_ratio: int = 2,
        box_head: keras.layers.Layer | None = None,
        box_units: int | None = None,
        box_ranks: tuple[int, int] | None = None,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.3,
        box_detections_per_img: int = 100,
        box_fg_iou_thresh: float = 0.5,
        box_bg_iou_thresh: float = 0.5,
        box_bg_iou_low_thresh: float = 0.1,
        box_batch_size_per_image: int = 64,
        box_positive_fraction: float = 0.25,
        bbox_reg_weights: tuple[float, ...] = (10.0, 10.0, 5.0, 5.0),
        box_smooth_l1_beta: float = 1.0,
        image_mean: tuple[float, ...] | None = None,
        image_std: tuple[float, ...] | None = None,
        antialias: bool = False,
        size_divisor: int | None = None,
        value_range: str | float | tuple[float, float] = "full",
        kernels: Kernels = "native",
        seed: int = 0,
        name: str | None = None,
    ):
        config = {k: v for k, v in locals().items() if k not in ("self", "name", "__class__")}
        check_arguments(config, FAST_RCNN)
        name_classes(config)
        parts = self._build_backbone(config)
        self._build_second_stage(parts, config, seed)
        self._finish(parts, config, name)

    def extract_features(self, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
        """Run backbone and pyramid once.

        Returns:
            `features`, a list of maps; `proposals` `(B, R + 1, 4)`, `num_proposals` `(B,)`, and the
            inputs' sizes and ids.
        """
        # One row of padding: there is something to gather even where nothing was proposed.
        proposals = ops.pad(inputs["proposals"], ((0, 0), (0, 1), (0, 0)))
        given = {"proposals": proposals, "num_proposals": inputs["num_proposals"]}
        return self.run_backbone(inputs, training) | given

    def losses_of(
        self, extracted: dict[str, Any], targets: dict[str, Any], training: bool
    ) -> Losses:
        """Sample RoIs, and return the two losses as `(sum, count)`."""
        step = self.optimizer.iterations if training else ops.zeros((), "int64")
        return self.second_stage_losses(extracted, targets, step, training)
