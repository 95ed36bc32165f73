import keras
import numpy as np
import pytest

from rcnn_keras.backbones import alexnet

# By hand: kernel height x width x channels in x channels out + biases.
PARAMETERS = {
    "conv1": 11 * 11 * 3 * 96 + 96,
    "conv2_1": 5 * 5 * 48 * 128 + 128,
    "conv2_2": 5 * 5 * 48 * 128 + 128,
    "conv3": 3 * 3 * 256 * 384 + 384,
    "conv4_1": 3 * 3 * 192 * 192 + 192,
    "conv4_2": 3 * 3 * 192 * 192 + 192,
    "conv5_1": 3 * 3 * 192 * 128 + 128,
    "conv5_2": 3 * 3 * 192 * 128 + 128,
    "fc6": 6 * 6 * 256 * 4096 + 4096,
    "fc7": 4096 * 4096 + 4096,
}
MAPS = {"conv1": 55, "pool1": 27, "conv2": 27, "pool2": 13, "conv3": 13, "conv5": 13, "pool5": 6}


@pytest.fixture(scope="module")
def network():
    return alexnet()


def test_its_parameters_are_those_of_the_paper_s_network(network):
    counted = {layer.name: layer.count_params() for layer in network.layers if layer.weights}
    assert counted == PARAMETERS
    assert sum(counted.values()) + 4096 * 1000 + 1000 == 60_965_224  # with ImageNet's fc8


def test_its_maps_have_the_paper_s_sizes(network):
    for name, size in MAPS.items():
        assert network.get_layer(name).output.shape[1:3] == (size, size)
    shapes = {name: x.shape for name, x in network.output.items()}
    assert shapes == {"pool5": (None, 6, 6, 256), "fc7": (None, 4096)}


def test_groups_see_half_of_the_channels():
    """Two groups are one convolution whose kernel is zero between the halves."""
    keras.utils.set_random_seed(0)
    small = alexnet(67, (4, 8, 4, 4, 4), 3)
    norm1 = small.get_layer("norm1").output
    kernels = [small.get_layer(f"conv2_{k}").get_weights()[0] for k in (1, 2)]
    whole = np.zeros((5, 5, 4, 8), "f4")
    whole[:, :, :2, :4], whole[:, :, 2:, 4:] = kernels
    x = np.random.default_rng(0).normal(0, 50, (2, 67, 67, 3)).astype("f4")
    before, after = keras.Model(small.input, [norm1, small.get_layer("conv2").output])(x)
    expected = keras.ops.relu(keras.ops.conv(before, whole, padding="same"))
    np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-4)
