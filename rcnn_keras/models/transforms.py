"""Model to model: portable kernels, truncated SVD, and folded batch norm."""

from collections.abc import Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from rcnn_keras.keras_internals import sublayers
from rcnn_keras.layers import FeaturePyramid
from rcnn_keras.layers.normalization import BATCH_KINDS, BATCH_NORMS
from rcnn_keras.models.detector import Detector
from rcnn_keras.models.fast_rcnn import FastRCNN
from rcnn_keras.ops.types import Kernels

AnyDetector = TypeVar("AnyDetector", bound=Detector)


def with_kernels(model: Detector, kernels: Kernels) -> Detector:
    """Return a copy of a detector that computes the same with other kernels.

    | | `"native"` | `"portable"` |
    | --- | --- | --- |
    | RoIAlign, R-CNN's crops | `crop_and_resize`, level by level | gathers from one table |
    | RoIPool | tables of maxima, as many as the RoIs need | all tables beforehand |
    | mask branch, R-CNN's network | on what is no padding | on padding too |
    | NMS | `NonMaxSuppressionV4` | the same, on boxes sorted before |
    | runs on | TensorFlow: training, CPU, SavedModel | also XLA, LiteRT, ONNX, OpenVINO |

    Args:
        model: the detector, which stays as it is.
        kernels: `"native"` or `"portable"`.

    Returns:
        A detector of the same class with the same weights.

    Raises:
        ValueError: for other kernels.
    """
    copy = rebuilt(model, kernels=kernels)
    copy.set_weights(model.get_weights())
    return copy


def rebuilt(model: AnyDetector, **changes: Any) -> AnyDetector:
    """Return a new detector with the arguments of another, some of them changed.

    Layers that the user gave need not be registered with Keras for it.
    """
    own = getattr(model, "custom_layers", {}).values()
    parts = [part for layer in own for part in (layer, *sublayers(layer, recursive=True))]
    classes = {keras.saving.get_registered_name(type(part)): type(part) for part in parts}
    config = model.get_config() | changes
    return type(model).from_config(config, custom_objects=classes)  # type: ignore[return-value]


def truncate_svd(model: FastRCNN, ranks: tuple[int, int] = (1024, 256)) -> FastRCNN:
    """Return a copy of a detector whose fc6 and fc7 have lost their least singular values.

    A layer of u x v weights W = U S V^T becomes two of t (u + v) weights, V^T and U S, where t
    singular values are kept: a fifth of the work for VGG-16's fc6 with t = 1024. For inference; the
    detections change a little, the less the more values are kept.

    Args:
        model: the detector, which stays as it is; its head must have the two layers.
        ranks: t of fc6 and of fc7; the defaults are the paper's for VGG-16.

    Raises:
        ValueError: for another detector, a head without the two layers, or one that was truncated
            before, and for ranks above what the layers have.
    """
    if not isinstance(model, FastRCNN):
        raise ValueError(f"truncate_svd is for FastRCNN, not for {type(model).__name__}")
    trunk = getattr(model.box_head, "trunk", None)
    names = [layer.name for layer in getattr(trunk, "layers", ())]
    if not {"fc6", "fc7"} <= set(names) or "fc6_v" in names:
        raise ValueError(
            f"truncate_svd needs a box head with whole layers fc6 and fc7; has {names}"
        )
    if len(ranks) != 2:
        raise ValueError(f"ranks must be two numbers, of fc6 and fc7; received {ranks!r}")
    factors: dict[str, list[np.ndarray]] = {}
    for name, rank in zip(("fc6", "fc7"), ranks, strict=True):
        kernel, bias = model.box_head.trunk.get_layer(name).get_weights()
        if not 1 <= rank <= min(kernel.shape):
            raise ValueError(f"the rank of {name} must be in 1..{min(kernel.shape)}; got {rank!r}")
        first, second = _factors(kernel, rank)
        factors |= {f"{name}_v": [first], name: [second, bias]}
    thin = rebuilt(model, box_ranks=tuple(ranks))
    for name, weights in factors.items():
        thin.box_head.trunk.get_layer(name).set_weights(weights)
    _copy_all_but_trunk(model, thin)
    return thin


def _factors(kernel: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Return `(v, t)` and `(t, u)` whose product is nearest to a kernel `(v, u)`."""
    left, values, right = np.linalg.svd(kernel, full_matrices=False)
    return left[:, :rank], values[:rank, None] * right[:rank]


def _copy_all_but_trunk(source: FastRCNN, target: FastRCNN) -> None:
    pairs = [(source.backbone, target.backbone), (source.fpn, target.fpn)]
    pairs += [
        (getattr(source.box_head, name), getattr(target.box_head, name))
        for name in ("class_logits", "box_deltas")
    ]
    for ours, theirs in pairs:
        if ours is not None:
            theirs.set_weights(ours.get_weights())


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
        norm; group norm, whose statistics are those of the image, stays, and so does what a
        backbone or a layer from outside of this package has inside.

    Raises:
        ValueError: `winograd` for a detector without an RPN.
    """
    config = model.get_config()
    changes: dict[str, bool | None] = {
        key: None for key in ("norm", "head_norm") if config.get(key) in BATCH_KINDS
    }
    if not getattr(model, "has_builtin_backbone", True):
        changes.pop("norm", None)
    if winograd:
        if "winograd" not in config:
            raise ValueError(
                f"winograd=True is for detectors with an RPN, not {type(model).__name__}"
            )
        changes["winograd"] = True
    folded = rebuilt(model, **changes)
    own = getattr(model, "custom_layers", {})
    for name, layer in own.items():
        folded.custom_layers[name].set_weights(layer.get_weights())
    _copy(model, folded, list(own.values()))
    return folded


def _copy(
    source: keras.layers.Layer,
    target: keras.layers.Layer,
    without: Sequence[keras.layers.Layer] = (),
) -> None:
    """Copy the weights of a layer's layers, and of theirs, into those of the same names.

    Those in `without` are left out, with all that is in them.
    """
    ours, theirs = _children(source), _children(target)
    norms = _norms(source)
    for name, layer in ours.items():
        if any(layer is one for one in without):
            continue
        if name in norms:
            theirs[name].set_weights(_folded(layer, norms[name]))
        elif _children(layer):
            _copy(layer, theirs[name])
        elif layer.weights and not isinstance(layer, BATCH_NORMS):
            theirs[name].set_weights(layer.get_weights())


def _children(layer: keras.layers.Layer) -> dict[str, keras.layers.Layer]:
    return {child.name: child for child in sublayers(layer)}


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
