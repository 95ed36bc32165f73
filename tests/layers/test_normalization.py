import keras
import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.layers import FrozenBatchNormalization, normalization
from rcnn_keras.layers.normalization import BatchNormalization, GroupNormalization


@pytest.fixture
def x():
    return np.random.default_rng(1).normal(2, 3, (2, 3, 5, 64)).astype(np.float32)


@pytest.fixture
def batch_norm(x):
    """Keras' layer with statistics, gains and shifts that all matter."""
    layer = keras.layers.BatchNormalization(epsilon=1e-5)
    layer.build(x.shape)
    rng = np.random.default_rng(2)
    weights = {"gamma": (0.5, 2), "beta": (-1, 1), "moving_mean": (1, 3), "moving_variance": (1, 9)}
    for name, (low, high) in weights.items():
        getattr(layer, name).assign(rng.uniform(low, high, 64))
    return layer


def test_frozen_batch_norm_is_batch_norm_at_inference(x, batch_norm):
    frozen = FrozenBatchNormalization()
    frozen.build(x.shape)
    assert [w.name for w in frozen.weights] == [w.name for w in batch_norm.weights]
    frozen.set_weights(batch_norm.get_weights())
    expected = batch_norm(x, training=False).numpy()
    assert abs(expected - x).max() > 0.1
    np.testing.assert_allclose(frozen(x).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_frozen_batch_norm_reads_epsilon(x):
    layer = FrozenBatchNormalization(epsilon=3.0)
    np.testing.assert_allclose(layer(x).numpy(), x / 2, rtol=1e-6)  # 1 / sqrt(1 + 3)


def test_frozen_batch_norm_never_trains(x):
    layer = FrozenBatchNormalization()
    model = keras.Sequential([layer, keras.layers.Dense(1)])
    model.build(x.shape)
    for trainable in (True, False, True):
        layer.trainable = trainable
        model.trainable = True
        assert layer.trainable_variables == []
        assert len(layer.non_trainable_variables) == 4
    before = layer.get_weights()
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((2, 3, 5, 1)), verbose=0)
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_frozen_batch_norm_lets_gradients_through(x, batch_norm):
    frozen = FrozenBatchNormalization()
    frozen.build(x.shape)
    frozen.set_weights(batch_norm.get_weights())
    inputs = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(frozen(inputs))
    gamma, _, _, variance = batch_norm.get_weights()
    expected = np.broadcast_to(gamma / np.sqrt(variance + 1e-5), x.shape)
    np.testing.assert_allclose(tape.gradient(loss, inputs), expected, rtol=1e-5)


def test_frozen_batch_norm_keeps_its_constants_exact_in_bfloat16(x, mixed_bfloat16):
    layer = FrozenBatchNormalization()
    out = layer(x)
    assert out.dtype == "bfloat16"
    assert all(w.dtype == "float32" for w in layer.weights)
    layer.moving_mean.assign(np.full(64, 1000.5))
    layer.beta.assign(np.full(64, 1000.0))
    np.testing.assert_allclose(layer(np.ones_like(x)).numpy().astype(np.float32), 0.5, atol=0.02)


@pytest.mark.parametrize(
    ("kind", "cls"),
    [
        ("batch", BatchNormalization),
        ("frozen_batch", FrozenBatchNormalization),
        ("group", GroupNormalization),
    ],
)
def test_each_name_gives_its_layer(kind, cls):
    layer = normalization(kind, "bn1")
    assert type(layer) is cls
    assert layer.name == "bn1"
    assert layer.epsilon == 1e-5


def test_batch_norm_moves_its_statistics_as_torchvision(x):
    layer = normalization("batch", "bn1")
    layer(x, training=True)
    mean = x.astype(np.float64).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_mean.numpy(), 0.1 * mean, rtol=1e-4)


def test_group_norm_has_32_groups(x):
    out = normalization("group", "bn1")(x).numpy()
    groups = x.astype(np.float64).reshape(2, 3, 5, 32, 2)
    mean = groups.mean(axis=(1, 2, 4), keepdims=True)
    variance = groups.var(axis=(1, 2, 4), keepdims=True)
    expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(out, expected, atol=1e-4)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"norm must be one of batch, frozen_batch, group.*'layer"):
        normalization("layer", "bn1")


def test_batch_norm_trains_as_keras_own():
    """Values, gradients and moving means; the moving variance is divided by n - 1, as torch's."""
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(2, 3, (4, 7, 9, 5)).astype(np.float32))
    upstream = tf.constant(rng.normal(size=x.shape).astype(np.float32))
    ours, theirs = (
        normalization("batch", "bn"),
        keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5),
    )
    results = []
    for layer in (ours, theirs):
        layer.build(x.shape)
        layer.set_weights([np.linspace(0.5, 1.5, 5) + k for k in range(4)])
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True)
            total = tf.reduce_sum(y * upstream)
        results.append([y, *tape.gradient(total, [x, layer.gamma.value, layer.beta.value])])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    count = 4 * 7 * 9
    before = np.linspace(0.5, 1.5, 5) + 3
    variance = theirs.moving_variance - 0.9 * before
    expected = 0.9 * before + variance * count / (count - 1)
    np.testing.assert_allclose(ours.moving_mean, theirs.moving_mean, rtol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, expected, rtol=1e-4)


def test_frozen_batch_norm_keeps_its_statistics_while_training():
    layer = normalization("batch", "bn")
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    layer.build(x.shape)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(4))


def test_group_norm_keeps_its_digits_on_a_large_map_far_from_zero():
    rng = np.random.default_rng(0)
    x = (3 + 0.2 * rng.normal(size=(1, 200, 250, 64))).astype("float32")
    groups = x.astype("float64").reshape(1, -1, 32, 2)
    mean, variance = (f(groups, axis=(1, 3), keepdims=True) for f in (np.mean, np.var))
    expected = ((groups - mean) / np.sqrt(variance + 1e-5)).reshape(x.shape)
    np.testing.assert_allclose(normalization("group", "norm")(x), expected, atol=1e-5)
