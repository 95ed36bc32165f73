import keras
import numpy as np
import pytest

from rcnn_keras.layers import AnchorGenerator, ProposalLayer, RPNHead

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


# the paper's two-way softmax


def softmax_head():
    layer = RPNHead(K, objectness="softmax")
    layer.build([(None, None, None, 8)])
    rng = np.random.default_rng(2)
    for conv in (layer.convs[0], layer.objectness):
        conv.kernel.assign(rng.normal(size=conv.kernel.shape))
        conv.bias.assign(rng.normal(size=conv.bias.shape))
    return layer


def test_a_logit_has_the_softmaxs_probability(reference):
    head = softmax_head()
    assert head.objectness.kernel.shape == (1, 1, 8, 2 * K)
    feature = np.random.default_rng(3).normal(0, 0.1, (2, 4, 5, 8)).astype(np.float32)
    (logits,), (deltas,) = head([feature])
    hidden = np.maximum(reference.conv(feature, head.convs[0].kernel, head.convs[0].bias), 0)
    scores = reference.conv(hidden, head.objectness.kernel, head.objectness.bias)
    background, is_object = (np.exp(scores[..., part]) for part in (slice(K), slice(K, None)))
    expected = (is_object / (background + is_object)).reshape(2, -1)
    assert expected.min() < 0.1
    assert expected.max() > 0.9
    np.testing.assert_allclose(keras.ops.sigmoid(logits), expected, rtol=1e-4, atol=1e-6)
    assert deltas.shape == (2, 4 * 5 * K, 4)


def test_a_sigmoid_of_the_difference_proposes_the_same():
    """Same logits in, same proposals out: whatever follows reads nothing else of the head."""
    two = softmax_head()
    one = RPNHead(K)
    one.build([(None, None, None, 8)])
    for name in ("kernel", "bias"):
        values = getattr(two.objectness, name).numpy()
        getattr(one.objectness, name).assign(values[..., K:] - values[..., :K])
        getattr(one.convs[0], name).assign(getattr(two.convs[0], name))
        getattr(one.deltas, name).assign(getattr(two.deltas, name))
    feature = np.random.default_rng(3).normal(0, 0.1, (1, 4, 5, 8)).astype(np.float32)
    anchors = AnchorGenerator(((8, 16),))(np.zeros((1, 32, 40, 3)), [feature])
    sizes = np.array([[32, 40]], np.int32)
    layer = ProposalLayer((90, 90), (90, 90), score_threshold=0.6)
    (boxes, count), (expected, expected_count) = (
        layer(*head([feature]), anchors, sizes) for head in (two, one)
    )
    assert 0 < int(count[0]) == int(expected_count[0]) < 90
    np.testing.assert_allclose(boxes, expected, atol=1e-4)


def test_another_objectness_is_refused():
    with pytest.raises(ValueError, match="sigmoid, softmax; received 'relu'"):
        RPNHead(3, objectness="relu")
