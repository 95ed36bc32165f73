import keras
import numpy as np
import pytest

from rcnn_keras.backbones import build_backbone, zf

# kernel x kernel x channels in x channels out, and a bias for each channel out
CONVS = {
    "conv1": 7 * 7 * 3 * 96 + 96,
    "conv2": 5 * 5 * 96 * 256 + 256,
    "conv3": 3 * 3 * 256 * 384 + 384,
    "conv4": 3 * 3 * 384 * 384 + 384,
    "conv5": 3 * 3 * 384 * 256 + 256,
}
FC6, FC7 = 6 * 6 * 256 * 4096 + 4096, 4096 * 4096 + 4096


@pytest.fixture(scope="module")
def model():
    return zf()


def test_parameters_are_those_of_the_paper(model):
    counts = {layer.name: layer.count_params() for layer in model.layers if layer.weights}
    assert counts == CONVS
    assert model.count_params() == 3_726_464


def test_second_stage_is_fc6_and_fc7_on_six_by_six():
    parts = build_backbone("zf")
    assert parts.pooled_size == 6
    assert parts.frozen_stages == 0  # the paper trains all of ZF
    counts = [layer.count_params() for layer in parts.box_trunk.layers if layer.weights]
    assert counts == [FC6, FC7]


def test_the_stride_is_16(model):
    assert model.compute_output_shape((2, 64, 96, 3)) == {"c4": (2, 4, 6, 256)}
    assert model(np.zeros((1, 224, 160, 3), np.float32))["c4"].shape == (1, 14, 10, 256)


def test_order_of_the_layers(model):
    kinds = [type(layer).__name__ for layer in model.layers]
    kinds = [kind for kind in kinds if kind != "ZeroPadding2D"]
    first = ["Conv2D", "LocalResponseNorm", "MaxPooling2D"]
    assert kinds == ["InputLayer", *first, *first, "Conv2D", "Conv2D", "Conv2D"]
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert all(conv.activation is keras.activations.relu for conv in convs)


def test_a_position_sees_the_papers_field():
    """171 pixels after the RPN's 3x3 convolution (3.1), so 139 before it; centred on 16 p."""
    model = zf()
    for layer in model.layers:  # all ones, so that nothing cancels out
        if layer.weights:
            layer.set_weights([np.full(w.shape, 1e-2) for w in layer.get_weights()])
        if layer.name.startswith("norm"):
            layer.alpha = 0.0  # normalisation looks a little further
    field = 171 - 2 * 16
    image = np.zeros((1, 32, 320, 3), np.float32)
    before = model(image)["c4"].numpy()[0, 0, :, 0]
    for pixel in (69, 159, 160):
        image[:] = 0
        image[0, 0, pixel] = 1e6
        moved = np.flatnonzero(model(image)["c4"].numpy()[0, 0, :, 0] != before)
        assert moved.tolist() == [p for p in range(20) if abs(16 * p - pixel) <= field // 2]
