"""A detector as a SavedModel, for TensorFlow Serving and whatever else has TensorFlow alone.

Warm-up: the first request of each kind pays for what TensorFlow sets up. The server reads
`assets.extra/tf_serving_warmup_requests`, a TFRecord of `PredictionLog` messages.
"""

import importlib.util
import io
import os
import warnings
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from rcnn_keras.data.images import read_image
from rcnn_keras.export.preparation import check_detector, check_free, exported_folder, folded
from rcnn_keras.export.served_detector import ServedDetector
from rcnn_keras.layers import BoxHead
from rcnn_keras.models import RCNN, Detector

WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")


def require_serving_api() -> None:
    """Raise an ImportError that says how to get tensorflow-serving-api, if it is missing."""
    if importlib.util.find_spec("tensorflow_serving") is None:
        raise ImportError(
            "warm-up requests are messages of TensorFlow Serving: pip install "
            "'rcnn-keras[serving]', or pip install tensorflow-serving-api"
        )


def write_requests(
    folder: Path, images: list[np.ndarray], signatures: dict[str, dict[str, tf.TensorSpec]]
) -> None:
    """Write a request of each signature for each image into a SavedModel.

    A detector that takes proposals gets one, the whole image.

    Args:
        folder: the SavedModel.
        images: `(H, W, 3)` uint8 RGB.
        signatures: the inputs of each.
    """
    from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

    path = folder / WARM_UP
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as file:
        for image in images:
            height, width = image.shape[:2]
            whole = np.array([[[0, 0, width, height]]], np.float32)
            values = {tf.uint8: image[None], tf.string: [_png(image)], tf.float32: whole}
            for name, inputs in signatures.items():
                request = predict_pb2.PredictRequest()
                request.model_spec.name = "warm_up"  # the server looks at the signature alone
                request.model_spec.signature_name = name
                for key, spec in inputs.items():
                    value = tf.make_tensor_proto(values[spec.dtype], spec.dtype)
                    request.inputs[key].CopyFrom(value)
                log = prediction_log_pb2.PredictionLog(
                    predict_log=prediction_log_pb2.PredictLog(request=request)
                )
                file.write(log.SerializeToString())


def _png(image: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(image).save(encoded, "PNG")
    return encoded.getvalue()


MARK = "saved_model.pb"

CLASSES = Path("assets.extra", "classes.txt")
KEYPOINTS = Path("assets.extra", "keypoints.txt")


def saved_model(
    model: Detector,
    path: str | PathLike,
    *,
    detection_names: bool = False,
    paste_masks: bool = False,
    winograd: bool = False,
    warm_up: Iterable[str | PathLike | np.ndarray] = (),
    overwrite: bool = False,
) -> Path:
    """Write a detector as a SavedModel: a folder that needs TensorFlow and no Keras to run.

    Resizing and what `Detector.detect` does to boxes are in the graph, and batch norm is folded
    into the convolutions; detections are those of `detect`, in pixels of the image that was sent.

    | signature | inputs |
    | --- | --- |
    | `serving_default` | `images` `(B, H, W, 3)` uint8 RGB, any size |
    | `image_bytes` | `image_bytes` `(B,)`, JPEG or PNG files, each of any size |

    For R-CNN and Fast R-CNN both also take `proposals` `(B, R, 4)` float32 in pixels of the images;
    boxes without area are padding. Both give `boxes` `(B, D, 4)`, `scores` `(B, D)`, `labels`
    `(B, D)` int32 and `num_detections` `(B,)` int32, for Mask R-CNN `masks` `(B, D, M, M)` in
    0..1, each inside its box, and for Keypoint R-CNN `keypoints` `(B, D, P, 3)`, x and y in pixels
    and the score. The names of the classes are in `assets.extra/classes.txt`, those of the
    keypoints in `assets.extra/keypoints.txt`.

    EXIF orientation is not followed, see `image_files`: turn photographs before they are sent.

    Args:
        model: the detector; a folded copy of it is written.
        path: the folder.
        detection_names: `serving_default` is that of TensorFlow's object detection API, for clients
            of its models: from `input_tensor` `(B, H, W, 3)` uint8 to `detection_boxes` (y1, x1,
            y2, x2 in 0..1), `detection_scores`, `detection_classes` (float32, from 1 on),
            `num_detections`, `detection_masks`, and `detection_keypoints` (y, x in 0..1) and
            `detection_keypoint_scores`. What it was else is then called `images`.
        paste_masks: `masks` for `images` are those of whole images, `(B, D, H, W)` uint8.
        winograd: compute some convolutions by Winograd's algorithm, see `fold_batchnorm`.
        warm_up: images, files or arrays, that TensorFlow Serving runs before it takes requests, so
            that the first of them is not slow; needs tensorflow-serving-api.
        overwrite: replace a SavedModel that is there.

    Returns:
        The folder.

    Raises:
        FileExistsError: if something is there and may not be overwritten.
        OSError: if the folder cannot be written.
        ValueError: for `paste_masks` of a detector without masks, and `winograd` without an RPN.
        ImageError: for a warm-up image that cannot be read.
        TypeError: if the model is not a detector of this package.
        ImportError: if warm-up needs a package that is missing; says which.

    Warns:
        UserWarning: if the detector was never trained.
    """
    folder = Path(path)
    check_free(folder, overwrite, MARK)
    check_detector(model)
    if paste_masks and not model.has_masks:
        raise ValueError(f"paste_masks: {type(model).__name__} has no masks to paste")
    samples = list(warm_up)
    if samples:
        require_serving_api()
    images = [read_image(sample) for sample in samples]
    if is_untrained(model):
        warnings.warn(
            f"{model.name} was never trained: the biases of its classifier are all 0, as at first",
            stacklevel=2,
        )
    with exported_folder(folder, overwrite, MARK) as new:
        served = ServedDetector(folded(model, winograd), paste_masks)
        signatures = served.signatures(detection_names)
        # An archive that also tracks the model would store every variable twice.
        archive = keras.export.ExportArchive()
        for name, (function, inputs) in signatures.items():
            archive.add_endpoint(name, function, [inputs])
        archive.write_out(os.fspath(new), verbose=False)
        (new / CLASSES.parent).mkdir(exist_ok=True)
        (new / CLASSES).write_text("".join(f"{name}\n" for name in model.classes), "utf-8")
        if model.skeleton is not None:
            names = "".join(f"{name}\n" for name in model.skeleton.names)
            (new / KEYPOINTS).write_text(names, "utf-8")
        if images:
            write_requests(new, images, {name: inputs for name, (_, inputs) in signatures.items()})
    return folder


def is_untrained(model: Detector) -> bool:
    """Tell whether the classifier's biases are 0, as they are drawn, which one step changes.

    Of a head of the user's own it is not known.
    """
    if isinstance(model, RCNN):
        classifiers = [model.svm if model.classifier == "svm" else model.class_logits]
    else:
        heads = [head for head in model.box_heads if isinstance(head, BoxHead)]
        classifiers = [head.class_logits for head in heads]
    biases = [keras.ops.convert_to_numpy(classifier.bias) for classifier in classifiers]
    return bool(biases) and not any(np.any(bias) for bias in biases)
