"""Detection over folders of any size: shards on an engine, results on disk as they come."""

import json
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras

from rcnn_keras import __version__
from rcnn_keras.data.detections import Detections
from rcnn_keras.data.images import ImageError, read_image
from rcnn_keras.parallel.resumable import ResumableFolder, remove_finished
from rcnn_keras.parallel.shards import Engine, run_shards
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.hashing import fingerprint

SHARD_SIZE = 100  # images
MODEL = "model.keras"


class Detector(Protocol):
    """What is asked of a detector here, a Keras model whose class is importable by its name."""

    def detect(self, images: Sequence[str], **arguments: Any) -> Iterator[Detections]:
        """Return the detections of each image, as `rcnn_keras.models.Detector.detect` does."""
        ...

    def save(self, path: Path) -> None:
        """Write the model into a .keras file."""
        ...

    def get_config(self) -> dict[str, Any]:
        """Return the model's arguments."""
        ...

    def get_weights(self) -> list[Any]:
        """Return the model's weights as arrays."""
        ...


class Shard(NamedTuple):
    """Images that a worker takes at a time; `first` is the id of the first one."""

    name: str
    first: int
    files: tuple[str, ...]


def detect_files(
    detector: Detector,
    files: Sequence[str | PathLike],
    out: str | PathLike,
    *,
    min_score: float = 0.5,
    batch_size: int = 1,
    proposals: Callable[..., Any] | None = None,
    engine: Engine | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Detect objects in many image files, and write COCO result rows into one JSON file.

    Image i, counted from 1 in the order of `files`, has the id i; each row names its file. Until
    all are done, results are kept in the folder `OUT.parts` beside the file, a hundred images to a
    part. Called again after a stop, it goes on from them. The file is the same to the byte however
    often that happened, whichever workers were killed and whatever their number: each worker has
    one thread and loads the model once. No more than the images in work are ever in memory.

    The workers are spawned: a script must call this below `if __name__ == "__main__":`.

    Args:
        detector: a copy of it is kept beside the parts, for the workers.
        files: image files.
        out: the JSON file.
        min_score: leave out weaker detections.
        batch_size: images that run together; see `Detector.detect`.
        proposals: for R-CNN and Fast R-CNN, a function of a module, see `Detector.detect`.
        engine: by default one process for each core.
        progress: called with the number of images that are done, and of all.

    Raises:
        ValueError: for no files, parts of another call, and once all others are done, for images
            that cannot be decoded; lists them.
        FileExistsError: the file is there already.
        ChildProcessError: three workers died at the same images.
    """
    out = Path(out)
    if not files:
        raise ValueError("there are no images to detect in")
    if out.exists():
        raise FileExistsError(f"{out} is there already: remove it, or name another file")
    names = [str(file) for file in files]
    header = {
        "format": "rcnn_keras detections 1",
        "rcnn_keras": __version__,
        "model": _fingerprint(detector),
        "images": fingerprint(names)[:16],
        "min_score": min_score,
        "batch_size": batch_size,
    }
    parts = ResumableFolder(out.with_name(f"{out.name}.parts"), header, "detections")
    if MODEL not in parts:
        with atomic_write(parts.path(MODEL)) as temporary:
            detector.save(temporary)
    shards = list(_shards(names))
    options = {"batch_size": batch_size, "proposals": proposals}
    work = partial(detect_shard, type(detector), parts.folder, min_score, options)
    _detect(work, parts, shards, len(files), engine, progress)
    with atomic_write(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write("[")
        separator = "\n"
        for shard in shards:
            with parts.path(shard.name).open(encoding="utf-8") as part:
                for row in part:
                    file.write(separator + row.rstrip("\n"))
                    separator = ",\n"
        file.write("\n]\n")
    remove_finished(parts.folder)


def detect_shard(
    model: type[Detector], folder: Path, min_score: float, options: dict[str, Any], shard: Shard
) -> list[str]:
    """Write the rows of a shard, or none if an image cannot be decoded; what a worker does.

    Args:
        model: class of the detector; a worker that receives it has imported its module, by which
            Keras knows the classes of the saved file.
        folder: of the parts and of the saved detector.
        min_score: leave out weaker detections.
        options: of `detect`.
        shard: the images.

    Returns:
        What is wrong with each image that cannot be decoded.
    """
    detector = _loaded(model, folder / MODEL)
    try:
        found = detector.detect(shard.files, **options)
    except ImageError as error:
        return list(_unreadable(shard.files)) or [str(error)]
    with (
        atomic_write(folder / shard.name) as temporary,
        temporary.open("w", encoding="utf-8") as part,
    ):
        for number, (file, detections) in enumerate(zip(shard.files, found, strict=True)):
            for row in detections.above(min_score).coco_rows(shard.first + number, file):
                part.write(json.dumps(row) + "\n")
    return []


def _detect(
    work: Callable[[Shard], list[str]],
    parts: ResumableFolder,
    shards: Sequence[Shard],
    images: int,
    engine: Engine | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Fill up the parts."""
    missing = [shard for shard in shards if shard.name not in parts]
    done = images - sum(len(shard.files) for shard in missing)
    errors: list[str] = []
    if progress is not None:
        progress(done, images)
    for shard, found in run_shards(work, missing, engine):
        errors += found
        done += len(shard.files)
        if progress is not None:
            progress(done, images)
    if errors:
        count = f"{len(errors)} of {images} images cannot be read:"
        kept = f"The detections of others are kept in {parts.folder}"
        raise ValueError("\n  ".join([count, *sorted(errors), kept]))


def _shards(files: Sequence[str]) -> Iterator[Shard]:
    for first in range(0, len(files), SHARD_SIZE):
        chosen = tuple(files[first : first + SHARD_SIZE])
        yield Shard(f"{first // SHARD_SIZE:06}.jsonl", first + 1, chosen)


def _unreadable(files: Sequence[str]) -> Iterator[str]:
    for file in files:
        try:
            read_image(file)
        except ImageError as error:
            yield str(error)


@cache
def _loaded(model: type[Detector], file: Path) -> Detector:
    detector = keras.models.load_model(file, compile=False)
    assert isinstance(detector, model)
    return detector


def _fingerprint(detector: Detector) -> str:
    """Return a hash of a detector's weights and arguments."""
    config = detector.get_config()
    config.pop("name")  # has another number in each process
    return fingerprint(config, detector.get_weights())[:16]
