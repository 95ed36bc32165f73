import hashlib

import numpy as np
import pytest

from rcnn_keras.utils.hashing import file_sha256, fingerprint, sha256


def test_the_sum_is_that_of_the_joined_bytes(tmp_path):
    expected = hashlib.sha256(b"one two").hexdigest()
    assert sha256([b"one", b" two"]) == expected
    (tmp_path / "file").write_bytes(b"one two")
    assert file_sha256(tmp_path / "file") == expected


def test_the_order_of_keys_does_not_matter():
    assert fingerprint({"a": 1, "b": None}) == fingerprint({"b": None, "a": 1})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        ((1, 2), (12,)),
        ((1,), ("1",)),
        (([1, 2],), (1, 2)),
        ((None,), ()),
        ((np.zeros(2),), (np.zeros((2, 1)),)),
        ((np.zeros(2),), (np.zeros(4, np.float32),)),
        ((np.zeros(2),), (np.array([0, 1e-300]),)),
        (([np.zeros(1), np.zeros(2)],), ([np.zeros(2), np.zeros(1)],)),
    ],
)
def test_what_differs_has_another_fingerprint(one, other):
    assert fingerprint(*one) != fingerprint(*other)
    assert fingerprint(*one) == fingerprint(*one)


def test_arrays_count_by_content_and_not_by_their_place_in_memory():
    array = np.arange(12).reshape(3, 4)
    assert fingerprint(array.T) == fingerprint(array.T.copy())
    assert fingerprint([array]) == fingerprint([array.copy()])
