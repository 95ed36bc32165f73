"""A data set into record files, shard by shard on an engine; a run that was stopped goes on.

OUT/manifest.json                  classes, counts and hashes; written last
OUT/00000-of-00003.tfrecord        images and ground truth, see `packed_images`
OUT/00000-of-00003.npz             the shard's index, see `record_index`
OUT/header.json                    while it is unfinished: what is being packed
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from rcnn_keras.data.dataset import DetectionDataset, plain
from rcnn_keras.data.decoding import decode_upright
from rcnn_keras.data.images import ImageError, read_header, read_image
from rcnn_keras.data.load_records import FORMAT, MANIFEST, load_records, read_manifest
from rcnn_keras.data.parts import HEADER, Parts, check_same_header
from rcnn_keras.data.problems import DatasetError, Problem
from rcnn_keras.data.record_index import file_hash, read_index, write_index
from rcnn_keras.data.records import Record
from rcnn_keras.data.run_lengths import encode_runs
from rcnn_keras.data.written_aside import written_aside
from rcnn_keras.engines import Engine, run_shards

SHARD_SIZE = 500  # images, of which COCO's take 80 MB
RECORD_FRAME = 16  # bytes that TFRecord puts around a record: its length and two checksums
NO_RUNS = np.zeros(0, np.int64)


class Shard(NamedTuple):
    """The images of a shard, and the name of its files without their endings."""

    name: str
    records: tuple[Record, ...]


def pack_records(
    dataset: DetectionDataset,
    out: str | PathLike,
    *,
    shard_size: int = SHARD_SIZE,
    engine: Engine | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionDataset:
    """Pack images and ground truth into record files that `load_records` reads.

    Image files are kept as they are where TensorFlow decodes them to the pixels of `read_image`,
    to the bit, which is tried on each; others (16 bits, TIFF, WebP) become PNGs of these pixels.
    Polygons become run lengths of the same masks. Proposals are not packed.

    Called again after a stop, it goes on; what was lost are the shards that were in work. The
    files are the same to the byte however often that happened and whatever engine did the work.

    Args:
        dataset: the images, in the order in which they are packed.
        out: the folder, made if missing.
        shard_size: most images in a record file; all hold about as many.
        engine: by default one process for each core.
        progress: called with the number of images that are done, and of all.

    Returns:
        The data set as `load_records` reads it.

    Raises:
        ValueError: for a data set without images, a `shard_size` below 1, an object whose
            segmentation is malformed, and a folder that holds other records or something else.
        DatasetError: once all other shards are done, for images that cannot be read or are not of
            their stated size; lists them.
        ChildProcessError: three workers died at the same shard.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, not {shard_size!r}")
    if not len(dataset):
        raise ValueError("the data set has no images")
    out = Path(out)
    header = _header(dataset, shard_size)
    if (out / MANIFEST).exists():
        found = read_manifest(out)
        check_same_header(out, {key: found[key] for key in header}, header, "records")
    else:
        _pack(dataset, Parts(out, header, "records"), shard_size, engine, progress)
    (out / HEADER).unlink(missing_ok=True)
    return load_records(out)


def _pack(
    dataset: DetectionDataset,
    parts: Parts,
    shard_size: int,
    engine: Engine | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write the shards that are missing, and the manifest."""
    shards = _shards(dataset, shard_size)
    missing = [shard for shard in shards if f"{shard.name}.npz" not in parts]  # it is written last
    done = len(dataset) - sum(len(shard.records) for shard in missing)
    if progress is not None:
        progress(done, len(dataset))
    problems: list[Problem] = []
    for shard, found in run_shards(partial(pack_shard, parts.folder), missing, engine):
        problems += found
        done += len(shard.records)
        if progress is not None:
            progress(done, len(dataset))
    if problems:
        raise DatasetError(sorted(problems, key=lambda problem: (problem.file, problem.id)))
    for left in parts.folder.glob(".*-of-*"):  # of workers that were killed
        shutil.rmtree(left, ignore_errors=True)
    manifest = {
        **parts.header,
        "images": len(dataset),
        "objects": sum(map(len, dataset)),
        "shards": [_described(parts.folder, shard) for shard in shards],
    }
    with written_aside(parts.path(MANIFEST)) as aside:
        aside.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def pack_shard(folder: Path, shard: Shard) -> list[Problem]:
    """Write the two files of a shard, or none if an image cannot be read; what a worker does.

    Returns:
        A problem for each image that cannot be read.
    """
    examples, problems = [], []
    for record in shard.records:
        try:
            examples.append(_example(record).SerializeToString(deterministic=True))
        except ImageError as error:
            image = f"image {record.image_id}"
            problems.append(Problem(record.path, image, "", "", error.reason, True))
    if problems:
        return problems
    file = folder / f"{shard.name}.tfrecord"
    with written_aside(file) as aside, tf.io.TFRecordWriter(str(aside)) as writer:
        for example in examples:
            writer.write(example)
    offsets = np.cumsum([0, *(len(example) + RECORD_FRAME for example in examples)])
    write_index(folder / f"{shard.name}.npz", shard.records, offsets, file_hash(file))
    return []


def _shards(dataset: DetectionDataset, shard_size: int) -> list[Shard]:
    """Cut a data set into shards of about the same size, in order."""
    count = -(-len(dataset) // shard_size)
    bounds = [i * len(dataset) // count for i in range(count + 1)]
    return [
        Shard(f"{i:05}-of-{count:05}", tuple(dataset[start:stop]))
        for i, (start, stop) in enumerate(pairwise(bounds))
    ]


def _described(folder: Path, shard: Shard) -> dict[str, Any]:
    """Return what the manifest says of a shard."""
    index = folder / f"{shard.name}.npz"
    columns = read_index(index)
    return {
        "name": shard.name,
        "images": len(shard.records),
        "objects": sum(map(len, shard.records)),
        "bytes": int(columns["offsets"][-1]),
        "sha256": str(columns["sha256"]),
        "index_sha256": file_hash(index),
    }


def _header(dataset: DetectionDataset, shard_size: int) -> dict[str, Any]:
    """Return what the shards depend on, but for the image files."""
    return {
        "format": FORMAT,
        "name": dataset.name,
        "classes": list(dataset.classes),
        "category_ids": list(dataset.category_ids),
        "shard_size": shard_size,
        "source": _fingerprint(dataset),
    }


def _fingerprint(dataset: DetectionDataset) -> str:
    """Return a hash of the images' ids, names and sizes, and of all ground truth."""
    digest = hashlib.sha256()
    for record in dataset:
        name = Path(record.path).name
        codes = None if record.segmentations is None else [*map(plain, record.segmentations)]
        facts = [record.image_id, name, record.height, record.width, codes]
        digest.update(json.dumps(facts).encode())
        arrays = (record.boxes, record.labels, record.crowd, record.areas, record.difficult)
        for array in (*arrays, record.pixels):
            digest.update(b"none" if array is None else array.tobytes())
    return digest.hexdigest()


def _example(record: Record) -> tf.train.Example:
    """Return an image and its ground truth as `packed_images` has them."""
    content, orientation = _content(record)
    masks = [_masks(record, i) for i in range(len(record))]
    runs = [runs for runs, _ in masks]
    numbers = {
        "image_id": [record.image_id],
        "height": [record.height],
        "width": [record.width],
        "orientation": [orientation],
        "labels": record.labels,
        "crowd": record.crowd.astype(int),
        "runs": np.concatenate([NO_RUNS, *runs]),
        "run_counts": [len(counts) for counts in runs],
        "extents": np.concatenate([NO_RUNS, *(extent for _, extent in masks)]),
    }
    texts = {"image": content, "name": Path(record.path).name.encode()}
    features = {name: _feature(int64_list=values) for name, values in numbers.items()}
    features |= {name: _feature(bytes_list=[value]) for name, value in texts.items()}
    features["boxes"] = _feature(float_list=record.boxes.ravel())
    return tf.train.Example(features=tf.train.Features(feature=features))


def _feature(**values: Any) -> tf.train.Feature:
    kinds = {
        "int64_list": tf.train.Int64List,
        "bytes_list": tf.train.BytesList,
        "float_list": tf.train.FloatList,
    }
    return tf.train.Feature(**{kind: kinds[kind](value=v) for kind, v in values.items()})


def _masks(record: Record, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the run lengths of an object and their extent; no runs if it has no segmentation."""
    segmentation = None if record.segmentations is None else record.segmentations[i]
    if segmentation is None:
        return NO_RUNS, np.zeros(4, np.int64)
    try:
        return encode_runs(segmentation, record.height, record.width)
    except ValueError as error:
        raise ValueError(f"{record.path}: object {i}: {error}") from error


def _content(record: Record) -> tuple[bytes, int]:
    """Return the bytes of an image file and its orientation, as a PNG if the graph needs one.

    Raises:
        ImageError: the image cannot be read, or has another size than the record says.
    """
    pixels = read_image(record.image)
    height, width = pixels.shape[:2]
    if (height, width) != (record.height, record.width):
        stated = f"{record.width}x{record.height}"
        raise ImageError(record.path, f"has {width}x{height} pixels, not {stated} as stated")
    if not isinstance(record.image, np.ndarray):
        place = record.packed
        content = Path(record.path).read_bytes() if place is None else place.read()
        orientation = read_header(record.image).orientation
        decoded = _decoded(content, orientation)
        if decoded is not None and np.array_equal(decoded, pixels):
            return content, orientation
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    return png.getvalue(), 1


@tf.function(
    input_signature=[tf.TensorSpec((), tf.string), tf.TensorSpec((), tf.int64)], autograph=False
)
def _upright(content: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    return decode_upright(content, orientation)


def _decoded(content: bytes, orientation: int) -> np.ndarray | None:
    """Return what the graph makes of the bytes, None if it cannot decode them."""
    try:
        return _upright(tf.constant(content), tf.constant(orientation, tf.int64)).numpy()
    except tf.errors.InvalidArgumentError:  # not a format of TensorFlow's
        return None
