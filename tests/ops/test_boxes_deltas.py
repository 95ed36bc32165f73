import math

import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import decode_boxes, encode_boxes

RPN, HEAD = (1.0, 1.0, 1.0, 1.0), (10.0, 10.0, 5.0, 5.0)
CLAMP = math.log(1000 / 16)


def random_boxes(rng, *shape):
    corner, sides = rng.uniform(-50, 200, (*shape, 2)), rng.uniform(2, 90, (*shape, 2))
    return np.concatenate([corner, corner + sides], axis=-1).astype("float32")


def slow_encode(box, reference, weights):
    (x1, y1, x2, y2), (rx1, ry1, rx2, ry2) = (map(float, b) for b in (box, reference))
    width, height = rx2 - rx1, ry2 - ry1
    return [
        weights[0] * ((x1 + x2) / 2 - (rx1 + rx2) / 2) / width,
        weights[1] * ((y1 + y2) / 2 - (ry1 + ry2) / 2) / height,
        weights[2] * math.log((x2 - x1) / width),
        weights[3] * math.log((y2 - y1) / height),
    ]


def slow_decode(delta, reference, weights):
    dx, dy, dw, dh = (float(d) / w for d, w in zip(delta, weights, strict=True))
    x1, y1, x2, y2 = map(float, reference)
    x, y = (x1 + x2) / 2 + dx * (x2 - x1), (y1 + y2) / 2 + dy * (y2 - y1)
    width = (x2 - x1) * math.exp(min(dw, CLAMP))
    height = (y2 - y1) * math.exp(min(dh, CLAMP))
    return [x - width / 2, y - height / 2, x + width / 2, y + height / 2]


def slow_gradient(function, at, upstream, step=1e-5):
    """Central differences of `sum(function(at) * upstream)`."""
    gradient = np.zeros(4)
    for k in range(4):
        low, high = np.array(at, float), np.array(at, float)
        low[k] -= step
        high[k] += step
        change = np.subtract(function(high), function(low)) / (2 * step)
        gradient[k] = change @ upstream
    return gradient


@pytest.mark.parametrize("weights", [RPN, HEAD])
@pytest.mark.parametrize("seed", range(2))
def test_both_ways_are_those_of_loops(seed, weights):
    rng = np.random.default_rng(seed)
    boxes, references = random_boxes(rng, 30), random_boxes(rng, 30)
    deltas = rng.normal(size=(30, 4)).astype("float32")
    deltas[::5, 2:] *= 30  # some beyond the clamp
    encoded = [slow_encode(b, r, weights) for b, r in zip(boxes, references, strict=True)]
    decoded = [slow_decode(d, r, weights) for d, r in zip(deltas, references, strict=True)]
    np.testing.assert_allclose(encode_boxes(boxes, references, weights), encoded, atol=2e-4)
    np.testing.assert_allclose(decode_boxes(deltas, references, weights), decoded, rtol=1e-4)


def test_a_hand_worked_box():
    reference, box = np.float32([[0, 0, 10, 20]]), np.float32([[5, 5, 25, 15]])
    delta = [[1, 0, math.log(2), math.log(0.5)]]
    np.testing.assert_allclose(encode_boxes(box, reference), delta, atol=1e-6)
    np.testing.assert_allclose(decode_boxes(np.float32(delta), reference), box, atol=1e-5)


@pytest.mark.parametrize("weights", [RPN, HEAD])
def test_decoding_undoes_encoding(weights):
    rng = np.random.default_rng(4)
    boxes, references = random_boxes(rng, 2, 9), random_boxes(rng, 2, 9)
    deltas = encode_boxes(boxes, references, weights)
    assert deltas.shape == (2, 9, 4)
    np.testing.assert_allclose(decode_boxes(deltas, references, weights), boxes, atol=1e-3)


@pytest.mark.parametrize("name", ["rpn", "head"])
def test_both_ways_are_torchvisions(name, torchvision_numbers):
    stored = {k.split("/")[1]: v for k, v in torchvision_numbers.items() if "box_coder/" in k}
    weights = {"rpn": RPN, "head": HEAD}[name]
    encoded = encode_boxes(stored["boxes"], stored["references"], weights)
    decoded = decode_boxes(stored["deltas"], stored["references"], weights)
    np.testing.assert_allclose(encoded, stored[f"{name}_encoded"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(decoded, stored[f"{name}_decoded"], rtol=1e-5, atol=1e-3)


def test_growth_is_clamped_and_shrinking_is_not():
    reference = np.float32([[0, 0, 16, 16]])
    huge = np.asarray(decode_boxes(np.float32([[0, 0, 500, 9]]), reference))[0]
    np.testing.assert_allclose(huge, [-492, -492, 508, 508], rtol=1e-5)
    tiny = np.asarray(decode_boxes(np.float32([[0, 0, -500, -500]]), reference))[0]
    np.testing.assert_allclose(tiny, [8, 8, 8, 8])


def test_flat_boxes_give_finite_deltas_and_gradients():
    boxes = tf.constant([[0.0, 0, 0, 0], [5, 5, 5, 9], [0, 0, 1333, 800], [3, 3, 3, 3]])
    references = tf.constant([[0.0, 0, 0, 0], [2, 2, 8, 8], [7, 7, 7, 7], [9, 9, 2, 2]])
    with tf.GradientTape() as tape:
        tape.watch([boxes, references])
        deltas = encode_boxes(boxes, references, HEAD)
    assert np.isfinite(deltas).all()
    for gradient in tape.gradient(deltas, [boxes, references]):
        assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(deltas[0], [0, 0, 0, 0])


def test_references_broadcast_against_the_deltas_of_each_class():
    rng = np.random.default_rng(5)
    references = random_boxes(rng, 2, 3)
    deltas = rng.normal(size=(2, 3, 6, 4)).astype("float32")
    boxes = np.asarray(decode_boxes(deltas, references[:, :, None], HEAD))
    for i, r, k in np.ndindex(2, 3, 6):
        expected = slow_decode(deltas[i, r, k], references[i, r], HEAD)
        np.testing.assert_allclose(boxes[i, r, k], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("weights", [RPN, HEAD])
def test_gradients_are_finite_differences(weights):
    rng = np.random.default_rng(6)
    boxes, references = random_boxes(rng, 8), random_boxes(rng, 8)
    deltas = rng.normal(size=(8, 4)).astype("float32")
    upstream = rng.normal(size=(8, 4)).astype("float32")
    values = [tf.constant(v) for v in (boxes, deltas)]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(values)
        encoded = encode_boxes(values[0], references, weights) * upstream
        decoded = decode_boxes(values[1], references, weights) * upstream
    of_boxes, of_deltas = tape.gradient(encoded, values[0]), tape.gradient(decoded, values[1])
    for k in range(8):
        expected = slow_gradient(
            lambda box, k=k: slow_encode(box, references[k], weights), boxes[k], upstream[k]
        )
        np.testing.assert_allclose(of_boxes[k], expected, rtol=1e-3, atol=1e-4)
        expected = slow_gradient(
            lambda delta, k=k: slow_decode(delta, references[k], weights), deltas[k], upstream[k]
        )
        np.testing.assert_allclose(of_deltas[k], expected, rtol=1e-3, atol=1e-3)


def test_no_gradient_asks_a_clamped_delta_to_grow():
    deltas = tf.constant([[0.1, 0.2, CLAMP + 1, 0.3], [0.1, 0.2, 0.3, CLAMP + 1]])
    with tf.GradientTape() as tape:
        tape.watch(deltas)
        x2, y2 = tf.unstack(decode_boxes(deltas, tf.constant([[0.0, 0, 5, 5]])), axis=-1)[2:]
    gradient = tape.gradient([x2, y2], deltas).numpy()
    assert gradient[0, 2] == 0
    assert gradient[1, 3] == 0
    assert (np.delete(gradient.ravel(), [2, 7]) > 0).all()


def test_compiled_coding_is_the_eager_one(compiled):
    def coding(boxes, references):
        deltas = encode_boxes(boxes, references, HEAD)
        return deltas, decode_boxes(deltas / 2, references, HEAD)

    rng = np.random.default_rng(7)
    traced = compiled(coding, ((None, None, 4), "float32"), ((None, None, 4), "float32"))
    for shape in ((2, 5), (1, 1), (2, 0)):
        inputs = random_boxes(rng, *shape), random_boxes(rng, *shape)
        for got, expected in zip(traced(*inputs), coding(*inputs), strict=True):
            assert got.shape == (*shape, 4)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
