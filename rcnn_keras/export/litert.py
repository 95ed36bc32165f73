"""A detector as a LiteRT (TFLite) file for phones and small computers, also quantised.

Which layers are quantised is chosen by their names. What decodes boxes and suppresses them stays in
float32, for it compares pixels with fractions of a pixel: anchors and proposals in 8 or 16 bits are
some pixels apart, and a graph quantised as a whole finds nothing. The names of layers are therefore
part of the public interface:

| layer | what is in it |
| --- | --- |
| `backbone` | the network that reads the image |
| `fpn` | the pyramid, `lateral*` and `output*` |
| `rpn_head` | `conv*`, and the predictors `objectness` and `deltas` |
| `box_head` | the trunk, and the predictors `class_logits` and `box_deltas` |
| `mask_head` | the trunk, `upsample`, and the predictor `mask_logits` |
| `keypoint_head` | `conv*`, and the predictor `keypoint_logits` |
| `normalize`, `anchor_generator`, `proposals`, `detections` | never quantised |
| `box_roi_align`, `box_roi_pool`, `mask_roi_align`, `real_rois`, `masks` | never quantised |
| `keypoint_roi_align`, `keypoints` | never quantised |

The predictors keep float32 activations also in `"int8"`: 256 values of objectness would give most
anchors the same score.
"""

import importlib.util
import json
import zipfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.image_files import images_in
from rcnn_keras.data.images import ImageError, image_header
from rcnn_keras.export.fixed_size import checked_size, fixed_size, letterboxed, padding_of
from rcnn_keras.models import Detector
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.output_paths import check_output_file

WAYS = ("float16", "dynamic", "int8")

TRUNKS = r"/(backbone|fpn|rpn_head|box_head|mask_head|keypoint_head)(_\d+)?/"

PREDICTORS = (
    r"/(rpn_head(_\d+)?/(objectness|deltas)|box_head(_\d+)?/(class_logits|box_deltas)|"
    r"mask_head(_\d+)?/mask_logits|keypoint_head(_\d+)?/keypoint_logits)(_\d+)?/"
)

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D_TRANSPOSE", "FULLY_CONNECTED")

MOST_CALIBRATION_IMAGES = 100

NEEDS_PACKAGE = "{} needs ai-edge-quantizer: pip install 'rcnn-keras[litert]'"


def check_quantization(quantize: str | None, calibrate: Any) -> list[Any]:
    """Check what is asked for, and return the images to calibrate with.

    Args:
        quantize: None or one of `WAYS`.
        calibrate: None, a folder of images, or a `DetectionDataset`.

    Returns:
        Up to 100 paths or arrays, taken evenly from all; none unless `quantize` is `"int8"`.

    Raises:
        ValueError: for another way; for int8 without images, and for images without int8.
        ImportError: without ai-edge-quantizer.
    """
    if quantize is not None and quantize not in WAYS:
        raise ValueError(
            f"quantize must be None or one of {', '.join(WAYS)}; received {quantize!r}. Everything "
            f"in 8 bits is not offered: boxes and suppression in 8 bits find nothing"
        )
    if quantize is not None and importlib.util.find_spec("ai_edge_quantizer") is None:
        raise ImportError(NEEDS_PACKAGE.format(f"quantize={quantize!r}"))
    if quantize != "int8":
        if calibrate is not None:
            raise ValueError(f"calibrate is for quantize='int8' alone, not for {quantize!r}")
        return []
    if calibrate is None:
        raise ValueError("quantize='int8' needs calibrate: a folder of images, or a dataset")
    images = _images(calibrate)
    step = max(len(images) / MOST_CALIBRATION_IMAGES, 1)
    count = min(len(images), MOST_CALIBRATION_IMAGES)
    return [images[int(k * step)] for k in range(count)]


def _images(source: Any) -> list[Any]:
    """Return what can be read of a folder or a dataset; ValueError if there is nothing."""
    images: list[Any]
    if isinstance(source, DetectionDataset):
        images = [r.image for r in source]
    else:
        folder = Path(source)
        if not folder.is_dir():
            raise ValueError(f"calibrate: {folder} is not a folder")
        images = [*images_in(folder).images]
    if not images:
        raise ValueError(f"calibrate: no image in {source}")
    for image in images:
        if not isinstance(image, np.ndarray):
            try:
                image_header(image)
            except ImageError as error:
                raise ValueError(f"calibrate: {error}") from error
    return images


def quantized(content: bytes, quantize: str, inputs: list[dict[str, np.ndarray]]) -> bytes:
    """Return a LiteRT model with smaller numbers.

    Args:
        content: the model in float32.
        quantize: `"float16"`, weights in 16 bits; `"dynamic"`, weights in 8 bits and activations
            too, by the range of the moment; `"int8"`, activations by the ranges of calibration,
            except for the predictors, which are as in `"dynamic"`.
        inputs: for calibration, what the model's signature takes.
    """
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.calibrator import CalibrationMode
    from ai_edge_quantizer.quantizer import AlgorithmName, Quantizer

    quantizer = Quantizer(content)
    operations = [qtyping.TFLOperationName[name] for name in WEIGHTED]
    if quantize == "float16":
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=qtyping.TensorQuantizationConfig(
                num_bits=16, dtype=qtyping.TensorDataType.FLOAT
            ),
            compute_precision=qtyping.ComputePrecision.FLOAT,
        )
        for operation in operations:
            quantizer.update_quantization_recipe(
                ".*", operation, config, AlgorithmName.FLOAT_CASTING
            )
        return bytes(
            quantizer.quantize(
                enable_progress_bar=False, enable_progress_report=False
            ).quantized_model
        )
    if quantize == "dynamic":
        for operation in operations:
            quantizer.add_dynamic_config(".*", operation, num_bits=8)
        return bytes(
            quantizer.quantize(
                enable_progress_bar=False, enable_progress_report=False
            ).quantized_model
        )
    quantizer.add_static_config(
        TRUNKS, qtyping.TFLOperationName.ALL_SUPPORTED, activation_num_bits=8, weight_num_bits=8
    )
    quantizer.update_quantization_recipe(
        PREDICTORS,
        qtyping.TFLOperationName.ALL_SUPPORTED,
        algorithm_key=AlgorithmName.NO_QUANTIZE,
    )
    for operation in operations:
        quantizer.add_dynamic_config(PREDICTORS, operation, num_bits=8)
    ranges = quantizer.calibrate(
        {"serving_default": inputs},
        num_threads=2,
        mode=CalibrationMode.CALIBRATION_PRESERVE_ALL_TENSORS,
    )
    result = quantizer.quantize(ranges, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


LABELS, DETECTOR = "labels.txt", "detector.json"  # files inside the model's


def litert(
    model: Detector,
    path: str | PathLike,
    *,
    size: Sequence[int] | None = None,
    quantize: str | None = None,
    calibrate: str | PathLike | DetectionDataset | None = None,
    num_proposals: int = 300,
    overwrite: bool = False,
) -> Path:
    """Write a detector as a LiteRT file that runs without TensorFlow.

    The graph has LiteRT's built-in operators alone. It takes `images` `(1, H, W, 3)` uint8 RGB and
    gives `boxes` `(1, D, 4)` in pixels of that input, `scores` and `labels` `(1, D)`,
    `num_detections` `(1,)`, `masks` `(1, D, M, M)` inside the boxes, and `keypoints`
    `(1, D, P, 3)`, see `ops.portable_decode_heatmaps`. It does not resize: an image is made to fit
    beforehand, put into the upper left corner, and padded with the colour that `detector.json` has.

    Beside the model the file holds, as TFLite's own tools put them there, a zip archive:
    `labels.txt` with a class name a line, and `detector.json` with `size`, `padding`, `min_size`,
    `max_size`, `antialias`, `image_rule` (in place of these, or null), `score_threshold`, `masks`,
    `keypoints` (their names, or null) and `quantize`.

    Args:
        model: the detector, which stays as it is.
        path: of the file, ending in `.tflite`.
        size: H and W, multiples of 32; by default `min_size` x `max_size` of the model, rounded up.
        quantize: None for float32; `"float16"` for weights of half the size; `"dynamic"` for
            weights in 8 bits; `"int8"` for 8 bits in backbone, pyramid and heads.
        calibrate: for `"int8"`, images like those to come, of which up to 100 are read: a folder,
            or a dataset.
        num_proposals: R, for R-CNN and Fast R-CNN, whose file also takes `proposals` `(1, R, 4)`
            in pixels of the input and `num_proposals` `(1,)` int32, how many are real.
        overwrite: replace a file that is there.

    Returns:
        The path.

    Raises:
        TypeError: if the model is not a detector of this package.
        ValueError: for a size or a way to quantize that cannot be, or without images to calibrate.
        FileExistsError: if there is a file and `overwrite` is False.
        ImportError: if a package is missing that quantizes.
    """
    path = checked_path(path, ".tflite", overwrite)
    height_width = checked_size(model, size)
    images = check_quantization(quantize, calibrate)
    if quantize == "int8" and model.takes_proposals:
        raise ValueError(
            f"quantize='int8' is for detectors that find their own proposals: calibration images "
            f"have none for {type(model).__name__}; 'dynamic' needs no calibration"
        )
    samples = [{"images": letterboxed(image, model, height_width)[0]} for image in images]
    graph = fixed_size(model, height_width, num_proposals)
    with atomic_write(path) as temporary:
        graph.export(
            temporary,
            format="litert",
            input_signature=[graph.signature],
            verbose=False,
            target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
        )
        if quantize is not None:
            temporary.write_bytes(quantized(temporary.read_bytes(), quantize, samples))
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr(LABELS, "".join(f"{name}\n" for name in model.classes))
            about = about_file(model, height_width) | {"quantize": quantize}
            archive.writestr(DETECTOR, json.dumps(about, indent=1))
    return path


def checked_path(path: str | PathLike, ending: str, overwrite: bool) -> Path:
    """Return where a file goes; raise if it may not go there."""
    path = Path(path)
    if path.suffix != ending:
        raise ValueError(f"the file's name must end in {ending}; received {path}")
    check_output_file(path)
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} is there already; overwrite=True replaces it")
    return path


def about_file(model: Detector, size: tuple[int, int]) -> dict:
    """Return what a program must know to prepare an image and to read the detections."""
    return {
        "size": list(size),
        "padding": list(padding_of(model)),
        "min_size": model.min_size,
        "max_size": model.max_size,
        "antialias": model.antialias,
        "image_rule": None if model.image_rule is None else vars(model.image_rule),
        "score_threshold": model.detection_layer.score_threshold,
        "masks": model.has_masks,
        "keypoints": None if model.skeleton is None else list(model.skeleton.names),
    }
