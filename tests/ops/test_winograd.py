import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import winograd_conv


def plain(images, kernel):
    """The definition, in float64."""
    padded = np.pad(images.astype("f8"), ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = images.shape[1:3]
    return sum(
        padded[:, y : y + height, x : x + width] @ kernel[y, x].astype("f8")
        for y in range(3)
        for x in range(3)
    )


@pytest.mark.parametrize("shape", [(1, 8, 12, 3), (2, 13, 6, 5), (3, 1, 1, 4), (1, 3, 7, 16)])
def test_against_the_definition(shape):
    rng = np.random.default_rng(sum(shape))
    images = rng.normal(size=shape).astype("f4")
    kernel = rng.normal(size=(3, 3, shape[-1], 7)).astype("f4")
    expected = plain(images, kernel)
    found = winograd_conv(tf.constant(images), tf.constant(kernel)).numpy()
    np.testing.assert_allclose(found, expected, atol=3e-5 * np.abs(expected).max(), rtol=0)


def test_any_size_in_one_graph_and_no_images_at_all():
    kernel = tf.random.stateless_normal((3, 3, 2, 3), (0, 0))
    graph = tf.function(
        winograd_conv, [tf.TensorSpec((None, None, None, 2)), tf.TensorSpec(kernel.shape)]
    )
    for shape in ((2, 5, 9, 2), (1, 4, 4, 2), (0, 6, 6, 2)):
        images = tf.random.stateless_normal(shape, (1, 1))
        np.testing.assert_allclose(
            graph(images, kernel), plain(images.numpy(), kernel.numpy()), atol=1e-4
        )


def test_gradients_are_those_of_a_convolution():
    images = tf.random.stateless_normal((2, 7, 5, 3), (0, 1))
    kernel = tf.random.stateless_normal((3, 3, 3, 4), (0, 2))
    weights = tf.random.stateless_normal((2, 7, 5, 4), (0, 3))
    gradients = []
    for conv in (winograd_conv, lambda x, k: tf.nn.conv2d(x, k, 1, "SAME")):
        with tf.GradientTape() as tape:
            tape.watch((images, kernel))
            loss = tf.reduce_sum(conv(images, kernel) * weights)
        gradients.append(tape.gradient(loss, (images, kernel)))
    for found, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3)
