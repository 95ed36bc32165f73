"""`mrcnn.model`: the model, and what programs read from a dataset for it.

Boxes are `y1, x1, y2, x2` in whole pixels, masks `(H, W, N)`, and class 0 is the background.
"""

import datetime
import importlib.util
import os
import re
import warnings
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rcnn_keras.compat.mrcnn import utils
from rcnn_keras.compat.mrcnn.config import Config
from rcnn_keras.compat.mrcnn.ground_truth import (
    compose_image_meta,
    load_image_gt,
    mold_image,
    parse_image_meta,
    unmold_image,
)
from rcnn_keras.compat.mrcnn.training import WeightsFiles, set_weight_decay, training_data
from rcnn_keras.convert import matterport
from rcnn_keras.convert.matterport_config import (
    KNOWN,
    arguments_of,
    in_their_words,
    settings_of,
    unknown_settings,
)
from rcnn_keras.models import MatterportMaskRCNN

__all__ = [
    "MaskRCNN",
    "compose_image_meta",
    "load_image_gt",
    "log",
    "mold_image",
    "parse_image_meta",
    "unmold_image",
]

IMAGENET_URL = (
    "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
IMAGENET_MD5 = "a268eb855778b3df3c7506639542a6af"

LAYERS = {  # what `layers` of `train` stands for, over names of layers
    "heads": r"(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "3+": r"((res|bn)[345].*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "4+": r"((res|bn)[45].*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "5+": r"((res|bn)5.*)|(mrcnn\_.*)|(rpn\_.*)|(fpn\_.*)",
    "all": ".*",
}
STAGES = (r"conv1|bn_conv1", r"(res|bn)2.*", r"(res|bn)3.*", r"(res|bn)4.*", r"(res|bn)5.*")

LOSSES = {  # matterport's names of the losses
    "rpn_class_loss": "rpn_objectness_loss",
    "rpn_bbox_loss": "rpn_box_loss",
    "mrcnn_class_loss": "class_loss",
    "mrcnn_bbox_loss": "box_loss",
    "mrcnn_mask_loss": "mask_loss",
}

IGNORED = ("USE_MINI_MASK", "MINI_MASK_SHAPE", "USE_RPN_ROIS")  # masks are whole here

CHECKPOINT = r".*[/\\]([\w-]*?)(\d{8}T\d{4})[/\\]mask_rcnn_[\w-]+?_(\d{4})\.h5"

_named: set[tuple[str, ...]] = set()  # settings of which a warning was given


def log(text: str, array: Any = None) -> None:
    """Print a text, and of an array shape, least and greatest value and type."""
    if array is not None:
        array = np.asarray(array)
        low, high = (array.min(), array.max()) if array.size else ("", "")
        text = f"{text:25}shape: {array.shape!s:20}  min: {low:10}  max: {high:10}  {array.dtype}"
    print(text)


class MaskRCNN:
    """matterport's model around a `MatterportMaskRCNN`, which is `keras_model`.

    Args:
        mode: `"training"` or `"inference"`.
        config: a `Config`, of which `NUM_CLASSES`, with the background, must be set.
        model_dir: folder of the trainings' own folders.
        **arguments: of `MatterportMaskRCNN`, instead of those that `config` says.

    Attributes:
        keras_model: the detector; all of this package works with it.
        epoch: how many epochs the weights have been trained.
        log_dir: folder of this training, made when it begins.
        checkpoint_path: of the weights after an epoch, with `{epoch:04d}` for its number.

    Raises:
        ValueError: for another mode, and for settings that cannot be followed.

    Warns:
        UserWarning: once, with the names of settings of a subclass that are ignored.
    """

    def __init__(
        self, mode: str, config: Config, model_dir: str | PathLike[str], **arguments: Any
    ) -> None:
        if mode not in ("training", "inference"):
            raise ValueError(f"mode must be 'training' or 'inference'; received {mode!r}")
        self.mode, self.config, self.model_dir = mode, config, os.fspath(model_dir)
        _warn_of_ignored(config)
        settings = {n: v for n, v in settings_of(config).items() if n in KNOWN}
        if mode == "training" and settings.get("IMAGE_RESIZE_MODE") == "crop":
            settings["IMAGE_RESIZE_MODE"] = "pad64"  # for images that are cropped already
        with in_their_words():
            chosen = _network(config) | arguments_of(settings, {}, "") | arguments
            self.keras_model = MatterportMaskRCNN(**chosen)
        self.set_log_dir()

    def set_log_dir(self, model_path: str | PathLike[str] | None = None) -> None:
        """Choose folder and epoch: those of a checkpoint's path, otherwise new ones."""
        self.epoch = 0
        name = str(self.config.NAME or "").lower()
        folder = f"{name}{datetime.datetime.now():%Y%m%dT%H%M}"
        self.log_dir = os.path.join(self.model_dir, folder)
        if model_path and (found := re.fullmatch(CHECKPOINT, os.path.abspath(model_path))):
            self.epoch = int(found[3])
            self.log_dir = os.path.join(self.model_dir, f"{name}{found[2]}")
            print(f"Re-starting from epoch {self.epoch}")
        self.checkpoint_path = os.path.join(self.log_dir, f"mask_rcnn_{name}_{{epoch:04d}}.h5")

    def find_last(self) -> str:
        """Return the path of the last checkpoint of the last training in `model_dir`.

        Raises:
            FileNotFoundError: if there is none; names the folder.
        """
        name = str(self.config.NAME or "").lower()
        root = Path(self.model_dir)
        folders = sorted(p for p in root.glob(f"{name}*") if p.is_dir()) if root.is_dir() else []
        if not folders:
            raise FileNotFoundError(f"{root}: no folder of a training of {name!r} in it")
        files = sorted(p for p in folders[-1].iterdir() if p.name.startswith("mask_rcnn"))
        if not files:
            raise FileNotFoundError(f"{folders[-1]}: no weights in it")
        return str(files[-1])

    def load_weights(
        self,
        filepath: str | PathLike[str],
        by_name: bool = False,
        exclude: Sequence[str] | None = None,
    ) -> None:
        """Load a `.h5` file, and go on with the training whose checkpoint it is.

        Args:
            filepath: of matterport's, of `train`'s, or of another Keras 2 network's weights.
            by_name: load the layers that file and model share.
            exclude: names of layers to leave as they are, such as those of other classes.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: as `convert.matterport.load_into`; nothing is loaded then.
        """
        matterport.load_into(
            self.keras_model, filepath, by_name=by_name, exclude=tuple(exclude or ())
        )
        self.set_log_dir(filepath)

    def get_imagenet_weights(self) -> str:
        """Return the path of ResNet-50's ImageNet weights, for `load_weights(by_name=True)`.

        Raises:
            OSError: if they cannot be fetched; says which file to put where.
        """
        name = IMAGENET_URL.rsplit("/", 1)[1]
        folder = Path(keras.config.keras_home()) / "models"
        try:
            return str(
                keras.utils.get_file(
                    name, IMAGENET_URL, cache_subdir="models", file_hash=IMAGENET_MD5
                )
            )
        except Exception as error:  # Keras raises plain ones for what urllib does
            raise OSError(
                f"{IMAGENET_URL} cannot be fetched ({error}); fetch it with another machine and "
                f"put it at {folder / name}"
            ) from error

    def set_trainable(self, layer_regex: str) -> None:
        """Train the layers whose names in matterport's words match, and no others.

        Raises:
            ValueError: if none does.
        """
        layers = matterport.layer_names(self.keras_model)
        trained = {name for name in layers if re.fullmatch(layer_regex, name)}
        if not trained:
            raise ValueError(
                f"layers: no layer matches {layer_regex!r}; names are "
                f"{', '.join(list(layers)[:3])}, ..., {', '.join(list(layers)[-3:])}"
            )
        frozen = 0  # of the first stages, whose gradients are not even prepared
        for stage in STAGES:
            if any(re.fullmatch(stage, name) for name in trained):
                break
            frozen += 1
        self.keras_model.freeze_backbone(frozen)
        for name, layer in layers.items():
            layer.trainable = name in trained

    def train(
        self,
        train_dataset: utils.Dataset,
        val_dataset: utils.Dataset | None,
        learning_rate: float,
        epochs: int,
        layers: str,
        augmentation: Any = None,
        custom_callbacks: Sequence[Any] | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
    ) -> keras.callbacks.History:
        """Train up to an epoch, counted from the start of the first training.

        Args:
            train_dataset: prepared.
            val_dataset: prepared; None for no validation.
            learning_rate: of SGD with `LEARNING_MOMENTUM`, clipped by `GRADIENT_CLIP_NORM`.
            epochs: the epoch at which it ends: after 20, `epochs=40` trains for 20 more.
            layers: `"heads"`, `"3+"`, `"4+"`, `"5+"`, `"all"`, or a regular expression over
                matterport's names of layers.
            augmentation: of the training images: an augmenter of imgaug; a function from image and
                masks to both; or one of this package's, such as `rk.data.RandomFlip()`.
            custom_callbacks: Keras callbacks beside those that write weights and logs.
            no_augmentation_sources: sources of the dataset whose images are left as they are.

        Returns:
            What `keras.Model.fit` returns.

        Raises:
            ValueError: for another mode, datasets that do not fit the model, and masks that do not
                fit their image; names it.
        """
        if self.mode != "training":
            raise ValueError("train needs a model of mode 'training'")
        config, model = self.config, self.keras_model
        steps, checks = config.STEPS_PER_EPOCH, config.VALIDATION_STEPS
        sources = tuple(no_augmentation_sources or ())
        data = training_data(train_dataset, config, augmentation, sources, shuffle=True)
        val = None if val_dataset is None else training_data(val_dataset, config, shuffle=True)
        self.set_trainable(LAYERS.get(layers, layers))
        model.loss_weights = {
            LOSSES[name]: float(weight)
            for name, weight in config.LOSS_WEIGHTS.items()
            if name in LOSSES
        }
        set_weight_decay(model, config.WEIGHT_DECAY)
        model.compile(
            keras.optimizers.SGD(
                learning_rate,
                momentum=config.LEARNING_MOMENTUM,
                global_clipnorm=config.GRADIENT_CLIP_NORM or None,
            )
        )
        os.makedirs(self.log_dir, exist_ok=True)
        log(f"\nStarting at epoch {self.epoch}. LR={learning_rate}\n")
        log(f"Checkpoint Path: {self.checkpoint_path}")
        callbacks = [WeightsFiles(self.checkpoint_path), *(custom_callbacks or ())]
        if importlib.util.find_spec("tensorboard") is not None:
            callbacks.append(keras.callbacks.TensorBoard(self.log_dir, write_graph=False))
        history = model.fit(
            data,
            initial_epoch=self.epoch,
            epochs=epochs,
            steps_per_epoch=steps,
            callbacks=callbacks,
            validation_data=val,
            validation_steps=None if val is None else checks,
        )
        self.epoch = max(self.epoch, epochs)
        return history

    def detect(self, images: Sequence[np.ndarray], verbose: int = 0) -> list[dict[str, np.ndarray]]:
        """Detect in images `(H, W, 3)`, of any number and sizes.

        Returns:
            For each image a dict: `rois` `(N, 4)` int32; `class_ids` `(N,)` int32, from 1 on;
            `scores` `(N,)` float32; and `masks` `(H, W, N)` bool.

        Raises:
            ValueError: for another mode.
            ImageError: for what is not an image.
        """
        if self.mode != "inference":
            raise ValueError("detect needs a model of mode 'inference'")
        if verbose:
            log(f"Processing {len(images)} images")
            for image in images:
                log("image", np.asarray(image))
        results = []
        for found in self.keras_model.detect_each(list(images)):
            masks = np.moveaxis(found.bool_masks(), 0, -1)
            results.append(
                {
                    "rois": np.rint(found.boxes[:, [1, 0, 3, 2]]).astype(np.int32),
                    "class_ids": found.labels.astype(np.int32) + 1,
                    "scores": found.scores,
                    "masks": masks,
                }
            )
        return results

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT:
            raise AttributeError(
                f"MaskRCNN.{name} looks into matterport's own graph and is not here; "
                f"the layers and extract_features of keras_model give what is computed on the way"
            )
        raise AttributeError(f"'MaskRCNN' object has no attribute {name!r}")


ABSENT = (
    *("run_graph", "ancestor", "find_trainable_layer", "get_trainable_layers", "get_anchors"),
    *("detect_molded", "mold_inputs", "unmold_detections", "build"),
)


def _network(config: Config) -> dict[str, Any]:
    """Return the arguments of the network, which here no file decides."""
    if not isinstance(config.BACKBONE, str):
        raise ValueError(
            f"BACKBONE must be 'resnet50' or 'resnet101' here; received {config.BACKBONE!r}"
        )
    if config.NUM_CLASSES < 2:
        raise ValueError(
            f"NUM_CLASSES must be at least 2, the background and a class; received "
            f"{config.NUM_CLASSES!r}"
        )
    return {
        "backbone": f"{config.BACKBONE}_fpn",
        "num_classes": int(config.NUM_CLASSES) - 1,
        "fpn_channels": config.TOP_DOWN_PYRAMID_SIZE,
        "box_units": config.FPN_CLASSIF_FC_LAYERS_SIZE,
        "pooled_size": config.POOL_SIZE,
    }


def _warn_of_ignored(config: Config) -> None:
    """Name, once, the settings of a subclass that have no effect here."""
    settings, defaults = settings_of(config), settings_of(Config)
    ignored = [
        name
        for name in IGNORED
        if not np.array_equal(settings.get(name, defaults[name]), defaults[name])
    ]
    lines = [f"{', '.join(ignored)} (masks are whole, and RoIs the RPN's)"] if ignored else []
    lines += unknown_settings(settings)
    key = (type(config).__name__, *lines)
    if lines and key not in _named:
        _named.add(key)
        warnings.warn(f"{key[0]}: ignored are {'; '.join(lines)}", stacklevel=3)
