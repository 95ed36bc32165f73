import numpy as np
import pytest
import tensorflow as tf

from rcnn_keras.ops import stateless_uniform


def draw(seed=0, image_ids=(0,), step=0, count=5):
    ids = tf.constant(image_ids, tf.int64)
    return stateless_uniform(seed, ids, step, count).numpy()


def mix(x):
    """MurmurHash3's fmix32 on a Python int."""
    x ^= x >> 16
    x = x * 0x85EBCA6B % 2**32
    x ^= x >> 13
    x = x * 0xC2B2AE35 % 2**32
    return x ^ x >> 16


def slow_uniform(seed, image_id, step, count):
    key = seed % 2**32
    for word in (image_id % 2**32, image_id >> 32, step):
        key = mix((key * 0x9E3779B1 + word) % 2**32)
    hashes = [mix(mix((key + k * 0x9E3779B9) % 2**32) ^ key) for k in range(count)]
    return [(h >> 8) / 2**24 for h in hashes]


@pytest.mark.parametrize("seed", [0, 7, 2**31, 2**40 + 3, -1])
@pytest.mark.parametrize("step", [0, 1, 90_000])
def test_numbers_are_those_of_whole_number_arithmetic(seed, step):
    ids = [0, 1, 139, 2**31, 2**32 - 1, 2**32, 2**45 + 17]
    expected = [slow_uniform(seed, i, step, 6) for i in ids]
    np.testing.assert_array_equal(draw(seed, ids, step, 6), np.float32(expected))


def test_an_image_draws_the_same_in_any_batch():
    batch = draw(3, [11, 42, 2**35, 42], 8, 50)
    np.testing.assert_array_equal(batch[1], batch[3])
    for row, image_id in enumerate((11, 42, 2**35)):
        np.testing.assert_array_equal(draw(3, [image_id], 8, 50)[0], batch[row])


def test_fewer_numbers_are_the_beginning_of_more():
    np.testing.assert_array_equal(draw(count=10), draw(count=40)[:, :10])
    assert draw(count=0).shape == (1, 0)
    assert stateless_uniform(0, tf.zeros((0,), tf.int64), 0, 4).shape == (0, 4)


def test_the_type_of_ids_and_step_does_not_matter():
    expected = draw(1, [5, 6], 9)
    for dtype in (tf.int32, tf.int64):
        got = stateless_uniform(
            1, tf.constant([5, 6], dtype), tf.constant(9, dtype), tf.constant(5)
        )
        np.testing.assert_array_equal(got, expected)


def test_numbers_are_uniform_in_0_to_1():
    numbers = draw(image_ids=range(300), count=2000).ravel()
    assert numbers.dtype == np.float32
    assert numbers.min() >= 0
    assert numbers.max() < 1
    n = numbers.size
    assert abs(numbers.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / n)
    assert abs(numbers.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / n)
    counts = np.bincount((numbers * 256).astype(int), minlength=256)
    chi_square = ((counts - n / 256) ** 2 / (n / 256)).sum()
    assert abs(chi_square - 255) < 5 * np.sqrt(2 * 255)


@pytest.mark.parametrize(
    "streams",
    [
        lambda: draw(image_ids=range(40), count=3000),
        lambda: draw(image_ids=[k * 2**32 + 5 for k in range(40)], count=3000),
        lambda: np.concatenate([draw(step=k, count=3000) for k in range(40)]),
        lambda: np.concatenate([draw(seed=k, count=3000) for k in range(40)]),
        lambda: draw(image_ids=range(3000), count=40).T,
        lambda: np.concatenate([draw(seed=k, image_ids=[9 - k], count=3000) for k in range(10)]),
        lambda: np.concatenate([draw(step=k, image_ids=[9 - k], count=3000) for k in range(10)]),
    ],
    ids=["ids", "high ids", "steps", "seeds", "positions", "seed + id", "step + id"],
)
def test_streams_are_independent(streams):
    streams = streams()
    correlation = np.corrcoef(streams)[np.triu_indices(len(streams), 1)]
    n = streams.shape[1]
    assert np.abs(correlation).max() < 5 / np.sqrt(n)
    assert abs(correlation.std() * np.sqrt(n) - 1) < 0.4
    shifted = [np.corrcoef(a[1:], b[:-1])[0, 1] for a, b in zip(streams, streams, strict=True)]
    assert np.abs(shifted).max() < 5 / np.sqrt(n)


def test_compiled_numbers_are_the_eager_ones(compiled):
    def numbers(ids, step):
        return stateless_uniform(12, ids, step, 33)

    traced = compiled(numbers, ((None,), "int64"), ((), "int64"))
    for ids, step in (([1, 2, 2**33], 4), ([2**40], 5)):
        np.testing.assert_array_equal(traced(np.int64(ids), step), draw(12, ids, step, 33))
