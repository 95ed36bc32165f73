import numpy as np
import pytest

from rcnn_keras.layers import AnchorGenerator, RPNHead

K = 6  # anchors at a position: two sizes, three aspect ratios


@pytest.fixture
def head():
    layer = RPNHead(K)
    layer.build([(None, None, None, 8)])
    rng = np.random.default_rng(0)
    for conv in (layer.convs[0], layer.objectness, layer.deltas):
        conv.kernel.assign(rng.normal(size=conv.kernel.shape))
        conv.bias.assign(rng.normal(size=conv.bias.shape))
    return layer


def test_every_level_goes_through_the_same_convolutions(head, reference):
    rng = np.random.default_rng(1)
    features = [rng.normal(size=(2, *size, 8)).astype(np.float32) for size in ((5, 7), (3, 4))]
    logits, deltas = head(features)
    for level, feature in enumerate(features):
        hidden = np.maximum(reference.conv(feature, head.convs[0].kernel, head.convs[0].bias), 0)
        for b in range(2):
            score = reference.conv(hidden, head.objectness.kernel, head.objectness.bias)[b]
            delta = reference.conv(hidden, head.deltas.kernel, head.deltas.bias)[b]
            np.testing.assert_allclose(logits[level][b], score.reshape(-1), rtol=1e-4, atol=1e-3)
            np.testing.assert_allclose(deltas[level][b], delta.reshape(-1, 4), rtol=1e-4, atol=1e-3)
    assert len(head.trainable_variables) == 6


@pytest.mark.parametrize(("y", "x", "anchor"), [(0, 0, 0), (2, 5, 4), (4, 1, 3), (4, 6, 5)])
def test_order_is_that_of_the_anchors(head, y, x, anchor):
    height, width, stride = 5, 7, 8
    feature = np.zeros((1, height, width, 8), np.float32)
    feature[0, y, x, 0] = 1  # one spike, handed on at its place ..
    for conv in (head.convs[0], head.objectness, head.deltas):
        conv.kernel.assign(np.zeros(conv.kernel.shape))
        conv.bias.assign(np.zeros(conv.bias.shape))
    kernel = np.zeros(head.convs[0].kernel.shape)
    kernel[1, 1, 0, 0] = 1
    head.convs[0].kernel.assign(kernel)
    kernel = np.zeros(head.objectness.kernel.shape)
    kernel[0, 0, 0, anchor] = 1  # .. to the logit of one anchor
    head.objectness.kernel.assign(kernel)
    kernel = np.zeros(head.deltas.kernel.shape)
    kernel[0, 0, 0, 4 * anchor : 4 * anchor + 4] = (1, 2, 3, 4)
    head.deltas.kernel.assign(kernel)
    (logits,), (deltas,) = head([feature])
    (index,) = np.flatnonzero(logits[0])

    sizes, ratios = (16, 32), (0.5, 1.0, 2.0)
    image = np.zeros((1, height * stride, width * stride, 3), np.float32)
    (anchors,) = AnchorGenerator((sizes,), ratios)(image, [feature])
    ratio, size = ratios[anchor // 2], sizes[anchor % 2]
    w, h = np.round(size / np.sqrt(ratio) / 2), np.round(size * np.sqrt(ratio) / 2)
    centre_x, centre_y = x * stride, y * stride
    expected = [centre_x - w, centre_y - h, centre_x + w, centre_y + h]
    np.testing.assert_allclose(anchors[index], expected)
    np.testing.assert_array_equal(deltas[0, index], (1, 2, 3, 4))
    assert np.count_nonzero(deltas) == 4


def test_channels_of_the_hidden_map():
    for channels, expected in ((None, 8), (5, 5)):
        layer = RPNHead(3, channels)
        layer.build([(None, None, None, 8)])
        assert layer.convs[0].kernel.shape == (3, 3, 8, expected)
        assert layer.objectness.kernel.shape == (1, 1, expected, 3)
        assert layer.deltas.kernel.shape == (1, 1, expected, 12)


def test_weights_are_drawn_as_in_the_paper():
    layer = RPNHead(3)
    layer.build([(None, None, None, 64)])
    for conv in (layer.convs[0], layer.objectness, layer.deltas):
        assert not conv.bias.numpy().any()
        assert np.std(conv.kernel.numpy()) == pytest.approx(0.01, rel=0.2)


def test_outputs_are_float32_under_mixed_precision(mixed_bfloat16):
    layer = RPNHead(3)
    logits, deltas = layer([np.ones((1, 2, 2, 8), np.float32)])
    assert layer.convs[0].compute_dtype == "bfloat16"
    assert logits[0].dtype == deltas[0].dtype == "float32"
