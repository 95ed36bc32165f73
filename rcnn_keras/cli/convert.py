"""`rcnn convert`."""

from pathlib import Path

import click

from rcnn_keras.cli.common import must_exist, quiet_import
from rcnn_keras.utils.output_paths import check_output_file


@click.command()
@click.argument("weights", type=click.Path(path_type=Path))
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="The .keras file to write.",
)
@click.option(
    "--config",
    metavar="NAME|FILE",
    help="Of Detectron2: a name of its zoo, such as "
    "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x, or a YAML file.",
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Names of the classes, a line each.  [default: COCO's or others that the file is for]",
)
@click.option("--overwrite", is_flag=True, help="Replace a file that is there.")
def convert(
    weights: Path, out: Path, config: str | None, classes: Path | None, overwrite: bool
) -> None:
    """Write the detector of another project's WEIGHTS as a .keras file.

    \b
    Example:
      rcnn convert model_final_f10217.pkl --out mask_rcnn.keras \\
          --config COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x

    WEIGHTS are Detectron2's, .pkl of its zoo or .pth of your own training, or .h5 of
    matterport/Mask_RCNN. What a file of Detectron2 does not say of itself, such as image sizes and
    thresholds, comes from --config.
    """
    must_exist(weights, "weights")
    if classes is not None:
        must_exist(classes, "classes")
    if out.suffix != ".keras":
        raise click.UsageError(f"--out must end in .keras; received {out}")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already: --overwrite replaces it")
    check_output_file(out)
    names = None if classes is None else classes.read_text("utf-8").split("\n")
    names = names and [name.strip() for name in names if name.strip()]
    with quiet_import():
        from rcnn_keras.convert import detectron2, matterport
        from rcnn_keras.convert.formats import format_of
    if format_of(weights) != "hdf5":
        model = detectron2.load(weights, config, classes=names)
    elif config is None:
        model = matterport.load(weights, names)
    else:
        raise click.UsageError(f"--config is for Detectron2's files, which {weights} is not")
    model.save(out)
    click.echo(f"{out}: {type(model).__name__} of {len(model.classes)} classes")
