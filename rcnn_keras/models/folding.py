"""Batch norm folded into the convolution before it, and less to multiply: for inference."""

import keras
import numpy as np

from rcnn_keras.layers import FeaturePyramid
from rcnn_keras.layers.normalization import BATCH_KINDS, BATCH_NORMS
from rcnn_keras.models.detector import Detector


def fold_batchnorm(model: Detector, *, winograd: bool = False) -> Detector:
    """Return a copy of a detector whose batch norms are in the kernels and biases before them.

    At inference a batch norm multiplies by constants and adds constants, which a convolution can do
    by itself. Detections stay the same to the rounding of float32. The copy is for inference: if it
    is trained further, it has no batch norm.

    Args:
        model: the detector, which stays as it is.
        winograd: also compute the 3x3 convolutions of pyramid and RPN by Winograd's algorithm,
            which is faster on a CPU, see `layers.WinogradConv2D`. Rounding grows to about 2e-5 of
            the largest feature.

    Returns:
        A detector of the same class with `norm` and `head_norm` None where the model's are a batch
        norm; group norm, whose statistics are those of the image, stays.

    Raises:
        ValueError: `winograd` for a detector without an RPN.
    """
    config = model.get_config()
    changes: dict[str, bool | None] = {
        key: None for key in ("norm", "head_norm") if config.get(key) in BATCH_KINDS
    }
    if winograd:
        if "winograd" not in config:
            raise ValueError(
                f"winograd=True is for detectors with an RPN, not {type(model).__name__}"
            )
        changes["winograd"] = True
    folded = type(model).from_config(config | changes)
    _copy(model, folded)
    return folded


def _copy(source: keras.layers.Layer, target: keras.layers.Layer) -> None:
    """Copy the weights of a layer's layers, and of theirs, into those of the same names."""
    ours, theirs = _children(source), _children(target)
    norms = _norms(source)
    for name, layer in ours.items():
        if name in norms:
            theirs[name].set_weights(_folded(layer, norms[name]))
        elif _children(layer):
            _copy(layer, theirs[name])
        elif layer.weights and not isinstance(layer, BATCH_NORMS):
            theirs[name].set_weights(layer.get_weights())


def _children(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    return {c.name: c for c in layer._flatten_layers(include_self=False, recursive=False)}


def _norms(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    """Return the batch norm that follows each convolution, by the convolution's name."""
    if isinstance(layer, FeaturePyramid):
        convolutions = [*layer.lateral, *layer.output_convs]
        norms = [*layer.lateral_norms, *layer.output_norms]
        pairs = zip(convolutions, norms, strict=True)
        return {conv.name: norm for conv, norm in pairs if isinstance(norm, BATCH_NORMS)}
    children = _children(layer).values()
    norms = [c for c in children if isinstance(c, BATCH_NORMS)]
    return {next(c for c in children if c.output is norm.input).name: norm for norm in norms}


def _folded(conv: keras.layers.Layer, norm: keras.layers.Layer) -> list[np.ndarray]:
    """Return the kernel and the bias that do the work of a convolution and its batch norm."""
    gamma, beta, mean, variance = (w.astype("float64") for w in norm.get_weights())
    scale = gamma / np.sqrt(variance + norm.epsilon)
    kernel = conv.get_weights()[0]
    depthwise = isinstance(conv, keras.layers.DepthwiseConv2D)  # (h, w, C, 1)
    return [kernel * (scale[:, None] if depthwise else scale), beta - mean * scale]
