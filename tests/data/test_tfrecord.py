"""TFRecord files: the same bytes however they come about, and every wrong input reported."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import rcnn_keras
from rcnn_keras.data.coco import load_coco
from rcnn_keras.data.dataset import DetectionDataset, Record
from rcnn_keras.data.images import read_image
from rcnn_keras.data.problems import DatasetError
from rcnn_keras.data.synthetic import draw_shapes
from rcnn_keras.data.tfrecord import check_tfrecord, load_tfrecord, save_tfrecord
from rcnn_keras.parallel import Processes

ROOT = Path(rcnn_keras.__file__).parents[1]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return draw_shapes(7, size=(40, 64), seed=3, out=tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def packed(dataset, tmp_path_factory, in_process):
    """Three shards of two or three images, written without a stop."""
    out = tmp_path_factory.mktemp("packed") / "records"
    save_tfrecord(dataset, out, shard_size=3, engine=in_process())
    return out


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_names_counts_and_the_plain_format(dataset, packed):
    names = [f"0000{i}-of-00003.{kind}" for i in range(3) for kind in ("npz", "tfrecord")]
    assert sorted(contents(packed)) == [*names, "manifest.json"]
    assert check_tfrecord(packed) == []
    files = [str(packed / name) for name in names if name.endswith("tfrecord")]
    examples = [tf.train.Example.FromString(x.numpy()) for x in tf.data.TFRecordDataset(files)]
    for example, record in zip(examples, dataset, strict=True):
        features = example.features.feature
        assert features["image"].bytes_list.value[0] == Path(record.path).read_bytes()
        np.testing.assert_array_equal(features["labels"].int64_list.value, record.labels)
        np.testing.assert_array_equal(features["boxes"].float_list.value, record.boxes.ravel())
        assert sum(features["runs"].int64_list.value) == len(record) * 40 * 64


def test_ground_truth_comes_back(dataset, packed):
    found = load_tfrecord(packed)
    assert (found.classes, found.category_ids, found.name) == (
        *(dataset.classes, dataset.category_ids, "shapes"),
    )
    ours, theirs = found.to_coco(), dataset.to_coco()
    assert ours["annotations"] == theirs["annotations"]
    assert ours["categories"] == theirs["categories"]
    for record, original in zip(found, dataset, strict=True):
        assert Path(record.path).name == Path(original.path).name
        np.testing.assert_array_equal(read_image(record.image), read_image(original.path))


@pytest.mark.parametrize("stops", [[1], [0, 1, 1]])
def test_a_stopped_packing_goes_on_to_the_same_bytes(stops, dataset, packed, tmp_path, in_process):
    out = tmp_path / "records"
    for most in stops:
        with pytest.raises(KeyboardInterrupt):
            save_tfrecord(dataset, out, shard_size=3, engine=in_process(most))
        with pytest.raises(DatasetError, match="packing is not finished"):
            load_tfrecord(out)
    (out / ".00002-of-00003.tfrecord.abc").mkdir()  # what a killed worker was writing
    counts = []
    save_tfrecord(
        dataset,
        out,
        shard_size=3,
        engine=in_process(),
        progress=lambda done, _: counts.append(done),
    )
    assert counts[0] == (2 if sum(stops) == 1 else 4)
    assert counts[-1] == 7
    assert contents(out) == contents(packed)
    save_tfrecord(dataset, out, shard_size=3, engine=in_process(0))  # nothing is left to do


def test_other_records_are_not_mixed_in(dataset, packed, tmp_path, in_process):
    before = contents(packed)
    with pytest.raises(ValueError, match=r"holds other records .*shard_size is 3, not 2"):
        save_tfrecord(dataset, packed, shard_size=2, engine=in_process())
    with pytest.raises(ValueError, match=r"holds other records .*source is"):
        save_tfrecord(dataset[1:], packed, shard_size=3, engine=in_process())
    assert contents(packed) == before
    (tmp_path / "diary.txt").touch()
    with pytest.raises(ValueError, match="is in the way"):
        save_tfrecord(dataset, tmp_path, engine=in_process())
    with pytest.raises(ValueError, match="shard_size must be at least 1, not 0"):
        save_tfrecord(dataset, tmp_path, shard_size=0)
    with pytest.raises(ValueError, match="no images"):
        save_tfrecord(DetectionDataset([], ["a"]), tmp_path)


def test_bad_images_are_reported_all_at_once(tmp_path, in_process):
    dataset = draw_shapes(5, size=(40, 64), out=tmp_path / "images")
    bad, small = Path(dataset[1].path), Path(dataset[4].path)
    whole = {path: path.read_bytes() for path in (bad, small)}
    bad.write_bytes(whole[bad][:200])
    Image.new("RGB", (20, 10)).save(small)
    out = tmp_path / "records"
    with pytest.raises(DatasetError, match="2 problems") as error:
        save_tfrecord(dataset, out, shard_size=1, engine=in_process())
    assert f"{bad}: image 2: cannot be decoded" in str(error.value)
    assert f"{small}: image 5: the image is 20 x 10 pixels, its record says 64 x 40" in str(
        error.value
    )
    for path, content in whole.items():
        path.write_bytes(content)
    save_tfrecord(dataset, out, shard_size=1, engine=in_process(2))


@pytest.fixture(scope="module")
def formats(tmp_path_factory):
    """One image in every way that Pillow may store it, and pixels in memory."""
    folder = tmp_path_factory.mktemp("formats")
    y, x = np.mgrid[:37, :50]
    pixels = np.stack([x * 5, y * 6, (x * y) % 256], axis=-1).astype(np.uint8)
    image = Image.fromarray(pixels)
    exif = Image.Exif()
    image.save(folder / "plain.jpg", quality=80)
    image.save(folder / "progressive.jpg", quality=60, progressive=True, subsampling=2)
    image.convert("L").save(folder / "gray.jpg")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    for orientation in range(2, 9):
        exif[0x0112] = orientation
        image.save(folder / f"turned{orientation}.jpg", exif=exif)
    image.save(folder / "plain.png")
    image.convert("P").save(folder / "palette.png")
    image.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray((x * 1300).astype(np.uint16)).save(folder / "deep.png")
    image.save(folder / "other.tif")
    image.save(folder / "other.bmp")
    image.save(folder / "other.webp", lossless=True)
    image.save(folder / "other.gif")
    records = []
    for i, path in enumerate(sorted(folder.iterdir())):
        height, width = read_image(path).shape[:2]
        records.append(Record(i, str(path), height, width, [[1, 2, 30, 20]], [0], [False]))
    pixels = read_image(records[0].path)
    records.append(replace(records[0], image_id=99, path="memory", pixels=pixels))
    return DetectionDataset(records, ["a"])


def test_pixels_are_those_of_read_image_to_the_bit(formats, tmp_path, in_process):
    packed = save_tfrecord(formats, tmp_path / "records", engine=in_process())
    stored = {}
    for (inputs, _), original, record in zip(packed.batches(1), formats, packed, strict=True):
        expected = read_image(original.image)
        found = inputs["images"].numpy()[0, : original.height, : original.width]
        np.testing.assert_array_equal(found, expected, original.path)
        np.testing.assert_array_equal(read_image(record.image), expected, original.path)
        name = Path(original.path).name
        stored[name] = original.pixels is None and (
            record.tfrecord.read() == Path(original.path).read_bytes()
        )
    changed = {name for name, is_kept in stored.items() if not is_kept}
    assert changed >= {"deep.png", "memory", "other.tif"}
    assert not changed & {"plain.jpg", "progressive.jpg", "gray.jpg", "plain.png", "turned6.jpg"}


def test_packing_record_files_again_gives_the_same_bytes(packed, tmp_path, in_process):
    again = tmp_path / "again"
    save_tfrecord(load_tfrecord(packed), again, shard_size=3, engine=in_process())
    shards = [name for name in contents(packed) if name != "manifest.json"]
    assert {n: contents(again)[n] for n in shards} == {n: contents(packed)[n] for n in shards}


@pytest.fixture
def copy(packed, tmp_path):
    for name, content in contents(packed).items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("manifest.json", None, r"manifest\.json: no such file"),
        ("manifest.json", lambda b: b"{", r"manifest\.json: is not JSON"),
        (
            *("manifest.json", lambda b: b.replace(b"records 1", b"records 2")),
            r"manifest\.json: format = rcnn_keras records 2: this version reads 'rcnn_keras rec",
        ),
        (
            *("manifest.json", lambda b: b.replace(b'"classes": [', b'"classes": 3, "b": [')),
            r"classes = 3: should be a list",
        ),
        (
            *("manifest.json", lambda b: b.replace(b'"bytes": ', b'"bites": ', 1)),
            r"manifest\.json: shards\.0: bytes = missing: should be a int",
        ),
        ("00001-of-00003.tfrecord", None, r"00001-of-00003\.tfrecord: no such file, and the man"),
        ("00002-of-00003.npz", None, r"00002-of-00003\.npz: no such file, and the manifest has"),
        ("00001-of-00003.tfrecord", lambda b: b[:-9], r"tfrecord: bytes = \d+: the manifest says"),
        ("00000-of-00003.npz", lambda b: b + b" ", r"npz: sha256 = .{16}: the manifest says"),
    ],
)
def test_damage_is_named(copy, name, change, message):
    path = copy / name
    content = path.read_bytes()
    path.unlink()
    if change is not None:
        path.write_bytes(change(content))
    with pytest.raises(DatasetError, match=message):
        load_tfrecord(copy)
    assert [p.fatal for p in check_tfrecord(copy)] == [True]


def test_changed_bytes_are_found_by_the_check_and_while_reading(copy):
    path = copy / "00001-of-00003.tfrecord"
    content = bytearray(path.read_bytes())
    content[300] ^= 1
    path.write_bytes(content)
    (problem,) = check_tfrecord(copy)
    assert problem.field == "sha256"
    dataset = load_tfrecord(copy)
    with pytest.raises(tf.errors.DataLossError, match="corrupted record"):
        list(dataset.batches(1))
    with pytest.raises(ValueError, match=r"00001-of-00003\.tfrecord.*corrupted record"):
        read_image(dataset[2].image)


def test_classes_are_chosen(dataset, packed):
    found = load_tfrecord(packed, classes=["star", "circle"])
    assert (
        found.to_coco()["annotations"]
        == (dataset.with_classes(["star", "circle"]).to_coco()["annotations"])
    )
    with pytest.raises(ValueError, match="unknown classes 'stars'"):
        load_tfrecord(packed, classes=["stars"])


PACK = """
import sys
from rcnn_keras.data import load_coco, save_tfrecord
from rcnn_keras.parallel import engine_named

if __name__ == "__main__":
    source, out, engine = sys.argv[1:]
    print("begun", flush=True)
    save_tfrecord(load_coco(source), out, shard_size=2, engine=engine_named(engine, 2),
                 progress=lambda done, all: print(done, flush=True))
"""


def start(tmp_path, source, out, engine="processes"):
    (tmp_path / "script.py").write_text(PACK)
    return subprocess.Popen(
        [sys.executable, tmp_path / "script.py", source, out, engine],
        env=os.environ | {"PYTHONPATH": str(ROOT), "RCNN_KERAS_LEAN": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )


def children(process):
    return [int(c) for c in Path(f"/proc/{process}/task/{process}/children").read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_the_same_bytes_after_kills(engine, tmp_path, in_process):
    """Twice the whole program is killed at a moment of chance, then a worker of it."""
    if engine == "ray":
        pytest.importorskip("ray")
    source = tmp_path / "images"
    draw_shapes(40, size=(40, 64), out=source)
    save_tfrecord(
        load_coco(source / "annotations.json"), tmp_path / "once", shard_size=2, engine=in_process()
    )
    out, rng = tmp_path / "records", np.random.default_rng()
    for count in rng.integers(1, 12, 2):
        process = start(tmp_path, source / "annotations.json", out, engine)
        for line in process.stdout:
            if line.strip().isdigit() and int(line) >= count:
                break
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.wait()
        process.stdout.close()
    process = start(tmp_path, source / "annotations.json", out, engine)
    killed = 0
    for line in process.stdout:
        if engine == "processes" and line.strip().isdigit() and killed < 2:
            workers = children(process.pid)
            if len(workers) > 1:
                os.kill(workers[-1], signal.SIGKILL)
                killed += 1
    assert process.wait() == 0
    assert contents(out) == contents(tmp_path / "once")


@pytest.mark.slow
def test_worker_processes_give_the_same_bytes(dataset, packed, tmp_path):
    out = tmp_path / "records"
    save_tfrecord(dataset, out, shard_size=3, engine=Processes(2))
    assert contents(out) == contents(packed)


def test_photographs_are_packed_and_read_as_they_were(shared_data, tmp_path, in_process):
    dataset = load_coco(shared_data / "bccd/val.json", shared_data / "bccd/images")[:6]
    packed = save_tfrecord(dataset, tmp_path / "records", shard_size=4, engine=in_process())
    for (inputs, _), record in zip(packed.batches(1), dataset, strict=True):
        image = inputs["images"].numpy()[0, : record.height, : record.width]
        np.testing.assert_array_equal(image, read_image(record.path))
