import numpy as np
import pytest

from rcnn_keras.layers import StochasticDepth
from rcnn_keras.ops import drawing_for, stateless_uniform


def test_whole_images_are_left_out_and_the_others_grow():
    inputs = np.random.default_rng(0).normal(size=(6, 2, 3, 4)).astype(np.float32)
    ids, step, rate, seed = np.array([3, 1, 4, 15, 9, 2]), 8, 0.5, 11
    with drawing_for(ids, step):
        outputs = StochasticDepth(rate, seed)(inputs, training=True).numpy()
    draws = stateless_uniform(seed, ids, step, 1).numpy()[:, 0]
    assert 0 < (draws < rate).sum() < 6
    for output, image, draw in zip(outputs, inputs, draws, strict=True):
        expected = 0 * image if draw < rate else image / (1 - rate)
        np.testing.assert_allclose(output, expected, rtol=1e-6)


def test_the_share_that_is_left_out_is_the_rate():
    with drawing_for(np.arange(4000), 1):
        outputs = StochasticDepth(0.2)(np.ones((4000, 1, 1, 1), np.float32), training=True)
    assert np.mean(outputs.numpy() == 0) == pytest.approx(0.2, abs=0.02)
    assert outputs.numpy().mean() == pytest.approx(1, abs=0.03)


def test_at_inference_and_at_rate_zero_nothing_changes():
    inputs = np.ones((3, 1, 1, 2), np.float32)
    np.testing.assert_array_equal(StochasticDepth(0.9)(inputs), inputs)
    np.testing.assert_array_equal(StochasticDepth(0.0)(inputs, training=True), inputs)


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_outside_its_range_is_refused(rate):
    with pytest.raises(ValueError, match="less than 1"):
        StochasticDepth(rate)


def test_config_round_trip():
    config = StochasticDepth(0.2, 3, name="drop").get_config()
    layer = StochasticDepth.from_config(config)
    assert (layer.rate, layer.seed, layer.name) == (0.2, 3, "drop")
