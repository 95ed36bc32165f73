"""`rcnn data`."""

import sys
from pathlib import Path

import click

from rcnn_keras.cli.loading import must_exist, quiet_import

VOC_SPLITS = ("train", "val", "trainval", "test")


@click.group()
def data() -> None:
    """Look after annotated images."""


@data.command()
@click.argument("annotations", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images of a COCO file.  [default: the file's folder]",
)
@click.option(
    "--split",
    help=f"Image list of a VOC folder.  [default: those of {', '.join(VOC_SPLITS)} it has]",
)
def check(annotations: Path, images: Path | None, split: str | None) -> None:
    """Print every problem of FILE, a COCO JSON file or a Pascal VOC folder, and of its images.

    \b
    Example:
      rcnn data check data/bccd/train.json --images data/bccd/images

    FATAL problems keep the data from being used; mended ones are put right while reading. Every
    image is decoded. Exit status 1 if anything is fatal.
    """
    must_exist(annotations, "annotations")
    with quiet_import():
        from rcnn_keras.data.coco import check_coco
        from rcnn_keras.data.voc import check_voc
    if annotations.is_dir():
        lists = annotations / "ImageSets" / "Main"
        there = [name for name in VOC_SPLITS if (lists / f"{name}.txt").exists()]
        splits = [split] if split else there or ["train"]
        found = [problem for name in splits for problem in check_voc(annotations, name)]
    else:
        found = check_coco(annotations, images)
    problems = list(dict.fromkeys(found))  # one image may be in several lists
    for problem in problems:
        click.echo(f"{'FATAL' if problem.fatal else 'mended'} {problem}")
    fatal = sum(problem.fatal for problem in problems)
    click.echo(f"{annotations}: {fatal} fatal, {len(problems) - fatal} mended")
    if fatal:
        sys.exit(1)
