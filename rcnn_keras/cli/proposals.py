"""`rcnn proposals`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from rcnn_keras.cli.common import (
    engine_options,
    load_dataset,
    must_exist,
    quiet_import,
    value_range_option,
)
from rcnn_keras.parallel import Engine, engine_named
from rcnn_keras.proposals.propose import METHODS
from rcnn_keras.proposals.selective_search import MODES, SIMILARITIES
from rcnn_keras.utils.output_paths import check_output_file

if TYPE_CHECKING:
    from rcnn_keras.data.dataset import DetectionDataset

TOP = 20


@click.command()
@click.argument("source", metavar="IMAGE|DATASET", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The picture of an image (PNG), or the proposals of a dataset (NPZ).",
)
@click.option(
    "--method", default="selective_search", show_default=True, type=click.Choice(list(METHODS))
)
@click.option(
    "--mode", type=click.Choice(list(MODES)), help="Of selective search.  [default: fast]"
)
@click.option(
    "--similarity",
    "similarities",
    multiple=True,
    type=click.Choice(SIMILARITIES),
    help="Join regions by this one instead of the mode's; may be repeated, and they are added up.",
)
@click.option(
    "--parameters",
    type=click.Path(exists=True, dir_okay=False),
    help="Of objectness: the file that Objectness.save wrote.",
)
@click.option(
    "--min-size",
    type=click.FloatRange(0),
    help="Of selective search: leave out boxes whose shorter side has fewer pixels.",
)
@click.option(
    "--top",
    type=click.IntRange(1),
    help=f"Image: how many proposals to draw.  [default: {TOP}]",
)
@click.option("--show", is_flag=True, help="Image: show a window. m more, l fewer, q quit.")
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Dataset: folder of the images of a COCO file.  [default: the file's folder]",
)
@click.option("--split", help="Dataset: image list of a VOC folder.  [default: train]")
@value_range_option
@engine_options
def proposals(
    source: Path,
    out: Path | None,
    method: str,
    top: int | None,
    show: bool,
    images: Path | None,
    split: str | None,
    value_range: Any,
    engine: str,
    workers: int | None,
    address: str | None,
    **options: Any,
) -> None:
    """Propose boxes that may hold an object, of any class.

    \b
    Example:
      rcnn proposals cat.jpg --top 50 --out cat_proposals.png
      rcnn proposals train.json --mode fast --workers 8 --out train_proposals.npz

    Of an IMAGE the best proposals are drawn with their ranks. Of a DATASET, a COCO JSON file, a
    Pascal VOC folder or one of TFRecord files, all proposals go to one file to train with. A run
    that was stopped goes on where it was when it is started again; until it is done, FILE.parts
    holds what there is.
    """
    must_exist(source, "image or dataset")
    if out is not None:
        check_output_file(out)
    arguments = {name: value for name, value in options.items() if value not in (None, ())}
    if source.is_dir() or source.suffix.lower() == ".json":
        _refuse(source, "dataset", {"--top": top, "--show": show or None})
        if out is None:
            raise click.UsageError("a dataset needs --out FILE")
        chosen = engine_named(engine, workers, address)
        with quiet_import():
            dataset = load_dataset(source, images, split)
        _propose(dataset, out, method, chosen, value_range, arguments)
    else:
        others = {"--images": images, "--split": split, "--workers": workers, "--address": address}
        _refuse(source, "image", others)
        if out is None and not show:
            raise click.UsageError("an image needs --out PNG or --show")
        if out is not None and out.resolve() == source.resolve():
            raise click.UsageError(f"{source} would be overwritten: name another file with --out")
        _picture(source, out, method, top or TOP, show, value_range, arguments)


def _refuse(source: Path, kind: str, options: dict[str, Any]) -> None:
    """Raise UsageError for an option that means nothing for this kind of source."""
    for name, value in options.items():
        if value is not None:
            raise click.UsageError(f"{name} is not for {source}, which is read as {kind}")


def _picture(
    file: Path,
    out: Path | None,
    method: str,
    top: int,
    show: bool,
    value_range: Any,
    arguments: dict[str, Any],
) -> None:
    """Draw the first proposals of an image."""
    from rcnn_keras.proposals.propose import full_arguments, method_named

    with quiet_import():
        method_named(method)  # brings TensorFlow, if it is objectness
    arguments = full_arguments(method, arguments)
    with quiet_import():
        from rcnn_keras.data.images import read_image
        from rcnn_keras.proposals.viewer import ProposalViewer, check_window, draw_proposals
    if show:
        check_window()
    image = read_image(file, value_range)
    boxes = method_named(method)(image, **arguments)
    click.echo(f"{file}: {len(boxes)} proposals")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        draw_proposals(image, boxes, top).save(out, "PNG")
    if show:
        ProposalViewer(image, boxes, top).show()


def _propose(
    dataset: "DetectionDataset",
    out: Path,
    method: str,
    engine: Engine,
    value_range: Any,
    arguments: dict[str, Any],
) -> None:
    """Write the proposals of a dataset, under a progress bar."""
    from rcnn_keras.proposals.propose import propose

    with click.progressbar(length=len(dataset), label="images") as bar:
        found = propose(
            dataset,
            out,
            method=method,
            engine=engine,
            value_range=value_range,
            progress=lambda done, _: bar.update(done - bar.pos),
            **arguments,
        )
    counts = [len(boxes) for boxes in found.values()]
    click.echo(f"{out}: {sum(counts)} proposals of {len(counts)} images")
