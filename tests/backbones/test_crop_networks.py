import keras
import numpy as np
import pytest

from rcnn_keras.backbones import crop_network, load_imagenet


def test_vgg_16_on_crops():
    network = crop_network("vgg16", units=8)
    shapes = {name: x.shape for name, x in network.output.items()}
    assert shapes == {"pool5": (None, 7, 7, 512), "fc7": (None, 8)}
    assert network.input_shape == (None, 224, 224, 3)
    assert network.get_layer("vgg16").count_params() == 14_714_688  # VGG-16 without its top


@pytest.mark.slow  # two times VGG-16
def test_vgg_16_has_the_fc7_of_keras_applications():
    source = keras.applications.VGG16(weights=None)
    network = crop_network("vgg16")
    load_imagenet(network.get_layer("vgg16"), network.get_layer("box_trunk"), "vgg16", source)
    crops = np.random.default_rng(1).normal(0, 50, (2, 224, 224, 3)).astype("f4")
    expected = keras.Model(source.input, source.get_layer("fc2").output)(crops[..., ::-1])
    atol = 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(network(crops)["fc7"], expected, atol=atol)
