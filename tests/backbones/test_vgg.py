import keras
import numpy as np
import pytest

from rcnn_keras.backbones import vgg16, vgg16_fc

PARAMETERS = 14_714_688  # of torchvision's vgg16().features


@pytest.fixture(scope="module")
def model():
    return vgg16()


def test_parameters_and_stride(model):
    assert model.count_params() == PARAMETERS
    assert model.compute_output_shape((2, 64, 96, 3)) == {"c4": (2, 4, 6, 512)}
    assert model.compute_output_shape((2, 65, 97, 3)) == {"c4": (2, 4, 6, 512)}


def test_thirteen_convolutions_by_the_names_of_keras_applications(model):
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    original = keras.applications.VGG16(weights=None, include_top=False)
    expected = [
        (layer.name, layer.filters)
        for layer in original.layers
        if isinstance(layer, keras.layers.Conv2D)
    ]
    assert [(layer.name, layer.filters) for layer in convs] == expected
    assert len(convs) == 13


def test_a_position_of_the_map_sees_conv5_3s_field(model):
    """conv5_3 sees 196 pixels: 3x3s that add 2, 2, then twice, four, eight and sixteen times."""
    field = 1
    for stride, convs in ((16, 3), (8, 3), (4, 3), (2, 2), (1, 2)):
        field += 2 * stride * convs + (stride // 2 if stride > 1 else 0)
    assert field == 196
    for layer in model.layers:  # all ones, so that nothing cancels out
        if layer.weights:
            layer.set_weights([np.ones(w.shape) * 1e-2 for w in layer.get_weights()])
    image = np.zeros((1, 32, 320, 3), np.float32)
    before = model(image)["c4"].numpy()[0, 0, :, 0]
    image[0, 0, 159] = 1e6
    moved = np.flatnonzero(model(image)["c4"].numpy()[0, 0, :, 0] != before)
    # position 9 starts at pixel 144; its field is 90 pixels to the left and 105 to the right of it
    expected = [p for p in range(20) if p * 16 - 90 <= 159 < p * 16 - 90 + field]
    assert moved.tolist() == expected


def test_fc_against_numpy():
    trunk = vgg16_fc(6, name="trunk")
    assert trunk.name == "trunk"
    rng = np.random.default_rng(0)
    pooled = rng.normal(size=(3, 7, 7, 512)).astype(np.float32)
    x = pooled.reshape(3, -1)
    for name in ("fc6", "fc7"):
        layer = trunk.get_layer(name)
        layer.bias.assign(rng.normal(size=6))
        x = np.maximum(x @ layer.kernel.numpy() + layer.bias.numpy(), 0)
    np.testing.assert_allclose(trunk(pooled), x, rtol=1e-4, atol=1e-4)


def test_fc_drops_only_while_training():
    pooled = np.ones((2, 7, 7, 512), np.float32)
    trunk = vgg16_fc(50, dropout=0.9)
    for name in ("fc6", "fc7"):
        trunk.get_layer(name).bias.assign(np.full(50, 100.0))
    np.testing.assert_array_equal(trunk(pooled), trunk(pooled, training=False))
    dropped = np.mean(trunk(pooled, training=True).numpy() == 0)
    assert dropped > 0.7
