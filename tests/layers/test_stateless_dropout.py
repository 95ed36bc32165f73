import numpy as np
import tensorflow as tf

from rcnn_keras.layers import StatelessDropout
from rcnn_keras.ops import drawing_for, drawn_for, stateless_uniform

ONES = np.ones((64, 500), "float32")


def dropped(rows, step, rate=0.3, seed=0):
    with drawing_for(rows, step):
        return np.asarray(StatelessDropout(rate, seed)(ONES[: len(rows)], training=True))


def test_it_drops_its_share_and_keeps_the_mean():
    found = dropped(np.arange(64), 0)
    assert set(np.unique(found)) == {np.float32(0), np.float32(1) / np.float32(0.7)}
    # 32,000 draws: a standard deviation of the share is 0.0026.
    assert abs(np.mean(found == 0) - 0.3) < 0.012
    assert abs(found.mean() - 1) < 0.017
    assert np.all(np.abs((found == 0).mean(axis=1) - 0.3) < 0.11)  # five deviations of a row's


def test_a_row_draws_the_same_wherever_it_stands():
    rows = np.array([7, 2**40 + 3, 11, 0])
    first = dropped(rows, 5)
    np.testing.assert_array_equal(dropped(rows[::-1], 5), first[::-1])
    np.testing.assert_array_equal(dropped(rows[1:2], 5), first[1:2])
    np.testing.assert_array_equal(first == 0, stateless_uniform(0, rows, 5, 500) < 0.3)
    for other in (dropped(rows, 6), dropped(rows + 1, 5), dropped(rows, 5, seed=1)):
        assert 0.3 < np.mean((other == 0) != (first == 0)) < 0.54  # 0.42 of independent ones
    assert len({row.tobytes() for row in first}) == 4


def test_outside_of_a_block_rows_are_numbered():
    layer = StatelessDropout(0.3)
    np.testing.assert_array_equal(layer(ONES[:4], training=True), dropped(np.arange(4), 0))
    with drawing_for(None, 9):
        found = layer(ONES[:4], training=True)
    np.testing.assert_array_equal(found, dropped(np.arange(4), 9))
    assert drawn_for() == (None, 0)


def test_it_drops_in_training_alone_and_has_no_state():
    layer = StatelessDropout(0.3)
    np.testing.assert_array_equal(layer(ONES), ONES)
    np.testing.assert_array_equal(layer(ONES, training=False), ONES)
    layer(ONES, training=True)
    assert layer.variables == []


def test_a_graph_reads_the_step_when_it_runs():
    step, layer = tf.Variable(3, dtype="int64"), StatelessDropout(0.3)

    @tf.function
    def train(x):
        with drawing_for(None, step):
            return layer(x, training=True)

    for number in (3, 4):
        step.assign(number)
        np.testing.assert_array_equal(train(ONES), dropped(np.arange(64), number))
