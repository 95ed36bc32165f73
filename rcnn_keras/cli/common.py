"""What the commands share: files that must exist, a quiet TensorFlow, a model, data, scores."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from rcnn_keras.parallel import ENGINES
from rcnn_keras.utils import quiet
from rcnn_keras.utils.environment import check_settings

if TYPE_CHECKING:
    from rcnn_keras.data.dataset import DetectionDataset


def print_scores(scores: Mapping[str, float | None]) -> None:
    """Print a line for each score, in 0..1; None and NaN are scores over no ground truth."""
    width = max(map(len, scores))
    for name, value in scores.items():
        shown = "no ground truth" if value is None or math.isnan(value) else f"{value:.3f}"
        click.echo(f"{name:<{width}}  {shown}")


__all__ = [
    "engine_options",
    "format_of_data",
    "load_dataset",
    "must_be_a_model",
    "must_exist",
    "object_options",
    "quiet_import",
]


@contextmanager
def quiet_import() -> Iterator[None]:
    """Import what brings TensorFlow, without its messages, once the settings of Keras fit."""
    check_settings()
    with quiet.quiet_import():
        yield


def must_be_a_model(name: str) -> None:
    """Raise, before anything slow, unless this is a model file that is there, or a preset's name.

    Raises:
        FileNotFoundError: for a path where nothing is.
        ValueError: for an unknown name, with the nearest.
    """
    from rcnn_keras.presets import check_name, is_path

    if is_path(name):
        must_exist(Path(name), "model file")
    else:
        check_name(name)


def must_exist(path: Path, what: str) -> None:
    """Raise FileNotFoundError, before anything slow, if there is nothing at a path."""
    if not path.exists():
        raise FileNotFoundError(f"{what} {path}: no such file")


def load_dataset(
    annotations: Path,
    images: Path | None,
    split: str | None,
    classes: tuple[str, ...] | None = None,
    **rules: Any,
) -> "DetectionDataset":
    """Load a COCO or VIA file with its images, a split of a Pascal VOC folder, or TFRecord files.

    A folder with a COCO file and without XML files stands for that file. `rules` are `crowd` and
    `without_mask`, as `load_coco` takes them.

    Raises:
        UsageError: as `format_of_data`.
    """
    from rcnn_keras.data.coco import load_coco
    from rcnn_keras.data.tfrecord import load_tfrecord
    from rcnn_keras.data.via import load_via
    from rcnn_keras.data.voc import load_voc

    kind = format_of_data(annotations, images, split)
    if kind == "tfrecord":
        return load_tfrecord(annotations, classes=classes, **rules)
    if kind == "voc":
        return load_voc(annotations, split, classes=classes, **rules)
    if kind == "via":
        return load_via(annotations, images, classes=classes, **rules)
    return load_coco(annotations, images, classes=classes, **rules)


def format_of_data(
    annotations: Path, images: Path | None, split: str | None
) -> Literal["coco", "via", "voc", "tfrecord"]:
    """Return how annotations are stored.

    Raises:
        UsageError: for --images or --split where there is no such choice.
    """
    from rcnn_keras.data.coco_folders import is_coco
    from rcnn_keras.data.tfrecord import is_tfrecord_folder
    from rcnn_keras.data.via import is_via

    kind: Literal["coco", "via", "voc", "tfrecord"] = "coco"
    if is_tfrecord_folder(annotations):
        kind = "tfrecord"
    elif is_via(annotations):
        kind = "via"
    elif annotations.is_dir() and not is_coco(annotations):
        kind = "voc"
    if images is not None and kind not in ("coco", "via"):
        raise click.UsageError(f"--images is for a COCO or VIA file, which {annotations} is not")
    if split is not None and kind != "voc":
        name = "; name the file of the split" if kind in ("coco", "via") else ""
        raise click.UsageError(
            f"--split is for a Pascal VOC folder, which {annotations} is not{name}"
        )
    return kind


def object_options(command: Callable) -> Callable:
    """Add to a command the rules of `load_coco` for objects: --crowd and --without-mask."""
    for option in (
        click.option(
            "--without-mask",
            default="keep",
            show_default=True,
            type=click.Choice(["keep", "drop", "box"]),
            help="Objects without a usable mask keep their box alone, are left out, or get their "
            "filled box as mask.",
        ),
        click.option(
            "--crowd",
            default="ignore",
            show_default=True,
            type=click.Choice(["ignore", "objects"]),
            help="Ignore crowd regions and difficult objects, or read them as ordinary objects.",
        ),
    ):
        command = option(command)
    return command


class ValueRangeType(click.ParamType):
    """A `value_range` of `read_image` on the command line."""

    name = "RANGE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the word, the number, or the two numbers that a text says."""
        if value == "full":
            return value  # without the import, which takes seconds
        from rcnn_keras.data.value_range import RULES, VALUE_RANGE_RULE, is_value_range

        if value in RULES:
            return value
        try:
            numbers = tuple(float(part) for part in str(value).split(","))
        except ValueError:
            numbers = ()
        found = numbers[0] if len(numbers) == 1 else numbers
        if not is_value_range(found):
            self.fail(f"{value!r} {VALUE_RANGE_RULE}", param, ctx)
        return found


def value_range_option(command: Callable) -> Callable:
    """Add to a command the option --value-range."""
    return click.option(
        "--value-range",
        default="full",
        show_default=True,
        type=ValueRangeType(),
        help="How images of more than 8 bits become 0..255, as the model's value_range: full, max, "
        "percentiles, the greatest value, or LEAST,GREATEST.",
    )(command)


def engine_options(command: Callable) -> Callable:
    """Add to a command the options that `engine_named` takes: --engine, --workers, --address."""
    for option in (
        click.option("--address", help="Of a Ray cluster; auto finds it.  [default: this machine]"),
        click.option(
            "--workers",
            type=click.IntRange(1),
            help="Processes, of one thread each.  [default: one for each core]",
        ),
        click.option(
            "--engine",
            default="processes",
            show_default=True,
            type=click.Choice(ENGINES),
            help="Where the work is done; ray needs pip install 'rcnn-keras[cluster]'.",
        ),
    ):
        command = option(command)
    return command
