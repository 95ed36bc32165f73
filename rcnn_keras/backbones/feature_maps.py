"""Any Keras model with feature maps, in the place of a backbone of this package.

A stage of such a model is what lies between two halvings of the map; it is read from the graph.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras

from rcnn_keras.keras_internals import input_tensors, num_calls, producer

PROBE_SIZES = ((512, 512), (256, 384))  # pixels; strides must be the same on both
LARGEST_STRIDE = 128

Stages = tuple[frozenset[str], ...]


@dataclass(frozen=True)
class FeatureMaps:
    """A model from images to feature maps, and what a detector needs to know of it.

    Attributes:
        model: functional model from `(B, H, W, 3)` to `{"c2": .., ..}`, `c2` of stride 4.
        strides: pixels a position of each map, each twice the one before.
        channels: of each map.
        stages: names of the layers of each stage, the first ones nearest to the image.
        normalizes: whether the model begins with a `Rescaling` or `Normalization` of its own.
    """

    model: keras.Model
    strides: tuple[int, ...]
    channels: tuple[int, ...]
    stages: Stages
    normalizes: bool


def feature_maps(model: keras.Model) -> FeatureMaps:
    """Read a model's feature maps and their strides.

    Args:
        model: with one input `(B, None, None, 3)`, channels last. Its outputs are maps
            `(B, H / stride, W / stride, C)`: one, a list of them, or a dict; the order and the keys
            do not matter. Of a KerasHub backbone the maps are its `pyramid_outputs`.

    Returns:
        A functional model that shares the layers of `model`, the maps sorted by stride.

    Raises:
        TypeError: if it is no `keras.Model`.
        ValueError: for another input, a map that is not 4-D or whose channels are not known,
            channels first, a stride that is no power of two, two maps of one stride, and strides
            with a gap.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"backbone must be a name or a keras.Model; received {model!r}")
    what = f"backbone {model.name!r}"
    images, outputs = _graph(model, what)
    maps = keras.tree.flatten(outputs)
    for tensor in maps:
        _check_map(tensor, what)
    found = sorted(zip(_strides(images, maps, what), range(len(maps)), strict=True))
    strides = tuple(stride for stride, _ in found)
    _check_strides(strides, what)
    ordered = [maps[index] for _, index in found]
    levels = {f"c{int(math.log2(s))}": x for s, x in zip(strides, ordered, strict=True)}
    graph = keras.Model(images, levels, name="backbone")
    return FeatureMaps(
        model=graph,
        strides=strides,
        channels=tuple(tensor.shape[-1] for tensor in ordered),
        stages=stages_of_graph(graph, strides[-1]),
        normalizes=_normalizes(graph),
    )


def _graph(model: keras.Model, what: str) -> tuple[keras.KerasTensor, Any]:
    """Return the input and the outputs of a model; one without a graph becomes a single layer."""
    if getattr(model, "inputs", None):
        images = keras.tree.flatten(model.inputs)
        if len(images) != 1:
            raise ValueError(f"{what} must have one input, images; it has {len(images)}")
        shape = tuple(images[0].shape)
        if shape != (None, None, None, 3):
            raise ValueError(
                f"{what} must take images of any size, (None, None, None, 3); it takes {shape}. "
                f"Build it with input_shape=(None, None, 3), channels last"
            )
        # KerasHub's backbones have but the last map as their output.
        return images[0], getattr(model, "pyramid_outputs", None) or model.outputs
    images = keras.Input((None, None, 3), name="images")
    return images, model(images)


def _check_map(tensor: Any, what: str) -> None:
    shape = tuple(tensor.shape)
    rule = None
    if len(shape) != 4:
        rule = "must return feature maps (B, H, W, C)"
    elif shape[-1] is None:
        first = "; channels_first is not supported" if shape[1] is not None else ""
        rule = f"must have a known number of channels, in the last place{first}"
    elif any(size is not None for size in shape[1:3]):
        rule = "must return maps whose height and width follow the image's"
    if rule:
        raise ValueError(f"{what} {rule}; received an output of shape {shape}")


def _strides(images: Any, maps: list[Any], what: str) -> list[int]:
    """Return the stride of every map."""
    graph = keras.Model(images, maps)
    strides: list[int] = []
    for size in PROBE_SIZES:
        shapes = [tuple(spec.shape) for spec in _specs(graph, size)]
        ratios = [{n / k if k else 0 for n, k in zip(size, s[1:3], strict=True)} for s in shapes]
        for ratio, shape in zip(ratios, shapes, strict=True):
            stride = next(iter(ratio))
            if len(ratio) != 1 or stride not in [2**k for k in range(8)]:
                raise ValueError(
                    f"{what}: the stride of every map must be a power of two up to "
                    f"{LARGEST_STRIDE}; an image of {size[0]} x {size[1]} gives a map of "
                    f"{shape[1]} x {shape[2]}"
                )
        strides = [int(next(iter(ratio))) for ratio in ratios]
    return strides


def _specs(graph: keras.Model, size: tuple[int, int]) -> list[Any]:
    return keras.tree.flatten(graph.compute_output_spec(keras.KerasTensor((1, *size, 3))))


def _check_strides(strides: tuple[int, ...], what: str) -> None:
    for fine, coarse in pairwise(strides):
        if fine == coarse:
            raise ValueError(f"{what} has two maps of stride {fine}; leave one out")
        if coarse != 2 * fine:
            raise ValueError(
                f"{what}: each map must have twice the stride of the one before; "
                f"received strides {', '.join(map(str, strides))}"
            )


def stages_of_graph(graph: keras.Model, last_stride: int) -> Stages:
    """Return the names of the layers in each stage of a functional model.

    A layer belongs to the stride of its output, or of what comes before it where that is greater.
    A stride at which nothing is trained, such as that of a padded image, is no stage of its own.
    """
    layers = [layer for layer in graph.layers if num_calls(layer) == 1]
    deepest = round(math.log2(last_stride))
    outputs = [(layer, tensor) for layer in layers for tensor in keras.tree.flatten(layer.output)]
    specs = _specs(keras.Model(graph.inputs, [tensor for _, tensor in outputs]), PROBE_SIZES[0])
    depth: dict[str, int] = {}
    for (layer, _), spec in zip(outputs, specs, strict=True):
        before = [depth.get(producer(x).name, 0) for x in input_tensors(layer)]
        halvings = 0
        if len(spec.shape) == 4 and spec.shape[1]:
            halvings = round(math.log2(PROBE_SIZES[0][0] / spec.shape[1]))
        halvings = halvings if halvings <= deepest else 0  # a mean over the map is no level
        depth[layer.name] = max([halvings, *before, depth.get(layer.name, 0)])
    trained = sorted({depth[layer.name] for layer in layers if layer.trainable_weights})
    starts = trained or [0]
    stages: list[set[str]] = [set() for _ in starts]
    for layer in graph.layers:  # those that are called twice are of the last stage
        at = depth.get(layer.name, deepest)
        number = sum(start <= at for start in starts[1:])
        stages[number].add(layer.name)
    return tuple(map(frozenset, stages))


def border_of(graph: keras.Model, inside: frozenset[str]) -> Any:
    """Return the one tensor that leads from some layers to all others.

    Raises:
        ValueError: if there are more.
    """
    crossing: dict[int, Any] = {}
    last = None
    for layer in graph.layers:
        if layer.name in inside:
            last = layer
            continue
        for tensor in input_tensors(layer):
            if producer(tensor).name in inside:
                crossing[id(tensor)] = tensor
    if len(crossing) > 1:
        names = sorted(producer(tensor).name for tensor in crossing.values())
        raise ValueError(
            f"recompute_stages must be 0 for this backbone, or end at another stage: what follows "
            f"reads the outputs of {', '.join(names)}, and only one tensor may cross"
        )
    return next(iter(crossing.values())) if crossing else last.output  # type: ignore[union-attr]


def _normalizes(graph: keras.Model) -> bool:
    """Return whether the first layer after the input rescales or normalises the image."""
    first = [layer for layer in graph.layers if not isinstance(layer, keras.layers.InputLayer)][:1]
    if first and isinstance(first[0], keras.Model):  # a model in a model
        first = [x for x in first[0].layers if not isinstance(x, keras.layers.InputLayer)][:1]
    return bool(first) and isinstance(
        first[0], (keras.layers.Rescaling, keras.layers.Normalization)
    )
