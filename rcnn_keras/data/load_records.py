"""Reading the record files that `pack_records` writes, and telling what is wrong with them."""

import json
import zipfile
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Any

from rcnn_keras.data.dataset import DetectionDataset, check_known, check_names
from rcnn_keras.data.parts import HEADER
from rcnn_keras.data.problems import DatasetError, Problem, ProblemLog
from rcnn_keras.data.record_index import file_hash, index_records, read_index
from rcnn_keras.data.records import Record

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


def is_packed(path: str | PathLike) -> bool:
    """Return whether a folder is one of record files, finished or not."""
    folder = Path(path)
    return (folder / MANIFEST).exists() or (folder / HEADER).exists()


def load_records(path: str | PathLike, *, classes: Iterable[str] | None = None) -> DetectionDataset:
    """Return the data set of a folder of record files.

    It stands wherever a data set of image files does, and gives the same batches to the bit; images
    and masks are read at random from the files and decoded in the graph, without Python. Boxes and
    labels are in memory, run lengths are read when they are asked for.

    Args:
        path: the folder that `pack_records` or `rcnn data pack` wrote.
        classes: these classes only, in this order.

    Raises:
        DatasetError: for a manifest that is missing, unfinished or of another version, record
            files that are missing or of another length, and damaged indices; lists all. The
            checksum of a record is looked at whenever it is read, `check_records` looks at all.
        ValueError: for a name in `classes` that the records do not have; names the nearest one.
    """
    folder = Path(path)
    manifest, log = read_manifest(folder), ProblemLog()
    records = [record for shard in manifest["shards"] for record in _read(folder, shard, log)]
    log.raise_fatal()
    dataset = DetectionDataset(
        records,
        manifest["classes"],
        category_ids=manifest["category_ids"],
        name=manifest["name"],
    )
    if classes is None:
        return dataset
    classes = check_names(classes)
    check_known(classes, dataset.classes)
    return dataset.with_classes(classes)


def check_records(path: str | PathLike) -> list[Problem]:
    """Return every problem of a folder of record files; reads and hashes all of them."""
    folder, log = Path(path), ProblemLog()
    try:
        manifest = read_manifest(folder)
    except DatasetError as error:
        return list(error.problems)
    for shard in manifest["shards"]:
        if _read(folder, shard, log):
            file = folder / f"{shard['name']}.tfrecord"
            _check_hash(file, shard["sha256"], log)
    return log.problems


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder of record files; DatasetError if it is not sound."""
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
    log.raise_fatal()
    for number, shard in enumerate(manifest["shards"]):
        _check_fields(file, f"shards.{number}", shard, SHARD_FIELDS, log)
    log.raise_fatal()
    return manifest


def _check_fields(
    file: Path, where: str, found: Any, fields: dict[str, type], log: ProblemLog
) -> None:
    """Note the fields of a mapping that are missing or of another type."""
    for name, kind in fields.items():
        value = found.get(name, "missing") if isinstance(found, dict) else "missing"
        if type(value) is not kind or (value == "missing" and kind is str):
            log.fatal(file, where, name, value, f"should be a {kind.__name__}")


def _read(folder: Path, shard: dict[str, Any], log: ProblemLog) -> list[Record]:
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
        return index_records(file, read_index(index))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        log.fatal(index, "", "", "", f"is no index of a record file: {error}")
        return []


def _check_hash(file: Path, stated: str, log: ProblemLog) -> bool:
    """Return whether a file has the hash that the manifest states."""
    found = file_hash(file)
    if found != stated:
        log.fatal(file, "", "sha256", found[:16], f"the manifest says {stated[:16]}")
    return found == stated
