"""`rcnn detect`."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from rcnn_keras.cli.common import (
    engine_options,
    must_be_a_model,
    quiet_import,
)
from rcnn_keras.parallel import Engine, engine_named
from rcnn_keras.presets import from_preset
from rcnn_keras.utils.output_paths import check_output_file, check_output_folder

if TYPE_CHECKING:
    import numpy as np

    from rcnn_keras.models import Detector

MOST_PROPOSALS = 2000  # an image, as in the papers


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("--model", required=True, help="A name that `rcnn presets` lists, or a .keras file.")
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder for pictures and results, or a .json file for results alone.",
)
@click.option(
    "--min-score",
    default=0.5,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Leave out weaker detections.",
)
@click.option(
    "--font",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="File of the font for the pictures.  [default: one that has the names' characters]",
)
@click.option("--batch-size", default=1, show_default=True, type=click.IntRange(1))
@engine_options
def detect(
    images: tuple[str, ...],
    model: str,
    out: Path,
    min_score: float,
    font: Path | None,
    batch_size: int,
    engine: str,
    workers: int | None,
    address: str | None,
) -> None:
    """Detect objects in IMAGES: files, folders or patterns such as "photos/*.jpg".

    \b
    Example:
      rcnn detect smears/ --model blood_cells --out found
      rcnn detect photos/ cat.jpg --model runs/first/best.keras --out found --min-score 0.7
      rcnn detect photos/ --model runs/first/best.keras --out results.json --workers 8

    A folder gets a picture of each image with its detections drawn, and detections.json: COCO
    result rows (boxes x, y, width, height in pixels; category i is the model's i-th class), with
    the names of file and class added, masks as run lengths in "segmentation", and x, y and score
    of each keypoint in "keypoints". Images are numbered from 1. A model that finds no proposals
    gets those of selective search, mode fast.

    A .json file gets the same rows and no pictures, of any number of images, by several workers
    (--engine, --workers, --address). A run that was stopped goes on where it was when it is
    started again; until it is done, FILE.json.parts holds what there is.
    """
    files = _image_files(images)
    must_be_a_model(model)
    if out.suffix.lower() == ".json":
        chosen = engine_named(engine, workers, address)
        if out.exists():
            raise FileExistsError(f"{out} is there already: remove it, or name another file")
        check_output_file(out)
        _detect_rows(files, model, out, min_score, batch_size, chosen)
        return
    if out.is_file():
        raise click.UsageError(f"--out {out} is a file: name a folder, or a .json file")
    if engine != "processes" or workers is not None or address is not None:
        raise click.UsageError("--engine, --workers and --address are for --out FILE.json")
    pictures = [out / name for name in _different_names(files)]
    _check_not_beside([*pictures, out / "detections.json"], files)
    check_output_folder(out)
    with quiet_import():
        from rcnn_keras import visualize
    _check_readable(files)
    detector = _loaded(model, min_score)
    found = [
        d.above(min_score)
        for d in detector.detect(files, batch_size=batch_size, proposals=_search(detector))
    ]
    out.mkdir(parents=True, exist_ok=True)
    rows, lines = [], []
    for number, (file, picture, detections) in enumerate(zip(files, pictures, found, strict=True)):
        pixels = visualize.read_image(file, detector.value_range)
        visualize.draw(pixels, detections, min_score=min_score, font=font).save(picture)
        rows += detections.coco_rows(number + 1, str(file))
        lines.append(f"{file}: {detections.summary()}")
    (out / "detections.json").write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    click.echo("\n".join(lines))  # once all is written: a pipe may be closed


def _detect_rows(
    files: list[Path], model: str, out: Path, min_score: float, batch_size: int, engine: Engine
) -> None:
    """Write the rows of any number of images into one file."""
    with quiet_import():
        from rcnn_keras.parallel import detect_files
    _check_readable(files)
    detector = _loaded(model, min_score)
    begun: list[tuple[float, int]] = []  # when, and how many images were done already

    def show(done: int, _: int) -> None:
        begun.append((time.monotonic(), done))
        del begun[1:-1]
        bar.update(done - bar.pos)

    with click.progressbar(length=len(files), label="images") as bar:
        detect_files(
            detector,
            files,
            out,
            min_score=min_score,
            batch_size=batch_size,
            proposals=_search(detector),
            engine=engine,
            progress=show,
        )
    seconds, images = (last - first for first, last in zip(begun[0], begun[-1], strict=True))
    speed = f", {images / seconds:.1f} images a second" if images and seconds else ""
    click.echo(f"{out}: {len(files)} images{speed}")


def _loaded(model: str, min_score: float) -> "Detector":
    """Return the detector; say so if it has a higher threshold of its own."""
    detector = from_preset(model)
    threshold = detector.detection_layer.score_threshold
    if min_score < threshold:
        click.echo(
            f"--min-score {min_score:g}: the model gives no detections of {threshold:g} or less",
            err=True,
        )
    return detector


def _search(detector: "Detector") -> "Callable[[np.ndarray], np.ndarray] | None":
    return _selective_search if detector.takes_proposals else None


def _selective_search(image: "np.ndarray") -> "np.ndarray":
    from rcnn_keras.proposals import selective_search

    return selective_search(image, mode="fast")[:MOST_PROPOSALS]


def _image_files(arguments: Iterable[str]) -> list[Path]:
    """Return the files that the arguments name, each once; folders and patterns in order.

    What is passed over in a folder, and system files that fit a pattern, are counted and reported.
    """
    files: list[Path] = []
    for argument in arguments:
        path, passed_over = Path(argument), ""
        if path.is_dir():
            with quiet_import():
                from rcnn_keras.data.image_files import images_in
            found, passed_over = images_in(path)
            if "sub-folder" in passed_over:
                pattern = path / "**" / f"*{found[0].suffix if found else '.jpg'}"
                passed_over += f' ("{pattern}" would take those of sub-folders)'
        elif path.is_file():
            found = [path]
        else:
            anchor = Path(path.anchor)
            fitting = sorted(p for p in anchor.glob(str(path.relative_to(anchor))) if p.is_file())
            if fitting:
                with quiet_import():
                    from rcnn_keras.data.image_files import is_system_name
                found = [file for file in fitting if not is_system_name(file.name)]
            else:  # answered without the second that TensorFlow takes
                found = []
            left = len(fitting) - len(found)
            passed_over = f"{left} system file{'s'[: left > 1]}" if left else ""
        if not found:
            kind = "no image in this folder" if path.is_dir() else "no such file"
            has = f", it has {passed_over}" if passed_over else ""
            raise FileNotFoundError(f"{argument}: {kind}{has}")
        if passed_over:
            count = f"{len(found)} image{'s'[: len(found) > 1]}"
            click.echo(f"{argument}: {count}, passed over {passed_over}", err=True)
        files += found
    return list(dict.fromkeys(files))


def _different_names(files: list[Path]) -> list[str]:
    """Return a name for each picture: the file's stem, numbered where stems are the same."""
    names: dict[
        str, str
    ] = {}  # by the name in lower case, which some file systems do not distinguish
    numbers: dict[str, int] = {}
    for file in files:
        key, name = file.stem.casefold(), file.stem
        number = numbers.get(key, 0) + 1
        if number > 1:
            name = f"{file.stem}_{number}"
        while name.casefold() in names:
            number += 1
            name = f"{file.stem}_{number}"
        numbers[key] = number
        names[name.casefold()] = f"{name}.png"
    return list(names.values())


def _check_not_beside(results: list[Path], images: list[Path]) -> None:
    """Raise FileExistsError if a result would replace a file in a folder of the images."""
    folders = {image.resolve().parent for image in images}
    for result in results:
        if result.exists() and result.resolve().parent in folders:
            raise FileExistsError(
                f"{result} would be overwritten, and lies in the folder of the images: name "
                f"another folder with --out"
            )


def _check_readable(files: list[Path]) -> None:
    """Raise ValueError with every file whose header cannot be read."""
    from rcnn_keras.data.images import ImageError, image_header

    errors = []
    for file in files:
        try:
            image_header(file)
        except ImageError as error:
            errors.append(str(error))
    if errors:
        count = f"{len(errors)} of {len(files)} images cannot be read:"
        raise ValueError("\n  ".join([count, *errors]))
