"""R-CNN (Girshick et al. 2014): regions with the features of a convolutional network.

B images, R proposals an image, D detections, K classes, P and F numbers of pool5 and fc7 a region.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from rcnn_keras.backbones import crop_network, load_imagenet
from rcnn_keras.backbones.applications import CAFFE_MEAN, CAFFE_STD
from rcnn_keras.layers import DetectionLayer, ImageNormalization, RegionFeatures
from rcnn_keras.losses import Losses
from rcnn_keras.models.arguments import RCNN as RULES
from rcnn_keras.models.arguments import check_arguments, name_classes
from rcnn_keras.models.detector import Detector
from rcnn_keras.models.two_stage import IMAGENET_MEAN, IMAGENET_STD
from rcnn_keras.ops.types import Kernels, Tensor

BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)  # deltas as appendix C has them
HOW_TO_TRAIN = "rcnn_keras.training.train_rcnn(model, dataset, out) trains its stages"


@keras.saving.register_keras_serializable(package="rcnn_keras")
class RCNN(Detector):
    """R-CNN: each proposal is warped to a crop and goes through the whole network by itself.

    Inputs have `proposals` `(B, R, 4)` in pixels and `num_proposals` `(B,)` beside the images,
    which keep their own size. The scores of detections are the sigmoid of the SVMs' margins: 0.5
    is the separating plane, and -1, the margin of an easy negative, is 0.27.

    `fit` does not train it: its parts are trained one after the other, by `training.train_rcnn`.

    Args:
        backbone: `"alexnet"` or `"vgg16"`.
        classes: K class names, without the background.
        num_classes: K where the names do not matter, as in `FasterRCNN`.
        crop_size: side of the warped crops in pixels; default 227 for AlexNet and, the only one
            that it takes, 224 for VGG-16.
        context: pixels of the image around the proposal on each side of a crop.
        channels: of AlexNet's five convolutions, even numbers; default those of the paper.
        units: width of fc6 and fc7.
        backbone_weights: None for random ones, or `"imagenet"` for those of keras.applications
            (`vgg16` alone).
        classifier: `"svm"`, one linear SVM a class, or `"softmax"`, what fine-tuning trained.
        box_regression: move the proposals as the regressors of each class say.
        box_score_thresh: detections score more than this, 0..1.
        box_nms_thresh: IoU above which a weaker detection of the same class is dropped.
        box_detections_per_img: D.
        image_mean: RGB mean in 0..255, also what lies outside an image; default that of the
            backbone's weights, else ImageNet's.
        image_std: RGB deviation in 0..255, likewise.
        value_range: as in `FasterRCNN`.
        kernels: `"native"`, those of TensorFlow, to serve with it; `"portable"` for
            XLA, LiteRT, ONNX and OpenVINO, see `with_kernels`. Weights and detections are the same.
        name: the model's name.

    Raises:
        ValueError: for an argument out of its range, named with its value.
        OSError: if ImageNet weights are wanted and cannot be fetched.
    """

    takes_proposals = True

    def __init__(
        self,
        backbone: str = "alexnet",
        classes: Sequence[str] = (),
        *,
        num_classes: int | None = None,
        crop_size: int | None = None,
        context: int = 16,
        channels: tuple[int, ...] | None = None,
        units: int = 4096,
        backbone_weights: str | None = None,
        classifier: str = "svm",
        box_regression: bool = True,
        box_score_thresh: float = 0.05,
        box_nms_thresh: float = 0.3,
        box_detections_per_img: int = 100,
        image_mean: tuple[float, ...] | None = None,
        image_std: tuple[float, ...] | None = None,
        value_range: str | float | tuple[float, float] = "full",
        kernels: Kernels = "native",
        name: str | None = None,
    ):
        config = {k: v for k, v in locals().items() if k not in ("self", "name", "__class__")}
        check_arguments(config, RULES)
        name_classes(config)
        network = crop_network(backbone, crop_size=crop_size, channels=channels, units=units)
        mean, std = IMAGENET_MEAN, IMAGENET_STD
        if backbone_weights == "imagenet":
            load_imagenet(network.get_layer("vgg16"), network.get_layer("box_trunk"), "vgg16")
            mean, std = CAFFE_MEAN, CAFFE_STD
        image_mean = config["image_mean"] = mean if image_mean is None else image_mean
        image_std = config["image_std"] = std if image_std is None else image_std

        self.min_size = self.max_size = None  # images keep their size
        self.antialias = False
        self.classifier, self.box_regression = classifier, box_regression
        self.normalize = ImageNormalization(image_mean, image_std, 1, name="normalize")
        self.network = network
        self.region_features = RegionFeatures(
            network, context, kernels=kernels, name="region_features"
        )
        sizes = self.region_features.feature_sizes
        normal = keras.initializers.RandomNormal(stddev=0.01)
        count = len(config["classes"])
        # All three are there whatever the detections come from: a copy may want another.
        self.class_logits = layers.Dense(
            count + 1, kernel_initializer=normal, dtype="float32", name="class_logits"
        )
        self.svm = layers.Dense(count, kernel_initializer="zeros", dtype="float32", name="svm")
        self.box_regressor = layers.Dense(
            4 * count, kernel_initializer="zeros", dtype="float32", name="box_regressor"
        )
        self.class_logits.build((None, None, sizes["fc7"]))
        self.svm.build((None, None, sizes["fc7"]))
        self.box_regressor.build((None, None, sizes["pool5"]))
        self.box_deltas = layers.Reshape((-1, count, 4), name="box_deltas")
        self.detection_layer = DetectionLayer(
            box_score_thresh,
            box_nms_thresh,
            box_detections_per_img,
            BOX_WEIGHTS,
            margins=classifier == "svm",
            kernels=kernels,
            name="detections",
        )
        self._connect(config, name)

    def extract_features(self, inputs: dict[str, Any], training: bool) -> dict[str, Any]:
        """Compute the features of every proposal.

        Returns:
            `pool5` `(B, R + 1, P)`, `fc7` `(B, R + 1, F)` and `proposals`, the last row of each
            being padding; `num_proposals` and `image_sizes` as they came in.
        """
        sizes, count = inputs["image_sizes"], inputs["num_proposals"]
        # One row of padding, so that a batch without proposals has rows, too.
        rois = ops.pad(inputs["proposals"], ((0, 0), (0, 1), (0, 0)))
        images = self.normalize(inputs["images"], sizes)
        features = self.region_features(images, sizes, rois, count)
        return features | {"proposals": rois, "num_proposals": count, "image_sizes": sizes}

    def predict_boxes(self, extracted: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Score each proposal for each class, and say how to move it.

        Returns:
            Margins `(B, R, K)` of the SVMs, or class logits `(B, R, K + 1)` of `"softmax"`, and
            deltas `(B, R, K, 4)`.
        """
        classify = self.svm if self.classifier == "svm" else self.class_logits
        deltas = self.box_deltas(self.box_regressor(extracted["pool5"]))
        if not self.box_regression:
            deltas = ops.zeros_like(deltas)
        return classify(extracted["fc7"]), deltas

    def detections_of(self, extracted: dict[str, Any]) -> dict[str, Any]:
        """Classify and move the proposals, and keep the best detections."""
        return self.select_detections(extracted, *self.predict_boxes(extracted))

    def losses_of(
        self, extracted: dict[str, Any], targets: dict[str, Any], training: bool
    ) -> Losses:
        """Raise: the parts of R-CNN have no loss in common."""
        raise NotImplementedError(f"RCNN has no single loss to fit or evaluate: {HOW_TO_TRAIN}")

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Raise: R-CNN is trained in stages."""
        raise NotImplementedError(f"RCNN is not trained by fit: {HOW_TO_TRAIN}")

    def variant(
        self,
        *,
        classifier: str | None = None,
        box_regression: bool | None = None,
    ) -> "RCNN":
        """Return a copy with the same weights that makes its detections in another way.

        Args:
            classifier: as in the constructor; default this model's.
            box_regression: likewise.
        """
        changes = {"classifier": classifier, "box_regression": box_regression}
        changes = {k: v for k, v in changes.items() if v is not None}
        copy = type(self).from_config(self.get_config() | changes)
        copy.network.set_weights(self.network.get_weights())
        for part in ("class_logits", "svm", "box_regressor"):
            getattr(copy, part).set_weights(getattr(self, part).get_weights())
        return copy
