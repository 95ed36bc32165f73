"""Proposals of a whole data set, by several processes; a run that was stopped goes on."""

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rcnn_keras.proposals.methods import full_arguments
from rcnn_keras.proposals.parts import Parts, check_same_header, remove_parts
from rcnn_keras.proposals.proposal_file import (
    Proposals,
    load_proposals,
    make_header,
    write_proposals,
)
from rcnn_keras.proposals.workers import run_method, worker_pool

if TYPE_CHECKING:
    from rcnn_keras.data.dataset import DetectionDataset
    from rcnn_keras.data.images import ImageError
    from rcnn_keras.data.records import Record

AHEAD = 2  # images given out for each worker, so that none waits for the next one to be read


def propose(
    dataset: "DetectionDataset",
    out: str | PathLike,
    *,
    method: str = "selective_search",
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    **arguments: Any,
) -> Proposals:
    """Propose boxes for every image of a data set, and write them into one file.

    Until all are there, the boxes of each image are kept in the folder `OUT.parts` beside the
    file. Called again after a stop, it goes on from them; what was lost are the images that were
    in work, at most two for each worker. The file is the same to the byte however often that
    happened and whatever the number of workers. Once the file is there, a call has nothing to do.

    The workers are spawned: a script must call this below `if __name__ == "__main__":`.

    Args:
        dataset: the images.
        out: the file, which `load_proposals` reads.
        method: a key of `METHODS`.
        workers: processes, of one thread each; by default as many as there are cores.
        progress: called with the number of images that are done, and of all.
        arguments: of the method.

    Returns:
        The proposals of the file.

    Raises:
        ValueError: for an unknown method or argument, `workers` below 1, a data set without
            images, and a file or parts that are there but hold other proposals; and, once all the
            others are done, for images that cannot be read or are not of their stated size.
        ChildProcessError: a worker was killed, for want of memory for instance.
    """
    if workers is not None and workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers!r}")
    if not len(dataset):
        raise ValueError("the data set has no images")
    out = Path(out)
    header = make_header(method, full_arguments(method, arguments), images=_fingerprint(dataset))
    folder = out.with_name(f"{out.name}.parts")
    if out.exists():
        check_same_header(out, load_proposals(out).header, header)
    else:
        parts = Parts(folder, header)
        _search(dataset, parts, workers or os.cpu_count() or 1, progress)
        boxes = {record.image_id: parts.load(record) for record in dataset}
        sizes = {record.image_id: (record.height, record.width) for record in dataset}
        write_proposals(out, boxes, header, sizes)
    remove_parts(folder)
    return load_proposals(out)


def _search(
    dataset: "DetectionDataset",
    parts: Parts,
    workers: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill up the parts; ValueError at the end with every image that cannot be read."""
    missing = [record for record in dataset if record not in parts]
    done, errors = len(dataset) - len(missing), []
    if progress is not None:
        progress(done, len(dataset))
    try:
        for record, boxes in _results(missing, parts.header, min(workers, len(missing) or 1)):
            if isinstance(boxes, np.ndarray):
                parts.save(record, boxes)
            else:
                errors.append(str(boxes))
            done += 1
            if progress is not None:
                progress(done, len(dataset))
    except BrokenProcessPool as error:
        raise ChildProcessError(
            f"a worker was killed after {done} of {len(dataset)} images; {parts.folder} keeps "
            f"them, and the same call goes on from there"
        ) from error
    if errors:
        count = f"{len(errors)} of {len(dataset)} images cannot be searched:"
        kept = f"The proposals of the others are kept in {parts.folder}"
        raise ValueError("\n  ".join([count, *sorted(errors), kept]))


def _results(
    records: Sequence["Record"], header: Mapping[str, Any], workers: int
) -> Iterator[tuple["Record", "np.ndarray | ImageError"]]:
    """Give the boxes of each record, or what is wrong with its image, as they come."""
    from rcnn_keras.data.images import ImageError  # brings TensorFlow, which no worker needs

    with worker_pool(workers) as pool:
        running: dict[Future, Record] = {}
        for record in records:
            try:
                pixels = _pixels(record)
            except ImageError as error:
                yield record, error
                continue
            task = pool.submit(run_method, header["method"], pixels, header["arguments"])
            running[task] = record
            if len(running) == AHEAD * workers:
                yield from _finished(running)
        while running:
            yield from _finished(running)


def _finished(running: dict[Future, "Record"]) -> Iterator[tuple["Record", np.ndarray]]:
    """Wait for a result, and give those that are there."""
    done, _ = wait(running, return_when=FIRST_COMPLETED)
    for task in done:
        record = running.pop(task)
        try:
            yield record, task.result()
        except Exception as error:
            error.add_note(f"in the search of {record.path}")
            raise


def _pixels(record: "Record") -> np.ndarray:
    """Return the image of a record; ImageError if it has another size than the record says."""
    from rcnn_keras.data.images import ImageError, read_image

    pixels = read_image(record.path if record.pixels is None else record.pixels)
    height, width = pixels.shape[:2]
    if (height, width) != (record.height, record.width):
        stated = f"{record.width}x{record.height}"
        raise ImageError(record.path, f"has {width}x{height} pixels, not {stated} as stated")
    return pixels


def _fingerprint(dataset: "DetectionDataset") -> str:
    """Return a hash of the images' ids, names, sizes, and pixels where these are in memory."""
    images = [
        (
            record.image_id,
            Path(record.path).name,
            record.height,
            record.width,
            None if record.pixels is None else zlib.crc32(record.pixels.tobytes()),
        )
        for record in dataset
    ]
    return hashlib.sha256(json.dumps(images).encode()).hexdigest()[:16]
