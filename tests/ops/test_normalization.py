import numpy as np
import pytest

from rcnn_keras.ops import local_response_norm


@pytest.mark.parametrize("size", [3, 5])
def test_against_the_definition(size):
    x = np.random.default_rng(0).normal(0, 5, (2, 3, 4, 9)).astype("f4")
    alpha, beta, k = 0.3, 0.75, 2.0
    expected = np.empty_like(x)
    for c in range(9):
        around = x[..., max(0, c - size // 2) : c + size // 2 + 1].astype("f8")
        expected[..., c] = x[..., c] / (k + alpha / size * (around**2).sum(axis=-1)) ** beta
    np.testing.assert_allclose(local_response_norm(x, size, alpha, beta, k), expected, rtol=1e-5)


def test_it_keeps_the_type():
    assert local_response_norm(np.ones((1, 1, 1, 4), "f2"), 5, 1e-4, 0.75, 1.0).dtype == "float16"
