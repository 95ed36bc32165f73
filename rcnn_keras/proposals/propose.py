"""Proposals for a whole dataset by several workers, resumable, and the methods by name."""

import importlib
import inspect
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rcnn_keras.parallel import Engine, Processes, run_shards
from rcnn_keras.parallel.resumable import ResumableFolder, check_same_header, remove_finished
from rcnn_keras.proposals.proposal_file import (
    Proposals,
    load_proposals,
    make_header,
    write_proposals,
)
from rcnn_keras.utils.hashing import sha256

if TYPE_CHECKING:
    from rcnn_keras.data.dataset import DetectionDataset, Record


# Each names a function of an `(H, W, 3)` uint8 RGB image and keyword arguments that JSON can hold;
# it returns `(R, 4)` float32 xyxy in the image's pixels, best first, and is deterministic. The
# function is imported when it is used, so that a method needs only its own packages.
METHODS = {
    "selective_search": "rcnn_keras.proposals.selective_search:selective_search",
    "objectness": "rcnn_keras.proposals.objectness:objectness_windows",
}


Method = Callable[..., np.ndarray]


def method_named(name: str) -> Method:
    """Return the function of a method; ValueError for a name that is not in `METHODS`."""
    if name not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, not {name!r}")
    module, function = METHODS[name].split(":")
    return getattr(importlib.import_module(module), function)


def full_arguments(name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a method's arguments with its defaults filled in, after a round trip through JSON.

    Raises:
        ValueError: for an unknown argument, a missing required one, or a value that the method
            refuses.
    """
    method = method_named(name)
    _, *parameters = inspect.signature(method).parameters.values()
    known = {parameter.name: parameter.default for parameter in parameters}
    for argument in arguments:
        if argument not in known:
            raise ValueError(f"{name} has no argument {argument!r}; it has {list(known)}")
    defaults = {k: value for k, value in known.items() if value is not inspect.Parameter.empty}
    full = json.loads(json.dumps({**defaults, **arguments}))
    missing = [key for key in known if key not in full]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    method(np.zeros((8, 8, 3), np.uint8), **full)  # a wrong value is refused before any long work
    return full


def propose(
    dataset: "DetectionDataset",
    out: str | PathLike,
    *,
    method: str = "selective_search",
    workers: int | None = None,
    engine: Engine | None = None,
    value_range: Any = "full",
    progress: Callable[[int, int], None] | None = None,
    **arguments: Any,
) -> Proposals:
    """Propose boxes for every image of a dataset, and write them into one file.

    Until all images are done, the boxes of each are kept in the folder `OUT.parts` beside the
    file. Called again after an interruption, it resumes from them; only the images in progress are
    lost, at most two per worker. The file is byte-identical however often that happened, whichever
    workers were killed and whatever their number. If the file exists already, nothing is computed.

    The workers are spawned: a script must call this below `if __name__ == "__main__":`.

    Args:
        dataset: the images.
        out: the file, which `load_proposals` reads.
        method: a key of `METHODS`.
        workers: processes, of one thread each; by default as many as there are cores.
        engine: where to search instead, for example `rcnn_keras.parallel.Ray()`; this process reads
            the images and writes the boxes.
        value_range: of images of more than 8 bits, as the model's, see `data.read_image`.
        progress: called with the number of images that are done and the number of all images.
        arguments: of the method.

    Returns:
        The proposals of the file.

    Raises:
        ValueError: for an unknown method or argument, `workers` below 1, a dataset without images,
            and an existing file or folder of parts that holds other proposals; and, once all others
            are done, for images that cannot be read or do not have their stated size.
        ChildProcessError: three workers died at the same image, for example out of memory.
    """
    engine = engine or Processes(workers)
    if not len(dataset):
        raise ValueError("the dataset has no images")
    out = Path(out)
    how = {} if value_range == "full" else {"value_range": value_range}
    full, images = full_arguments(method, arguments), _fingerprint(dataset)
    header = make_header(method, full, images=images, **how)
    folder = out.with_name(f"{out.name}.parts")
    if out.exists():
        check_same_header(out, load_proposals(out).header, header, "proposals")
    else:
        parts = ResumableFolder(folder, header, "proposals")
        _search(dataset, parts, engine, progress)
        boxes = {r.image_id: load_proposals(_part(parts, r))[r.image_id] for r in dataset}
        sizes = {record.image_id: (record.height, record.width) for record in dataset}
        write_proposals(out, boxes, header, sizes)
    remove_finished(folder)
    return load_proposals(out)


def run_method(name: str, arguments: dict[str, Any], image: tuple[int, np.ndarray]) -> np.ndarray:
    """Return the boxes of an image, given as its number and pixels; runs in a worker.

    It imports OpenCV and the method, but not TensorFlow, which would take seconds and hundreds of
    megabytes in each worker.
    """
    _, pixels = image
    return method_named(name)(pixels, **arguments)


def _search(
    dataset: "DetectionDataset",
    parts: ResumableFolder,
    engine: Engine,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Compute the missing parts; raise ValueError at the end for images that cannot be read."""
    from rcnn_keras.data.images import ImageError
    from rcnn_keras.data.pipeline import read_pixels

    missing = [record for record in dataset if not _part(parts, record).exists()]
    done, errors = len(dataset) - len(missing), []

    def report(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, len(dataset))

    def images() -> Iterator[tuple[int, np.ndarray]]:
        for number, record in enumerate(missing):
            try:
                how = parts.header.get("value_range", "full")
                yield number, read_pixels(record, how)
            except ImageError as error:
                errors.append(str(error))
                report(1)

    report(0)
    work = partial(run_method, parts.header["method"], parts.header["arguments"])
    try:
        for (number, _), boxes in run_shards(work, images(), engine):
            record = missing[number]
            size = {record.image_id: (record.height, record.width)}
            write_proposals(_part(parts, record), {record.image_id: boxes}, parts.header, size)
            report(1)
    except ChildProcessError as error:
        raise ChildProcessError(
            f"{error}. {done} of {len(dataset)} images are done; {parts.folder} keeps them, and "
            f"the same call goes on from there"
        ) from error
    if errors:
        count = f"{len(errors)} of {len(dataset)} images cannot be searched:"
        kept = f"The proposals of the others are kept in {parts.folder}"
        raise ValueError("\n  ".join([count, *sorted(errors), kept]))


def _part(parts: ResumableFolder, record: "Record") -> Path:
    """Return the file that keeps the proposals of an image until all are done."""
    return parts.path(f"{record.image_id}.npz")


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
    return sha256([json.dumps(images).encode()])[:16]
