"""`rcnn compare`."""

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from rcnn_keras.cli.common import must_exist, quiet_import
from rcnn_keras.utils.output_paths import check_output_folder

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
# As `rcnn_keras.comparison.FAMILY` has them, which brings TensorFlow.
NAMES = (
    *("rcnn", "fast_rcnn", "fast_rcnn_svd"),
    *("faster_rcnn", "faster_rcnn_alternating", "mask_rcnn"),
)


@click.command()
@click.option("--data", type=FILE, help="COCO JSON file to train on.")
@click.option(
    "--images",
    type=FOLDER,
    help="Folder of its images.  [default: the file's folder, or images/ there]",
)
@click.option("--val", required=True, type=FILE, help="COCO JSON file to score on.")
@click.option("--val-images", type=FOLDER, help="Folder of its images, likewise.")
@click.option(
    "--proposals", type=FILE, help="`rcnn proposals` for --data.  [default: selective search]"
)
@click.option("--val-proposals", type=FILE, help="The same for --val.")
@click.option(
    "--model",
    "models",
    multiple=True,
    type=FILE,
    help="A trained .keras file, loaded instead of trained; may be repeated, once a kind.",
)
@click.option(
    "--skip",
    multiple=True,
    type=click.Choice(NAMES),
    help="Leave this one out; may be repeated.",
)
@click.option("--out", required=True, type=FOLDER, help="Folder of the comparison.")
@click.option(
    "--epochs",
    default=8,
    show_default=True,
    type=click.IntRange(1),
    help="Of each detector but R-CNN; half as many of each of four steps.",
)
@click.option(
    "--steps",
    default=1000,
    show_default=True,
    type=click.IntRange(2),
    help="Of R-CNN's fine-tuning.",
)
@click.option(
    "--min-size",
    default=240,
    show_default=True,
    type=click.IntRange(32),
    help="Pixels of an image's shorter side, for all but R-CNN.",
)
@click.option(
    "--timed-images",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="On how many images the parts are timed.",
)
@click.option(
    "--repeats",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="How often each part is timed on an image.",
)
@click.option(
    "--vgg16-images",
    default=1,
    show_default=True,
    type=click.IntRange(0),
    help="On how many images the papers' VGG-16 is timed, minutes each; 0 leaves it out.",
)
@click.option(
    "--threads",
    default=2,
    show_default=True,
    type=click.IntRange(1),
    help="Of TensorFlow and OpenCV.",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(0),
    help="Of weights, order and sampling.",
)
@click.option(
    "--only-timing",
    is_flag=True,
    help="Measure only the test times again, on a quiet machine for instance.",
)
def compare(
    out: Path, only_timing: bool, threads: int, models: tuple[Path, ...], **options: Any
) -> None:
    """Train or load R-CNN, Fast, Faster and Mask R-CNN, and put them side by side on one page.

    \b
    Example:
      rcnn compare --data train.json --val val.json --out runs/family
      rcnn compare --data train.json --val val.json --out runs/family --only-timing
      rcnn compare --val val.json --model fast.keras --model faster.keras --out runs/two

    The folder gets family.html and family.md: AP, training time, test time by stages, the published
    figures, and pictures. Started again, a comparison that was stopped goes on; with other settings
    of training it needs another folder. Mask R-CNN needs data
    with masks and is left out without.
    """
    if only_timing and not out.exists() and not models:
        raise click.UsageError(f"--only-timing: {out} holds no comparison")
    for path in (options["val"], options["data"], *models):
        if path is not None:
            must_exist(path, "file")
    check_output_folder(out)
    with quiet_import():
        from rcnn_keras import comparison
    comparison.use_threads(threads)
    settings = comparison.Settings(models=models, threads=threads, **options)
    command = shlex.join(["rcnn", *sys.argv[1:]])
    click.echo(comparison.compare(settings, out, only_timing=only_timing, command=command))
