"""Pickles of arrays: of every protocol, damaged and malicious ones."""

import io
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from rcnn_keras.convert.numpy_pickles import read_numpy_pickle

RNG = np.random.RandomState(0)

ARRAYS = {
    "conv": RNG.standard_normal((8, 3, 7, 7)).astype("f4"),
    "big-endian": RNG.standard_normal(5).astype(">f8"),
    "half": np.float16([1.5, -2]),
    "empty": np.zeros((0, 3), "f4"),
    "columns first": np.asfortranarray(RNG.standard_normal((4, 5))),
    "scalar": np.float32(3),
    "counter": np.int64(7),
    "flags": np.array([True, False]),
    "long": RNG.standard_normal((50, 60)).astype("f4"),
}


def written(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


def error_of(path):
    with pytest.raises(ValueError, match=path.name) as caught:
        read_numpy_pickle(path, "model", "blobs")
    return str(caught.value)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("key", ["model", "blobs", None])
def test_arrays_are_read_exactly(tmp_path, protocol, key):
    value = ARRAYS if key is None else {key: ARRAYS, "__author__": "someone"}
    path = written(tmp_path / "a.pkl", value, protocol)
    arrays, notes = read_numpy_pickle(path, "model", "blobs")
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].shape == np.shape(array)
        assert not arrays[name].flags.writeable
    assert notes == ({} if key is None else {"__author__": "someone"})


def test_what_python_2_wrote_is_read(tmp_path):
    """Its byte strings are of an opcode that Python 3 no longer writes, and numpy's old names."""
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    content = b"U" + bytes([values.nbytes]) + values.tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x03\x86cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + content + b"tb"
    )
    path = tmp_path / "old.pkl"
    path.write_bytes(b"\x80\x02}U\x05blobs}U\x07conv1_w" + array + b"ss.")
    arrays, _ = read_numpy_pickle(path, "model", "blobs")
    np.testing.assert_array_equal(arrays["conv1_w"], values)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_large_file_takes_no_more_memory_than_its_size(tmp_path, protocol):
    state = {f"w{n}": RNG.standard_normal(300_000).astype("f4") for n in range(12)}  # 14 MB
    path = written(tmp_path / "large.pkl", {"model": state}, protocol)
    del state
    tracemalloc.start()
    arrays, _ = read_numpy_pickle(path, "model")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(arrays) == 12
    assert peak < os.path.getsize(path)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_file_that_is_cut_off_is_named(tmp_path, protocol):
    content = pickle.dumps({"model": ARRAYS}, protocol)
    for part in (0.2, 0.5, 0.99):
        path = tmp_path / "cut.pkl"
        path.write_bytes(content[: int(len(content) * part)])
        assert "damaged or cut off" in error_of(path)
    path.write_bytes(b"")
    assert "empty" in error_of(path)


class Calls:
    """Makes the pickle ask for a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call[0], self.call[1:]


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Calls(os.system, "touch hostile"), ".system, which no tensor needs"),
        (Calls(eval, "1"), ".eval, which no tensor needs"),
        (np.array([None, 1]), "'O8', not of plain numbers"),
        (np.array(["a"]), "'U1', not of plain numbers"),
        (np.zeros(2, [("a", "f4")]), "'V4', not of plain numbers"),
        (np.array(["2026-01-01"], "datetime64[D]"), "not of plain numbers"),
        (1j * np.ones(2), "'c16', not of plain numbers"),
        ([1, 2], "'a' is a list, not an array"),
        ("text", "'a' is a str, not an array"),
    ],
)
def test_anything_but_plain_numbers_is_refused_by_name(tmp_path, protocol, value, message):
    path = written(tmp_path / "hostile.pkl", {"model": {"a": value}}, protocol)
    assert message in error_of(path)


def test_the_shape_and_the_bytes_of_an_array_must_fit(tmp_path):
    content = pickle.dumps({"model": {"a": np.zeros((2, 3), "f4")}}, 4)
    path = tmp_path / "shape.pkl"
    path.write_bytes(content.replace(b"K\x02K\x03", b"K\x02K\x04"))
    assert "shape (2, 4) should have 32 bytes, 24 are there" in error_of(path)


def test_a_few_bytes_make_no_large_array(tmp_path):
    stream = io.BytesIO()
    stream.write(b"\x80\x04}\x8c\x05model}\x8c\x01a")
    stream.write(b"\x8c\x16numpy._core.multiarray\x8c\x0c_reconstruct\x93)R")
    stream.write(b"(K\x01J" + struct.pack("<i", 1 << 30) + b"J" + struct.pack("<i", 1 << 30))
    stream.write(b"\x86\x8c\x05numpy\x8c\x05dtype\x93\x8c\x02f4\x85R\x89C\x00tbss.")
    path = tmp_path / "bomb.pkl"
    path.write_bytes(stream.getvalue())
    assert "should have 4611686018427387904 bytes, 0 are there" in error_of(path)


def test_lists_without_end_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("rcnn_keras.convert.pickles.MAX_BYTES", 10_000)
    path = written(tmp_path / "fine.pkl", {"model": {"a": np.zeros(100_000, "f4")}}, 4)
    assert len(read_numpy_pickle(path, "model")[0]["a"]) == 100_000
    path = tmp_path / "lists.pkl"
    path.write_bytes(b"\x80\x02" + b"]" * 20_000)
    assert "more than 10000 bytes beside its arrays" in error_of(path)
