import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import check_finite, num_replicas, sum_over_replicas


@pytest.mark.parametrize("value", [0.0, -3.5, 1e38])
def test_a_finite_value_passes_with_its_gradient(value):
    value = tf.constant(value)
    with tf.GradientTape() as tape:
        tape.watch(value)
        checked = check_finite(value, "loss", [tf.range(3)])
    assert checked == value
    assert tape.gradient(checked, value) == 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("trace", [False, True])
def test_another_raises_with_the_message_and_all_details(value, trace):
    details = [tf.range(100, 140), tf.constant(["first.jpg", "second.jpg"])]

    def check(value):
        return check_finite(value, "the loss went astray", details)

    check = tf.function(check) if trace else check
    with pytest.raises(tf.errors.InvalidArgumentError, match="the loss went astray") as error:
        check(tf.constant(value, tf.float32))
    for detail in (*range(100, 140), "first.jpg", "second.jpg"):
        assert str(detail) in str(error.value)


def test_one_traced_check_passes_and_raises():
    check = tf.function(lambda value: check_finite(value, "loss", []) * 2)
    assert check(tf.constant(4.0)) == 8
    with pytest.raises(tf.errors.InvalidArgumentError):
        check(tf.constant(np.nan))


def test_without_a_strategy_the_sum_is_the_value():
    assert sum_over_replicas(tf.constant(3.0)).numpy() == 3
    assert num_replicas() == 1


def test_a_sum_over_two_replicas(two_replicas):
    values = two_replicas.experimental_distribute_values_from_function(
        lambda context: tf.constant([1.0, 10.0]) * (context.replica_id_in_sync_group + 1)
    )

    @tf.function
    def run(values):
        return two_replicas.run(lambda v: (sum_over_replicas(v), num_replicas()), (values,))

    totals, replicas = run(values)
    totals = two_replicas.experimental_local_results(totals)
    assert len(totals) == 2
    for total in totals:
        np.testing.assert_array_equal(total, [3, 30])
    assert {int(n) for n in two_replicas.experimental_local_results(replicas)} == {2}


def test_outside_the_replicas_there_is_nothing_to_add(two_replicas):
    with two_replicas.scope():
        assert sum_over_replicas(tf.constant(3.0)).numpy() == 3
        assert num_replicas() == 2
