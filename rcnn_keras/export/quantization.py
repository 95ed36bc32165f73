"""Smaller numbers for the layers that have weights, chosen by the names of the layers.

What decodes boxes and suppresses them stays in float32, for it compares pixels with fractions of a
pixel: anchors and proposals in 8 or 16 bits are some pixels apart, and a graph quantized as a whole
finds nothing. The names of layers are therefore part of what this package promises:

| layer | what is in it |
| --- | --- |
| `backbone` | the network that reads the image |
| `fpn` | the pyramid, `lateral*` and `output*` |
| `rpn_head` | `conv*`, and the predictors `objectness` and `deltas` |
| `box_head` | the trunk, and the predictors `class_logits` and `box_deltas` |
| `mask_head` | the trunk, `upsample`, and the predictor `mask_logits` |
| `normalize`, `anchor_generator`, `proposals`, `detections` | never quantized |
| `box_roi_align`, `box_roi_pool`, `mask_roi_align`, `real_rois`, `masks` | never quantized |

The predictors keep float32 activations also in `"int8"`: 256 values of objectness would put most
anchors on a par.
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.images import IMAGE_ENDINGS, ImageError, image_header

WAYS = ("float16", "dynamic", "int8")
TRUNKS = r"/(backbone|fpn|rpn_head|box_head|mask_head)(_\d+)?/"
PREDICTORS = (
    r"/(rpn_head(_\d+)?/(objectness|deltas)|box_head(_\d+)?/(class_logits|box_deltas)|"
    r"mask_head(_\d+)?/mask_logits)(_\d+)?/"
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
            raise ValueError(f"calibrate: {folder} is no folder")
        images = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_ENDINGS)
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
