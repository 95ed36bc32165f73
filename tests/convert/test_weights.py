"""Layers with PyTorch's tensors compute what PyTorch's modules are defined to compute."""

import keras
import numpy as np
import pytest
from keras import layers

from rcnn_keras.convert.weights import assign_weights, weight_targets
from rcnn_keras.layers.normalization import FrozenBatchNormalization


def filled(layer, shape, state, **options):
    """Build a layer for inputs of a shape, and fill it."""
    layer.build(shape)
    assign_weights(
        weight_targets(layer, "m", **options), {f"m.{k}": v for k, v in state.items()}, "test"
    )
    return layer


def drawn(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("f4")


def test_a_convolution_computes_what_pytorchs_does():
    x, weight, bias = drawn(5, 6, 3), drawn(4, 3, 3, 2, seed=1), drawn(4, seed=2)
    layer = layers.Conv2D(4, (3, 2))
    filled(layer, (None, 5, 6, 3), {"weight": weight, "bias": bias})
    want = np.zeros((3, 5, 4))
    for i, j, o in np.ndindex(3, 5, 4):
        for c, a, b in np.ndindex(3, 3, 2):
            want[i, j, o] += weight[o, c, a, b] * x[i + a, j + b, c]
    np.testing.assert_allclose(layer(x[None])[0], want + bias, atol=1e-5)


def test_a_depthwise_convolution_computes_what_pytorchs_does():
    x, weight = drawn(5, 5, 3), drawn(3, 1, 3, 3, seed=1)
    layer = filled(layers.DepthwiseConv2D(3, use_bias=False), (None, 5, 5, 3), {"weight": weight})
    want = np.zeros((3, 3, 3))
    for i, j, c, a, b in np.ndindex(3, 3, 3, 3, 3):
        want[i, j, c] += weight[c, 0, a, b] * x[i + a, j + b, c]
    np.testing.assert_allclose(layer(x[None])[0], want, atol=1e-5)


def test_a_transposed_convolution_computes_what_pytorchs_does():
    x, weight, bias = drawn(2, 3, 5), drawn(5, 4, 2, 2, seed=1), drawn(4, seed=2)
    layer = layers.Conv2DTranspose(4, 2, strides=2)
    filled(layer, (None, 2, 3, 5), {"weight": weight, "bias": bias})
    want = np.zeros((4, 6, 4))
    for i, j, a, b in np.ndindex(2, 3, 2, 2):
        want[2 * i + a, 2 * j + b] += x[i, j] @ weight[:, :, a, b]
    np.testing.assert_allclose(layer(x[None])[0], want + bias, atol=1e-5)


def test_a_dense_layer_on_a_map_computes_what_pytorchs_does():
    x, weight, bias = drawn(2, 2, 3), drawn(5, 12, seed=1), drawn(5, seed=2)
    layer = layers.Dense(5)
    filled(layer, (None, 12), {"weight": weight, "bias": bias}, map_size=2)
    want = weight @ x.transpose(2, 0, 1).ravel() + bias  # PyTorch flattens (C, S, S)
    np.testing.assert_allclose(layer(x.reshape(1, -1))[0], want, atol=1e-5)


@pytest.mark.parametrize(
    ("layer", "shape", "weight"),
    [
        (layers.Dense(3), (None, 4), drawn(5, 4)),
        (layers.Conv2D(3, 1), (None, 1, 1, 4), drawn(5, 4, 1, 1)),
    ],
)
def test_the_first_outputs_are_dropped(layer, shape, weight):
    bias, x = drawn(5, seed=1), drawn(4, seed=2)
    filled(layer, shape, {"weight": weight, "bias": bias}, drop=2)
    want = (weight.reshape(5, 4) @ x + bias)[2:]
    got = layer(x.reshape(1, *shape[1:]))
    np.testing.assert_allclose(np.reshape(got, -1), want, atol=1e-5)


@pytest.mark.parametrize(
    "layer", [layers.BatchNormalization(epsilon=1e-5), FrozenBatchNormalization()]
)
def test_batch_norm_computes_what_pytorchs_does(layer):
    x, gain, shift, mean = drawn(2, 3), drawn(3, seed=1), drawn(3, seed=2), drawn(3, seed=3)
    variance = drawn(3, seed=4) ** 2
    state = {"weight": gain, "bias": shift, "running_mean": mean, "running_var": variance}
    filled(layer, (None, 3), state | {"num_batches_tracked": np.array(5)})
    want = (x - mean) / np.sqrt(variance + 1e-5) * gain + shift
    np.testing.assert_allclose(layer(x), want, rtol=1e-4)


def test_all_problems_are_reported_at_once_and_nothing_is_changed():
    layer, norm = layers.Dense(2), layers.BatchNormalization()
    layer.build((None, 3))
    norm.build((None, 2))
    before = np.array(layer.bias)
    state = {
        "d.weight": np.zeros((3, 2), "f4"),
        "d.bias": np.ones(2, "f4"),
        "n.weight": np.array([1, np.nan], "f4"),
        "n.bias": np.ones(2, "i8"),
        "n.running_mean": np.ones(2, "f2"),
        "n.num_batches_tracked": np.array(1),
        "other.num_batches_tracked": np.array(1),
        "d.extra": np.ones(1, "f4"),
        "known": np.ones(1, "f4"),
    }
    with pytest.raises(ValueError, match="do not fit the model") as caught:
        assign_weights(
            weight_targets(layer, "d") | weight_targets(norm, "n"), state, "file.pth", ["known"]
        )
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("file.pth: ")
    assert sorted(line.strip() for line in lines[1:]) == [
        "missing: n.running_var",
        "not in the model: other.num_batches_tracked, d.extra",
        "not of finite floating-point numbers: n.weight, n.bias",
        "of another shape: d.weight (3, 2), not (2, 3)",
    ]
    np.testing.assert_array_equal(layer.bias, before)


def test_long_lists_of_names_are_shortened():
    state = {f"t{number}": np.ones(1, "f4") for number in range(25)}
    with pytest.raises(ValueError, match="t19 and 5 more"):
        assign_weights({}, state, "file")


def test_half_precision_is_converted_to_float32():
    layer = filled(
        layers.Dense(1, use_bias=False), (None, 2), {"weight": np.array([[0.1, 2]], "f2")}
    )
    assert keras.backend.standardize_dtype(layer.kernel.dtype) == "float32"
    np.testing.assert_array_equal(layer.kernel, np.array([[0.1], [2]], "f2").astype("f4"))


def test_layers_of_another_kind_are_refused():
    with pytest.raises(TypeError, match="LayerNormalization"):
        weight_targets(layers.LayerNormalization(), "m")
