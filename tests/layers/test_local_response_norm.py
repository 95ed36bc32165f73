import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.layers import LocalResponseNorm


def within_channel(**arguments):
    """The layer of Zeiler and Fergus' network."""
    return LocalResponseNorm(**({"size": 3, "alpha": 5e-5, "within_channel": True} | arguments))


def slow(x, size, alpha, beta):
    """Value by value: what is outside the map counts as zero."""
    x = np.asarray(x, np.float64)
    out, reach = np.zeros_like(x), size // 2
    for b, i, j, c in np.ndindex(*x.shape):
        around = x[b, max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1, c]
        out[b, i, j, c] = x[b, i, j, c] / (1 + alpha * np.sum(around**2) / size**2) ** beta
    return out


@pytest.mark.parametrize(("size", "alpha", "beta"), [(3, 5e-5, 0.75), (5, 0.1, 0.5), (1, 2.0, 1.0)])
def test_against_a_slow_reference(size, alpha, beta):
    x = np.random.default_rng(0).normal(0, 200, (2, 5, 6, 3)).astype(np.float32)
    expected = slow(x, size, alpha, beta)
    assert np.abs(expected - x).max() > 10  # it does something
    found = within_channel(size=size, alpha=alpha, beta=beta)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_defaults_are_those_of_the_caffe_model():
    """One value of 400 alone: 1 + 5e-5 * 160,000 / 9 is 17 / 9."""
    x = np.zeros((1, 3, 3, 2), np.float32)
    x[0, 1, 1, 0] = 400
    found = within_channel()(x).numpy()
    assert found[0, 1, 1, 0] == pytest.approx(400 * (9 / 17) ** 0.75, rel=1e-6)
    assert np.count_nonzero(found) == 1


def test_gradient_is_that_of_the_formula():
    x = np.random.default_rng(1).normal(0, 3, (1, 3, 4, 1)).astype(np.float32)
    layer = within_channel(alpha=0.5)
    value = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(value)
        total = tf.reduce_sum(layer(value))
    gradient = tape.gradient(total, value).numpy()
    for at in np.ndindex(*x.shape):
        step = np.zeros(x.shape)
        step[at] = 1e-4
        above, below = (slow(x + sign * step, 3, 0.5, 0.75).sum() for sign in (1, -1))
        assert gradient[at] == pytest.approx((above - below) / 2e-4, abs=1e-4)


def test_squares_do_not_overflow_in_half_precision():
    x = np.full((1, 2, 2, 1), 1000.0, np.float16)
    found = within_channel(dtype="mixed_float16")(x)
    assert found.dtype == "float16"
    np.testing.assert_allclose(found, slow(x, 3, 5e-5, 0.75), rtol=1e-3)
