"""Reading files of `torch.save`: written by torch, written by hand, damaged and malicious ones."""

import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest

from rcnn_keras.convert.pickles import read_pickle
from rcnn_keras.convert.torch_files import BUILDERS, read_pth
from rcnn_keras.convert.torchvision import read_state_dict

FILES = Path(__file__).parent / "files"


def error_of(path, content=None):
    """The message of the ValueError that a file gives; it begins with the path."""
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=path.name) as caught:
        read_pth(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    return message.removeprefix(f"{path}: ")


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth"])
def test_files_of_torch_are_read_exactly(file):
    arrays = read_pth(FILES / file)
    numbers = np.load(FILES / "numbers.npz")
    assert list(arrays) == list(numbers)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array.astype("float32"), numbers[name], strict=True)
        assert not array.flags.writeable
    kinds = {name: array.dtype.name for name, array in arrays.items()}
    assert kinds["half"] == "float16"
    assert kinds["double"] == "float64"
    assert kinds["bool"] == "bool"
    assert kinds["int8"] == "int8"
    assert kinds["bfloat16"] == "float32"
    assert kinds["scalar"] == "int64"


def test_the_model_of_a_checkpoint_is_read():
    arrays = read_pth(FILES / "checkpoint.pth")
    assert {name: array.shape for name, array in arrays.items()} == {
        "0.weight": (4, 3, 3, 3),
        "0.bias": (4,),
        "1.weight": (4,),
        "1.bias": (4,),
        "1.running_mean": (4,),
        "1.running_var": (4,),
        "1.num_batches_tracked": (),
    }


def test_a_state_dict_inside_a_dictionary_is_read(writer, zipped):
    state = writer.dictionary({"a": writer.whole(np.arange(3, dtype="f4"), "0")})
    path = zipped(writer.dictionary({"state_dict": state}), writer.storages)
    np.testing.assert_array_equal(read_pth(path)["a"], [0, 1, 2])


def test_a_whole_module_is_refused_by_name():
    message = error_of(FILES / "module.pth")
    assert "torch.nn.modules.container.Sequential" in message
    assert "refused" in message


def test_views_share_their_storage(writer, zipped):
    storage = writer.storage("0", np.arange(12, dtype="f4"))
    state = {
        "all": writer.tensor(storage, 0, (3, 4), (4, 1)),
        "transposed": writer.tensor(storage, 0, (4, 3), (1, 4)),
        "part": writer.tensor(storage, 5, (2, 2), (4, 2)),
    }
    arrays = read_pth(zipped(writer.dictionary(state), writer.storages))
    base = np.arange(12, dtype="f4").reshape(3, 4)
    np.testing.assert_array_equal(arrays["all"], base)
    np.testing.assert_array_equal(arrays["transposed"], base.T)
    np.testing.assert_array_equal(arrays["part"], [[5, 7], [9, 11]])
    assert np.shares_memory(arrays["all"], arrays["transposed"])


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (13,), (1,)),
        (12, (1,), (1,)),
        (1, (3, 4), (4, 1)),
        (0, (2, 2), (12, 1)),
        (1 << 40, (1,), (1,)),
        (0, (1 << 61,), (1,)),
    ],
)
def test_a_view_outside_its_storage_is_refused(writer, zipped, offset, shape, strides):
    storage = writer.storage("0", np.arange(12, dtype="f4"))
    state = writer.dictionary({"bad": writer.tensor(storage, offset, shape, strides)})
    message = error_of(zipped(state, writer.storages))
    assert "tensor 'bad'" in message
    assert str(offset) in message
    assert str(shape) in message
    assert "12 numbers" in message


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (-1, (2,), (1,)),
        (0, (2,), (-1,)),
        (0, (-2,), (1,)),
        (0, (1 << 70,), (0,)),
        (0, (2, 2), (1,)),
    ],
)
def test_views_with_invalid_numbers_are_refused(writer, zipped, offset, shape, strides):
    storage = writer.storage("0", np.arange(12, dtype="f4"))
    state = writer.dictionary({"bad": writer.tensor(storage, offset, shape, strides)})
    assert "shape" in error_of(zipped(state, writer.storages))


def test_a_huge_expanded_tensor_takes_no_memory(writer, zipped):
    storage = writer.storage("0", np.ones(1, "f4"))
    state = writer.dictionary({"a": writer.tensor(storage, 0, (1 << 40,), (0,))})
    assert read_pth(zipped(state, writer.storages))["a"].shape == (1 << 40,)
    state = writer.dictionary({"a": writer.tensor(storage, 0, (1 << 61, 1 << 61), (0, 0))})
    assert "tensor 'a'" in error_of(zipped(state, writer.storages))


def test_a_storage_shorter_than_declared_is_refused(writer, zipped):
    storage = writer.storage("0", np.ones(3, "f4"), length=1 << 50)
    path = zipped(writer.dictionary({"a": writer.tensor(storage, 0, (1,), (1,))}), writer.storages)
    message = error_of(path)
    assert f"{1 << 50} numbers" in message
    assert "12 bytes are there" in message


def test_a_missing_storage_is_refused(writer, zipped):
    path = zipped(writer.dictionary({"a": writer.whole(np.ones(3, "f4"), "7")}))
    assert "made/data/7" in error_of(path)


def test_unknown_types_of_numbers_are_refused(writer, zipped):
    storage = writer.storage("0", np.ones(3, "f4"), kind="ComplexFloatStorage")
    path = zipped(writer.dictionary({"a": writer.tensor(storage, 0, (1,), (1,))}), writer.storages)
    assert "torch.ComplexFloatStorage" in error_of(path)


def test_objects_other_than_tensors_are_refused(writer, zipped):
    assert "'epoch' is a int" in error_of(zipped(writer.dictionary({"epoch": writer.integer(3)})))
    assert "holds a tuple" in error_of(zipped(writer.tuple()))


def test_compressed_entries_are_refused(writer, zipped):
    state = writer.dictionary({"a": writer.whole(np.zeros(1 << 20, "f4"), "0")})
    path = zipped(state, writer.storages, compression=zipfile.ZIP_DEFLATED)
    assert "compressed" in error_of(path)


def test_big_endian_numbers_are_refused(writer, zipped):
    state = writer.dictionary({"a": writer.whole(np.ones(3, "f4"), "0")})
    assert read_pth(zipped(state, writer.storages, entries={"byteorder": b"little"}))
    assert "big-endian" in error_of(zipped(state, writer.storages, entries={"byteorder": b"big"}))


def test_a_torchscript_file_is_refused(writer, zipped):
    assert "TorchScript" in error_of(zipped(b"}", entries={"constants.pkl": b""}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"PK\x03\x04", "cut off"),
        (b"<html>404</html>", "not a file of torch.save"),
        (pickle.dumps({"a": 1}), "not a file of torch.save"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, content, message):
    assert message in error_of(tmp_path / "x.pth", content)


def test_another_zip_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("notes.txt", "no weights")
    assert "data.pkl" in error_of(tmp_path / "x.pth")


def test_a_missing_file_raises_file_not_found(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent"):
        read_pth(tmp_path / "absent.pth")


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth", "checkpoint.pth"])
def test_a_file_truncated_anywhere_is_refused(tmp_path, file):
    whole = (FILES / file).read_bytes()
    for length in range(0, len(whole), 29):
        error_of(tmp_path / "cut.pth", whole[:length])


@pytest.mark.parametrize("file", ["zip.pth", "legacy.pth"])
def test_damage_gives_a_value_error_or_other_numbers(tmp_path, file):
    rng = np.random.default_rng(0)
    whole = (FILES / file).read_bytes()
    path = tmp_path / "damaged.pth"
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(len(damaged), size=2):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            arrays = read_pth(path)
        except ValueError:
            continue
        for array in arrays.values():
            array.tobytes()


class Malicious:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("function", "name"), [(os.system, "system"), (eval, "eval"), (bytearray, "bytearray")]
)
def test_calls_are_refused_by_name(zipped, protocol, function, name):
    opcodes = pickle.dumps({"a": Malicious(function, "touch hostile")}, protocol)
    message = error_of(zipped(opcodes.removesuffix(b".")))
    assert f".{name}, which no tensor needs" in message


NESTED = b")" + b"\x85" * 1_000_000
DOUBLED = b")" + b"q\x00h\x00\x86" * 40  # a tuple of itself twice, 40 times over
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n("
STORAGE = (
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x00\x00\x00\x00K\x01tQ"
)
BUILTINS = b"\x8c\x08builtins\x8c\x04eval\x93"


@pytest.mark.parametrize(
    ("opcodes", "message"),
    [
        (BUILTINS, "builtins.eval"),
        (b"ccollections\nOrderedDict\n}b", "it fills a Global"),  # attributes for the class itself
        (b"}X\x01\x00\x00\x00a)R", "calls something that is not a function"),
        (b"ctorch\nFloatStorage\n)R", "calls something that is not a function"),
        (b"ccollections\nOrderedDict\nK\x05\x85R", "a dictionary of a int"),
        (b"}r\xff\xff\xff\x7f", None),  # a memo of two thousand million places
        (b"\x8e" + struct.pack("<Q", 1 << 60), "damaged"),  # bytes that are not there
        (b"\x8d" + struct.pack("<Q", 1 << 60), "damaged"),
        (b"\x8b\xff\xff\xff\x7f", "damaged"),
        (b"}(" + b")" + b"\x85" * 1_000_000 + b"K\x01u", "a tuple as a dictionary's key"),
        (b"}(}K\x01u", "a dict as a dictionary's key"),
        (b"}" + b"0" * 3, "POP"),
        (b"\x82\x01", "EXT1"),
        (b"\x96" + struct.pack("<Q", 1 << 60), "damaged"),
        (b"h\x05", "malformed"),
        (b"}K\x01Q", "is not a storage"),
        # What grows by each doubling of a few bytes: as a name, as a key, as a list of pairs.
        (DOUBLED + b"\x8c\x01a\x93", "without a name"),
        (
            b"ccollections\nOrderedDict\n](" + DOUBLED + b"K\x01\x86e\x85R",
            "a tuple as a dictionary's",
        ),
        (
            b"ccollections\nOrderedDict\n](" + NESTED + b"K\x01\x86e\x85R",
            "a tuple as a dictionary's",
        ),
        (b"ccollections\nOrderedDict\n}\x85R", "a dictionary of a dict"),
        (REBUILD + STORAGE + DOUBLED + b")))tR", "out of range"),
        (
            b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x00\x00\x00\x00K\x01(K\x01]K\x01ttQ",
            "is not a storage",
        ),
        (b"}a", "malformed"),
        (b"t", "malformed"),
        (b"}(K\x01s", "malformed"),
    ],
)
def test_malicious_pickles_are_refused(zipped, opcodes, message):
    path = zipped(opcodes)
    if message is None:
        assert read_pth(path) == {}
    else:
        assert message in error_of(path)


def test_pairs_are_read_as_one_dictionary(zipped):
    """Python 2 hands an ordered dictionary its pairs; the same list again has none left."""
    pairs = b"](" + b"".join(b"X\x01\x00\x00\x00%c)\x86" % (97 + n) for n in range(3)) + b"eq\x01"
    ordered = b"ccollections\nOrderedDict\n"
    twice = b"](" + ordered + pairs + b"\x85R" + ordered + b"h\x01\x85Re"
    value, _ = read_pickle(twice + b".", BUILDERS)
    assert value == [{"a": (), "b": (), "c": ()}, {}]


def test_a_storage_declared_twice_is_refused(writer, zipped):
    numbers = np.arange(4, dtype="f4")
    storages = [writer.storage("0", numbers), writer.storage("0", numbers[:3])]
    tensors = {
        name: writer.tensor(s, 0, (2,), (1,)) for name, s in zip("ab", storages, strict=True)
    }
    assert "declared twice" in error_of(zipped(writer.dictionary(tensors), writer.storages))


def test_a_pickle_larger_than_the_limit_is_refused(zipped):
    assert "at most" in error_of(zipped(b"}0" * (5 << 20)))


def test_deeply_nested_lists_are_refused(zipped):
    assert "holds a list" in error_of(zipped(b"]" + b"]" * 1_000_000 + b"a" * 1_000_000))


class TestSafetensors:
    def test_safetensors_are_read_exactly(self, tmp_path):
        from safetensors.numpy import save_file

        state = {"a": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(3)}
        save_file(state, tmp_path / "x.safetensors")
        read = read_state_dict(tmp_path / "x.safetensors")
        assert set(read) == set(state)
        for name, array in state.items():
            np.testing.assert_array_equal(read[name], array)

    def test_bfloat16_is_widened_to_float32(self, tmp_path):
        header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
        content = struct.pack("<Q", len(header)) + header + b"\x80\x3f\x00\xc0"
        (tmp_path / "x.safetensors").write_bytes(content)
        array = read_state_dict(tmp_path / "x.safetensors")["a"]
        np.testing.assert_array_equal(array, np.array([1, -2], "f4"), strict=True)

    @pytest.mark.parametrize("content", [b"", b"1234567", b"\xff" * 40])
    def test_a_damaged_file_is_refused(self, tmp_path, content):
        path = tmp_path / "x.safetensors"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.safetensors: not readable"):
            read_state_dict(path)

    def test_a_missing_file_raises_file_not_found(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="absent"):
            read_state_dict(tmp_path / "absent.safetensors")
