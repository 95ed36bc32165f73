import numpy as np
import pytest

from rcnn_keras.training.rcnn.linear_models import ridge_regression

RNG = np.random.default_rng(0)
X = RNG.normal(1, 3, (60, 7))
Y = RNG.normal(-2, 1, (60, 4)) + X[:, :4]


@pytest.mark.parametrize("ridge", [1e-6, 3.0, 1000.0])
@pytest.mark.parametrize("cuts", [[], [10, 10, 43]], ids=["whole", "chunks"])
def test_ridge_regression_equals_least_squares_with_extra_examples(ridge, cuts):
    """A ridge is so many more examples of zero, sqrt(lambda) of each feature, without a bias."""
    features = np.block([[X, np.ones((60, 1))], [np.sqrt(ridge) * np.eye(7), np.zeros((7, 1))]])
    expected = np.linalg.lstsq(features, np.concatenate([Y, np.zeros((7, 4))]), rcond=None)[0]
    chunks = zip(np.split(X, cuts), np.split(Y, cuts), strict=True)
    weights, bias, count = ridge_regression(chunks, ridge)
    assert count == 60
    np.testing.assert_allclose(weights, expected[:-1], atol=1e-8)
    np.testing.assert_allclose(bias, expected[-1], atol=1e-8)


def test_without_examples_weights_are_zero():
    weights, bias, count = ridge_regression([(X[:0], Y[:0])], 1000.0)
    assert (weights.shape, count) == ((7, 4), 0)
    assert not weights.any()
    assert not bias.any()
