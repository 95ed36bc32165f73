"""A detector as a LiteRT (TFLite) file for phones and small computers."""

import json
import zipfile
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import tensorflow as tf

from rcnn_keras.data.dataset import DetectionDataset
from rcnn_keras.data.written_aside import written_aside
from rcnn_keras.export.fixed_size import checked_size, fixed_size, letterboxed, padding_of
from rcnn_keras.export.quantization import check_quantization, quantized
from rcnn_keras.models import Detector

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
    `num_detections` `(1,)`, and `masks` `(1, D, M, M)` inside the boxes. It does not resize: an
    image is made to fit beforehand, put into the upper left corner, and padded with the colour
    that `detector.json` has.

    Beside the model the file holds, as TFLite's own tools put them there, a zip archive:
    `labels.txt` with a class name a line, and `detector.json` with `size`, `padding`, `min_size`,
    `max_size`, `antialias`, `score_threshold`, `masks` and `quantize`.

    Args:
        model: the detector, which stays as it is.
        path: of the file, ending in `.tflite`.
        size: H and W, multiples of 32; by default `min_size` x `max_size` of the model, rounded up.
        quantize: None for float32; `"float16"` for weights of half the size; `"dynamic"` for
            weights in 8 bits; `"int8"` for 8 bits in backbone, pyramid and heads, see
            `export.quantization`.
        calibrate: for `"int8"`, images like those to come, of which up to 100 are read: a folder,
            or a dataset.
        num_proposals: R, for R-CNN and Fast R-CNN, whose file also takes `proposals` `(1, R, 4)`
            in pixels of the input and `num_proposals` `(1,)` int32, how many are real.
        overwrite: replace a file that is there.

    Returns:
        The path.

    Raises:
        TypeError: if the model is no detector of this package.
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
    with written_aside(path) as aside:
        graph.export(
            aside,
            format="litert",
            input_signature=[graph.signature],
            verbose=False,
            target_spec={"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]},
        )
        if quantize is not None:
            aside.write_bytes(quantized(aside.read_bytes(), quantize, samples))
        with zipfile.ZipFile(aside, "a") as archive:
            archive.writestr(LABELS, "".join(f"{name}\n" for name in model.classes))
            about = about_file(model, height_width) | {"quantize": quantize}
            archive.writestr(DETECTOR, json.dumps(about, indent=1))
    return path


def checked_path(path: str | PathLike, ending: str, overwrite: bool) -> Path:
    """Return where a file goes; raise if it may not go there."""
    path = Path(path)
    if path.suffix != ending:
        raise ValueError(f"the file's name must end in {ending}; received {path}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent}: no such folder")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a file to write")
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
        "score_threshold": model.detection_layer.score_threshold,
        "masks": model.has_masks,
    }
