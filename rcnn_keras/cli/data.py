"""`rcnn data`."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rcnn_keras.cli.common import (
    engine_options,
    format_of_data,
    load_dataset,
    must_exist,
    object_options,
    quiet_import,
    value_range_option,
)
from rcnn_keras.parallel import engine_named
from rcnn_keras.utils.output_paths import check_output_folder

if TYPE_CHECKING:
    from rcnn_keras.data.problems import Problem

EXAMPLES = 10  # of one kind of problem


@click.group()
def data() -> None:
    """Look after annotated images."""


@data.command()
@click.argument("annotations", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images of a COCO or VIA file.  [default: the file's folder]",
)
@click.option(
    "--split",
    help="Split of a VOC folder.  [default: those of train, val, trainval, test it has]",
)
@click.option(
    "--all", "every", is_flag=True, help=f"Every problem, not the first {EXAMPLES} of each kind."
)
@click.option("--attribute", help="Region attribute of a VIA file that says the class.")
@object_options
def check(
    annotations: Path,
    images: Path | None,
    split: str | None,
    attribute: str | None,
    every: bool,
    crowd: str,
    without_mask: str,
) -> None:
    """Print the problems of FILE: a COCO or VIA file, a VOC folder, or one of TFRecord files.

    \b
    Example:
      rcnn data check data/bccd/train.json --images data/bccd/images

    FATAL problems keep the data from being used; repaired ones are put right while reading; what a
    warning names is read as it stands, and is probably not what was meant. Of many problems of one
    kind the first are printed, and how many more there are. Every image is decoded, of TFRecord
    files every byte hashed. Exit status 1 if anything is fatal.
    """
    must_exist(annotations, "annotations")
    with quiet_import():
        from rcnn_keras.data.coco import check_coco
        from rcnn_keras.data.tfrecord import check_tfrecord
        from rcnn_keras.data.via import check_via
        from rcnn_keras.data.voc import check_voc
        from rcnn_keras.data.voc_folders import voc_splits
    rules: dict[str, Any] = {"crowd": crowd, "without_mask": without_mask}
    data_format = format_of_data(annotations, images, split)
    if data_format == "tfrecord":
        found = check_tfrecord(annotations, **rules)
    elif data_format == "voc":
        splits = [split] if split else voc_splits(str(annotations))
        found = [problem for name in splits for problem in check_voc(annotations, name, **rules)]
    elif data_format == "via":
        found = check_via(annotations, images, attribute=attribute, **rules)
    else:
        found = check_coco(annotations, images, **rules)
    if attribute is not None and data_format != "via":
        raise click.UsageError(f"--attribute is for a file of VIA, which {annotations} is not")
    problems = list(dict.fromkeys(found))  # one image may be in several lists
    for line in _lines(problems, len(problems) if every else EXAMPLES):
        click.echo(line)
    fatal = sum(problem.fatal for problem in problems)
    warnings = sum(problem.suspicious for problem in problems)
    counts = [f"{fatal} fatal", f"{len(problems) - fatal - warnings} repaired"]
    if warnings:
        counts.append(f"{warnings} warning{'s' if warnings > 1 else ''}")
    click.echo(f"{annotations}: {', '.join(counts)}")
    if fatal:
        sys.exit(1)


def _lines(problems: "Sequence[Problem]", most: int) -> Iterator[str]:
    """Yield a line for each problem, of each kind the first ones of many and then a count."""
    counts: Counter[tuple[str, str]] = Counter()
    for problem in problems:
        kind = "FATAL" if problem.fatal else "warning" if problem.suspicious else "repaired"
        # What a fatal one says has the names and sizes of its image.
        group = kind, "" if kind == "FATAL" else problem.message
        counts[group] += 1
        if counts[group] <= most:
            yield f"{kind} {problem}"
    for (kind, message), count in counts.items():
        if count > most:
            what = f": {message}" if message else ""
            yield f"{kind} ... and {count - most} more like these{what} (--all lists them)"


@data.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images of a COCO or VIA file.  [default: the file's folder]",
)
@click.option("--split", help="Split of a VOC folder.  [default: train, or all if it has none]")
@click.option(
    "--shard-size",
    type=click.IntRange(1),
    help="Most images in a TFRecord file.  [default: 500]",
)
@click.option("--shards", type=click.IntRange(1), help="TFRecord files, instead of --shard-size.")
@value_range_option
@object_options
@engine_options
def pack(
    source: Path,
    out: Path,
    images: Path | None,
    split: str | None,
    shard_size: int | None,
    shards: int | None,
    value_range: Any,
    crowd: str,
    without_mask: str,
    engine: str,
    workers: int | None,
    address: str | None,
) -> None:
    """Pack SOURCE, a COCO JSON file or a Pascal VOC folder, into TFRecord files.

    \b
    Example:
      rcnn data pack train.json --out train_records --workers 8
      rcnn data pack VOC2007 --split trainval --out voc_records --engine ray --address auto

    The folder gets files of images and ground truth that training reads without Python, and a
    manifest with counts and hashes. A run that was stopped goes on when it is started again, and
    leaves the same bytes.
    """
    must_exist(source, "dataset")
    if shards is not None and shard_size is not None:
        raise click.UsageError("--shards and --shard-size say the same in two ways: give one")
    chosen = engine_named(engine, workers, address)
    check_output_folder(out)
    with quiet_import():
        from rcnn_keras.data.tfrecord import SHARD_SIZE, save_tfrecord
    dataset = load_dataset(source, images, split, crowd=crowd, without_mask=without_mask)
    if shards is not None:
        shard_size = -(-len(dataset) // shards)
    with click.progressbar(length=len(dataset), label="images") as bar:
        packed = save_tfrecord(
            dataset,
            out,
            shard_size=shard_size or SHARD_SIZE,
            value_range=value_range,
            engine=chosen,
            progress=lambda done, _: bar.update(done - bar.pos),
        )
    files = len({record.tfrecord.file for record in packed if record.tfrecord is not None})
    objects = sum(map(len, packed))
    click.echo(f"{out}: {len(packed)} images, {objects} objects, {files} TFRecord files")
