"""`rcnn export`."""

import warnings
from pathlib import Path
from typing import Any

import click

from rcnn_keras.cli.common import must_be_a_model, must_exist, quiet_import
from rcnn_keras.export import FORMATS, format_of
from rcnn_keras.export import export as write
from rcnn_keras.presets import from_preset
from rcnn_keras.utils.output_paths import check_output_file, check_output_folder

SIZED = ("litert", "onnx", "openvino")
# The formats that an option is for.
BELONGS_TO = {
    "size": SIZED,
    "num_proposals": SIZED,
    "quantize": ("litert",),
    "calibrate": ("litert",),
    "detection_api": ("tf_saved_model",),
    "paste_masks": ("tf_saved_model",),
    "winograd": ("tf_saved_model",),
    "warm_up": ("tf_saved_model",),
    "serve_config": ("tf_saved_model",),
    "name": ("tf_saved_model",),
}


class _Size(click.ParamType):
    """Height and width in pixels."""

    name = "HEIGHTxWIDTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, tuple):
            return value
        sides = value.lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            self.fail(f"{value!r} is not a height and a width in pixels, such as 320x320")
        return int(sides[0]), int(sides[1])


@click.command()
@click.argument("model")
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="[default: by the ending of --out, .tflite, .onnx or .xml, and tf_saved_model for a "
    "folder]",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="File or folder to write."
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier export.")
@click.option("--size", type=_Size(), help="Of the images: litert, onnx, openvino.")
@click.option(
    "--num-proposals",
    type=click.IntRange(1),
    help="That a file of R-CNN or Fast R-CNN takes: litert, onnx, openvino.  [default: 300]",
)
@click.option(
    "--quantize", type=click.Choice(["float16", "dynamic", "int8"]), help="Of the weights: litert."
)
@click.option(
    "--calibrate",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Folder of images whose values int8 is fitted to: litert.",
)
@click.option(
    "--detection-api",
    is_flag=True,
    help="Names of TensorFlow's object detection API for serving_default: tf_saved_model.",
)
@click.option("--paste-masks", is_flag=True, help="Masks of whole images: tf_saved_model.")
@click.option("--winograd", is_flag=True, help="Winograd's convolutions, for CPUs: tf_saved_model.")
@click.option(
    "--warm-up",
    multiple=True,
    metavar="IMAGE",
    type=click.Path(path_type=Path),
    help="Run by the server before it takes requests; may be repeated: tf_saved_model.",
)
@click.option(
    "--serve-config",
    is_flag=True,
    help="Write the next version of a model into a folder for TensorFlow Serving: tf_saved_model.",
)
@click.option("--name", help="Of the model, with --serve-config.  [default: the file's name]")
def export(model: str, kind: str | None, out: Path, overwrite: bool, **options: Any) -> None:
    """Write a trained MODEL in the format of another program.

    MODEL is a name that `rcnn presets` lists, or a .keras file.

    \b
    Examples:
      rcnn export blood_cells --out cells_saved_model
      rcnn export runs/first/best.keras --out serving --serve-config --name cells --warm-up a.jpg
      rcnn export runs/first/best.keras --out cells.tflite --size 320x320 --quantize dynamic

    A SavedModel takes images of any size as pixels (signature serving_default) and as JPEG or PNG
    files (image_bytes), and needs TensorFlow alone. With --serve-config, --out is a folder of
    models: it gets NAME/1, then NAME/2 and so on, models.config, and compose.yaml for `docker
    compose up`.
    """
    given = {key: value for key, value in options.items() if value}
    kind = kind or format_of(out)
    _check_options(kind, given, overwrite)
    must_be_a_model(model)
    if "calibrate" in given:
        must_exist(given["calibrate"], "folder")
    for image in given.get("warm_up", ()):
        must_exist(image, "image")
    format_of(out, kind)
    if kind in SIZED:
        check_output_file(out)
    else:
        check_output_folder(out)
    if out.exists() and not overwrite and "serve_config" not in given:
        raise FileExistsError(f"{out} is there already: --overwrite replaces an earlier export")
    with quiet_import():
        from rcnn_keras.export import serving
    detector = from_preset(model)
    serve, name = given.pop("serve_config", False), given.pop("name", Path(model).stem)
    if "detection_api" in given:
        given["detection_names"] = given.pop("detection_api")
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always", UserWarning)
        if serve:
            written = serving.serve(detector, out, name, **given)
        else:
            written = write(detector, out, kind, overwrite=overwrite, **given)
    for warning in noted:
        if issubclass(warning.category, UserWarning):
            click.echo(f"warning: {warning.message}", err=True)
    click.echo(written)
    if serve:
        click.echo(f"docker compose -f {out / 'compose.yaml'} up")


def _check_options(kind: str, given: dict[str, Any], overwrite: bool) -> None:
    """Raise UsageError for options that do not go with the format or with each other."""
    for key in given:
        if kind not in BELONGS_TO[key]:
            raise click.UsageError(
                f"--{key.replace('_', '-')} is for --format {' or '.join(BELONGS_TO[key])}, "
                f"not {kind}"
            )
    if given.get("quantize") == "int8" and "calibrate" not in given:
        raise click.UsageError("--quantize int8 needs --calibrate DIR, a folder of images")
    if "calibrate" in given and given.get("quantize") != "int8":
        raise click.UsageError("--calibrate is for --quantize int8")
    if "name" in given and "serve_config" not in given:
        raise click.UsageError("--name goes with --serve-config")
    if overwrite and "serve_config" in given:
        raise click.UsageError(
            "--overwrite does not go with --serve-config, which writes a new version each time"
        )
