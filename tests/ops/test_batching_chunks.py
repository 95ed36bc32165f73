import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import in_chunks


@pytest.mark.parametrize("count", [1, 4, 5, 11])
@pytest.mark.parametrize("wrap", [lambda f: f, tf.function], ids=["eager", "graph"])
def test_it_is_the_function_itself(count, wrap):
    rows = tf.random.stateless_normal((count, 3), (0, 0))
    factors = tf.range(count, dtype=tf.float32)

    def function(rows, factors):
        tf.debugging.assert_less_equal(tf.shape(rows)[0], 4)
        return rows * factors[:, None], tf.reduce_sum(rows, axis=1)

    chunked = wrap(lambda rows, factors: in_chunks(function, 4, [(3,), ()], rows, factors))
    products, sums = chunked(rows, factors)
    np.testing.assert_allclose(products, rows * factors[:, None])
    np.testing.assert_allclose(sums, tf.reduce_sum(rows, axis=1), rtol=1e-6)
