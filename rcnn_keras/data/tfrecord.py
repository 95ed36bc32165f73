"""A dataset in TFRecord files: writing them shard by shard, and reading them.

OUT/manifest.json                  classes, counts and hashes; written last
OUT/00000-of-00003.tfrecord        images and ground truth, see `tfrecord_images`
OUT/00000-of-00003.npz             the shard's index
OUT/header.json                    while it is unfinished: what is being written

The index says where each image lies, and holds its ground truth but for the masks. I images, n
objects of all of them:

    offsets (I + 1,) int64     of each image's record, and of the file's end, in bytes
    names                      of the image files, UTF-8, zero bytes in between
    image_ids (I,) int64, sizes (I, 2) int32    height and width
    counts (I,) int64          objects of each image
    boxes (n, 4) float32, labels (n,) int32, crowd (n,) bool
    areas (n,) float64, difficult (n,) bool, masks (n,) bool    masks: whether there is one
    has_areas, has_difficult, has_masks (I,) bool    whether the record states any
    keypoints (n, P, 3) float32, has_keypoints (I,) bool    of datasets that have keypoints
    sha256                     of the TFRecord file
"""

import io
import json
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from rcnn_keras.data.bitmasks import encode_runs
from rcnn_keras.data.dataset import DetectionDataset, Record, check_known, check_names, plain
from rcnn_keras.data.images import ImageError, decode_upright, read_header
from rcnn_keras.data.keypoints import Skeleton
from rcnn_keras.data.object_rules import (
    Crowd,
    WithoutMask,
    apply_rules,
    check_rules,
    find_suspicious,
)
from rcnn_keras.data.pipeline import check_packed, read_pixels
from rcnn_keras.data.problems import DatasetError, Problem, ProblemLog
from rcnn_keras.data.tfrecord_images import TFRecordImage, TFRecordSegmentations
from rcnn_keras.data.validation import warn_repaired
from rcnn_keras.data.value_range import (
    FULL,
    VALUE_RANGE_RULE,
    ValueRange,
    check_value_range,
    is_value_range,
)
from rcnn_keras.parallel import Engine, run_shards
from rcnn_keras.parallel.resumable import HEADER, ResumableFolder, check_same_header
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.hashing import file_sha256, sha256


def write_index(path: Path, records: Sequence[Record], offsets: np.ndarray, sha256: str) -> None:
    """Write the index of a TFRecord file."""
    present = [_present(record) for record in records]
    columns = {
        "offsets": np.asarray(offsets, np.int64),
        "names": np.frombuffer("\0".join(Path(r.path).name for r in records).encode(), np.uint8),
        "image_ids": np.array([r.image_id for r in records], np.int64),
        "sizes": np.array([(r.height, r.width) for r in records], np.int32),
        "counts": np.array([len(r) for r in records], np.int64),
        "boxes": np.concatenate([r.boxes for r in records]),
        "labels": np.concatenate([r.labels for r in records]),
        "crowd": np.concatenate([r.crowd for r in records]),
        "areas": _column([r.areas for r in records], records, np.float64),
        "difficult": _column([r.difficult for r in records], records, bool),
        "masks": _column(present, records, bool),
        "has_areas": np.array([r.areas is not None for r in records]),
        "has_difficult": np.array([r.difficult is not None for r in records]),
        "has_masks": np.array([there is not None for there in present]),
        "sha256": np.array(sha256),
    }
    if some := [r.keypoints for r in records if r.keypoints is not None]:
        shape = some[0].shape[1:]
        filled = [
            np.zeros((len(r), *shape)) if r.keypoints is None else r.keypoints for r in records
        ]
        columns |= {
            "keypoints": np.concatenate(filled).astype(np.float32),
            "has_keypoints": np.array([r.keypoints is not None for r in records]),
        }
    with atomic_write(path) as temporary:
        np.savez(temporary, **columns)  # type: ignore[arg-type]


def read_index(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of an index."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def index_records(
    file: Path, columns: dict[str, np.ndarray], value_range: ValueRange = FULL
) -> list[Record]:
    """Return the records of a TFRecord file by its index."""
    names = columns["names"].tobytes().decode().split("\0")
    bounds = np.cumsum([0, *columns["counts"]])
    records = []
    for i, name in enumerate(names):
        objects = slice(bounds[i], bounds[i + 1])
        height, width = columns["sizes"][i].tolist()
        place = TFRecordImage(str(file), int(columns["offsets"][i]), name, value_range)
        segmentations = None
        if columns["has_masks"][i]:
            numbers = np.arange(columns["counts"][i], dtype=np.int32)
            present = columns["masks"][objects]
            segmentations = TFRecordSegmentations(place, (height, width), numbers, present)
        records.append(
            Record(
                image_id=int(columns["image_ids"][i]),
                path=place.path,
                height=height,
                width=width,
                boxes=columns["boxes"][objects],
                labels=columns["labels"][objects],
                crowd=columns["crowd"][objects],
                segmentations=segmentations,
                areas=columns["areas"][objects] if columns["has_areas"][i] else None,
                difficult=columns["difficult"][objects] if columns["has_difficult"][i] else None,
                tfrecord=place,
                keypoints=_stated_keypoints(columns, i, objects),
            )
        )
    return records


def _stated_keypoints(
    columns: dict[str, np.ndarray], image: int, objects: slice
) -> np.ndarray | None:
    """Return the keypoints of an image's objects, None if its record states none."""
    if "keypoints" not in columns or not columns["has_keypoints"][image]:
        return None
    return columns["keypoints"][objects]


def _present(record: Record) -> np.ndarray | None:
    """Return which objects have a segmentation, None if the record states none."""
    if record.segmentations is None:
        return None
    if isinstance(record.segmentations, TFRecordSegmentations):
        return record.segmentations.present
    return np.array([code is not None for code in record.segmentations], bool)


def _column(
    arrays: Sequence[np.ndarray | None], records: Sequence[Record], dtype: type
) -> np.ndarray:
    """Return the values of all objects, zeros where a record has none."""
    filled: list[np.ndarray] = [
        np.zeros(len(record), dtype) if array is None else np.asarray(array, dtype)
        for array, record in zip(arrays, records, strict=True)
    ]
    return np.concatenate(filled)


FORMAT = "rcnn_keras records 1"

MANIFEST = "manifest.json"

FIELDS = {
    "classes": list,
    "category_ids": list,
    "images": int,
    "objects": int,
    "shards": list,
    "name": str,
    "shard_size": int,
    "source": str,
}

SHARD_FIELDS = {
    "name": str,
    "images": int,
    "objects": int,
    "bytes": int,
    "sha256": str,
    "index_sha256": str,
}


def is_tfrecord_folder(path: str | PathLike) -> bool:
    """Return whether a folder is one of TFRecord files, finished or not."""
    folder = Path(path)
    return (folder / MANIFEST).exists() or (folder / HEADER).exists()


def load_tfrecord(
    path: str | PathLike,
    *,
    classes: Iterable[str] | None = None,
    crowd: Crowd = "ignore",
    without_mask: WithoutMask = "keep",
) -> DetectionDataset:
    """Return the dataset of a folder of TFRecord files.

    It can be used wherever a dataset of image files can, and gives the same batches to the bit;
    images and masks are read at random from the files and decoded in the graph, without Python.
    Boxes and labels are in memory, run lengths are read when they are asked for.

    Args:
        path: the folder that `save_tfrecord` or `rcnn data pack` wrote.
        classes: these classes only, in this order.
        crowd: as in `load_coco`.
        without_mask: likewise; "box" is for the data that are packed, not for TFRecord files.

    Raises:
        DatasetError: for a manifest that is missing, unfinished or of another version, record
            files that are missing or of another length, and damaged indices; lists all. The
            checksum of a record is looked at whenever it is read, `check_tfrecord` looks at all.
        ValueError: for a name in `classes` that the records do not have, with the nearest one;
            for another word for `crowd` or `without_mask`, and for boxes to be filled.

    Warns:
        UserWarning: once, with what is changed and what is suspicious, as `load_coco`.
    """
    check_rules(crowd, without_mask)
    folder = Path(path)
    manifest, log = read_manifest(folder), ProblemLog()
    how = manifest["value_range"]
    records = [r for shard in manifest["shards"] for r in _read(folder, shard, log, how)]
    log.raise_fatal()
    records = [apply_rules(record, log, crowd, without_mask) for record in records]
    dataset = DetectionDataset(
        records,
        manifest["classes"],
        category_ids=manifest["category_ids"],
        name=manifest["name"],
        skeleton=_skeleton(manifest),
    )
    if classes is not None:
        classes = check_names(classes)
        check_known(classes, dataset.classes)
        dataset = dataset.with_classes(classes)
    find_suspicious(dataset, dataset.classes, str(folder / MANIFEST), log)
    dataset.problems = tuple(log.problems)
    warn_repaired(dataset, f"rcnn data check {folder}")
    return dataset


def check_tfrecord(
    path: str | PathLike, *, crowd: Crowd = "ignore", without_mask: WithoutMask = "keep"
) -> list[Problem]:
    """Return every problem of a folder of TFRecord files; reads and hashes all of them.

    Args:
        path: as in `load_tfrecord`.
        crowd: likewise.
        without_mask: likewise.

    Raises:
        ValueError: for another word for `crowd` or `without_mask`, and for boxes to be filled.
    """
    check_rules(crowd, without_mask)
    folder, log = Path(path), ProblemLog()
    try:
        manifest = read_manifest(folder)
    except DatasetError as error:
        return list(error.problems)
    records = []
    for shard in manifest["shards"]:
        if found := _read(folder, shard, log):
            file = folder / f"{shard['name']}.tfrecord"
            _check_hash(file, shard["sha256"], log)
            records += [apply_rules(record, log, crowd, without_mask) for record in found]
    find_suspicious(records, manifest["classes"], str(folder / MANIFEST), log)
    return log.problems


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder of TFRecord files; DatasetError if it is not sound."""
    file, log = folder / MANIFEST, ProblemLog()
    if not file.exists():
        reason = "no such file"
        if (folder / HEADER).exists():
            reason += ": packing is not finished; the same `rcnn data pack` goes on"
        log.fatal(file, "", "", "", reason)
        log.raise_fatal()
    try:
        manifest = json.loads(file.read_bytes())
    except ValueError as error:
        log.fatal(file, "", "", "", f"is not JSON: {error}")
        log.raise_fatal()
    if not isinstance(manifest, dict):
        manifest = {"format": manifest}
    if manifest.get("format") != FORMAT:
        stated = manifest.get("format", "missing")
        log.fatal(file, "", "format", stated, f"this version reads {FORMAT!r}")
        log.raise_fatal()
    _check_fields(file, "", manifest, FIELDS, log)
    try:
        _skeleton(manifest)
    except (TypeError, ValueError) as error:
        log.fatal(file, "", "skeleton", manifest["skeleton"], str(error))
    # A manifest without it is of images that were packed as by "full".
    value_range = manifest.setdefault("value_range", FULL)
    if not is_value_range(value_range):
        log.fatal(file, "", "value_range", value_range, VALUE_RANGE_RULE)
    log.raise_fatal()
    for number, shard in enumerate(manifest["shards"]):
        _check_fields(file, f"shards.{number}", shard, SHARD_FIELDS, log)
    log.raise_fatal()
    return manifest


def _skeleton(manifest: dict[str, Any]) -> Skeleton | None:
    """Return the names of the keypoints, None for images without."""
    return Skeleton(**manifest["skeleton"]) if "skeleton" in manifest else None


def _check_fields(
    file: Path, where: str, found: Any, fields: dict[str, type], log: ProblemLog
) -> None:
    """Note the fields of a mapping that are missing or of another type."""
    for name, kind in fields.items():
        value = found.get(name, "missing") if isinstance(found, dict) else "missing"
        if type(value) is not kind or (value == "missing" and kind is str):
            log.fatal(file, where, name, value, f"should be a {kind.__name__}")


def _read(
    folder: Path, shard: dict[str, Any], log: ProblemLog, value_range: ValueRange = FULL
) -> list[Record]:
    """Return the records of a shard by its index; none if something is wrong with its files."""
    file, index = (folder / f"{shard['name']}.{ending}" for ending in ("tfrecord", "npz"))
    missing = [path for path in (file, index) if not path.exists()]
    for path in missing:
        log.fatal(path, "", "", "", "no such file, and the manifest has it")
    if missing:
        return []
    size = file.stat().st_size
    if size != shard["bytes"]:
        log.fatal(file, "", "bytes", size, f"the manifest says {shard['bytes']}")
        return []
    if not _check_hash(index, shard["index_sha256"], log):
        return []
    try:
        return index_records(file, read_index(index), value_range)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        log.fatal(index, "", "", "", f"is not an index of a TFRecord file: {error}")
        return []


def _check_hash(file: Path, stated: str, log: ProblemLog) -> bool:
    """Return whether a file has the hash that the manifest states."""
    found = file_sha256(file)
    if found != stated:
        log.fatal(file, "", "sha256", found[:16], f"the manifest says {stated[:16]}")
    return found == stated


SHARD_SIZE = 500  # images, of which COCO's take 80 MB

RECORD_FRAME = 16  # bytes that TFRecord puts around a record: its length and two checksums

NO_RUNS = np.zeros(0, np.int64)


class Shard(NamedTuple):
    """The images of a shard, and the name of its files without their endings."""

    name: str
    records: tuple[Record, ...]


def save_tfrecord(
    dataset: DetectionDataset,
    out: str | PathLike,
    *,
    shard_size: int = SHARD_SIZE,
    value_range: ValueRange = FULL,
    engine: Engine | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DetectionDataset:
    """Pack images and ground truth into TFRecord files that `load_tfrecord` reads.

    Image files are kept as they are where TensorFlow decodes them to the pixels of `read_image`,
    to the bit, which is tried on each; others (16 bits, TIFF, WebP) become PNGs of these pixels.
    Polygons become run lengths of the same masks. Proposals are not packed.

    Called again after a stop, it goes on; what was lost are the shards that were in work. The
    files are the same to the byte however often that happened and whatever engine did the work.

    Args:
        dataset: the images, in the order in which they are packed.
        out: the folder, made if missing.
        shard_size: most images in a TFRecord file; all hold about as many.
        value_range: how images of more than 8 bits become 0..255, see `read_image`; that of the
            model that will train on them.
        engine: by default one process for each core.
        progress: called with the number of images that are done, and of all.

    Returns:
        The dataset as `load_tfrecord` reads it.

    Raises:
        ValueError: for a dataset without images, a `shard_size` below 1, an object whose
            segmentation is malformed, and a folder that holds other records or something else.
        DatasetError: once all other shards are done, for images that cannot be read or are not of
            their stated size; lists them.
        ChildProcessError: three workers died at the same shard.
    """
    if shard_size < 1:
        raise ValueError(f"shard_size must be at least 1, not {shard_size!r}")
    if not len(dataset):
        raise ValueError("the dataset has no images")
    check_value_range(value_range)
    check_packed(dataset, value_range)
    out = Path(out)
    header = _header(dataset, shard_size, value_range)
    if (out / MANIFEST).exists():
        found = read_manifest(out)
        check_same_header(out, {key: found.get(key) for key in header}, header, "records")
    else:
        _pack(dataset, ResumableFolder(out, header, "records"), shard_size, engine, progress)
    (out / HEADER).unlink(missing_ok=True)
    return load_tfrecord(out)


def _pack(
    dataset: DetectionDataset,
    parts: ResumableFolder,
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
    work = partial(pack_shard, parts.folder, value_range=parts.header["value_range"])
    for shard, found in run_shards(work, missing, engine):
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
    with atomic_write(parts.path(MANIFEST)) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")


def pack_shard(folder: Path, shard: Shard, value_range: ValueRange = FULL) -> list[Problem]:
    """Write the two files of a shard, or none if an image cannot be read; what a worker does.

    Returns:
        A problem for each image that cannot be read.
    """
    examples, problems = [], []
    for record in shard.records:
        try:
            example = _example(record, value_range)
            examples.append(example.SerializeToString(deterministic=True))
        except ImageError as error:
            image = f"image {record.image_id}"
            problems.append(Problem(record.path, image, "", "", error.reason, True))
    if problems:
        return problems
    file = folder / f"{shard.name}.tfrecord"
    with atomic_write(file) as temporary, tf.io.TFRecordWriter(str(temporary)) as writer:
        for example in examples:
            writer.write(example)
    offsets = np.cumsum([0, *(len(example) + RECORD_FRAME for example in examples)])
    write_index(folder / f"{shard.name}.npz", shard.records, offsets, file_sha256(file))
    return []


def _shards(dataset: DetectionDataset, shard_size: int) -> list[Shard]:
    """Cut a dataset into shards of about the same size, in order."""
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
        "index_sha256": file_sha256(index),
    }


def _header(dataset: DetectionDataset, shard_size: int, value_range: ValueRange) -> dict[str, Any]:
    """Return what the shards depend on, but for the image files."""
    return {
        "format": FORMAT,
        "name": dataset.name,
        "classes": list(dataset.classes),
        "category_ids": list(dataset.category_ids),
        "shard_size": shard_size,
        "value_range": list(value_range) if isinstance(value_range, tuple) else value_range,
        "source": _fingerprint(dataset),
        **_skeleton_header(dataset.skeleton),
    }


def _skeleton_header(skeleton: Skeleton | None) -> dict[str, Any]:
    """Return the entry of a manifest for the keypoints' names, none for images without."""
    return {} if skeleton is None else {"skeleton": json.loads(json.dumps(asdict(skeleton)))}


def _fingerprint(dataset: DetectionDataset) -> str:
    """Return a hash of the images' ids, names and sizes, and of all ground truth."""
    return sha256(chunk for record in dataset for chunk in _facts(record))


def _facts(record: Record) -> Iterator[bytes]:
    name = Path(record.path).name
    codes = None if record.segmentations is None else [*map(plain, record.segmentations)]
    yield json.dumps([record.image_id, name, record.height, record.width, codes]).encode()
    arrays = (record.boxes, record.labels, record.crowd, record.areas, record.difficult)
    for array in (*arrays, record.pixels):
        yield b"none" if array is None else array.tobytes()
    if record.keypoints is not None:
        yield record.keypoints.tobytes()


def _example(record: Record, value_range: ValueRange) -> tf.train.Example:
    """Return an image and its ground truth as `packed_images` has them."""
    content, orientation = _content(record, value_range)
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
    if record.keypoints is not None:
        features["keypoints"] = _feature(float_list=record.keypoints.ravel())
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


def _content(record: Record, value_range: ValueRange) -> tuple[bytes, int]:
    """Return the bytes of an image file and its orientation, as a PNG if the graph needs one.

    Raises:
        ImageError: the image cannot be read, or has another size than the record says.
    """
    pixels = read_pixels(record, value_range)
    if not isinstance(record.image, np.ndarray):
        place = record.tfrecord
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
