"""`rcnn train`."""

import json
from pathlib import Path

import click

from rcnn_keras.cli.common import print_scores, quiet_import
from rcnn_keras.utils.output_paths import check_output_folder


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY.SUB=VALUE",
    help="Replace a value of the file; may be repeated. Relative paths are taken from the file's "
    "folder, as in the file.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Run folder.  [default: runs/<CONFIG's name>]"
)
@click.option("--overwrite", is_flag=True, help="Remove an earlier run's files from the folder.")
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with the unfinished run in the folder, and never start one: an error if there is "
    "none.",
)
def train(
    config: Path, overrides: tuple[str, ...], out: Path | None, overwrite: bool, resume: bool
) -> None:
    """Train the model that the YAML file CONFIG describes.

    \b
    Example:
      rcnn train configs/faster_rcnn_resnet18_fpn_bccd.yaml \\
        --set optimizer.learning_rate=0.02 --set training.epochs=3 --out runs/first

    With model.preset the training starts from the weights of a preset (rcnn presets) or of a .keras
    file, and arguments of the model that are not stated are that model's.

    The whole file is checked before anything starts. The run folder gets config.yaml (all defaults
    filled in), history.csv, best.keras, last.keras, scores.json, detections.json and report.html.
    R-CNN, which is trained in stages, has the folder stages/ instead of a history and last.keras.

    A run that was stopped goes on where it was when the same command is given again, with --resume
    or without, and ends as if it had never been stopped, to the last bit. Ctrl-C and SIGTERM save
    first; a second Ctrl-C quits at once. CONFIG may also be the folder of a run.
    """
    if overwrite and resume:
        raise click.UsageError("--overwrite and --resume exclude each other")
    if config.is_dir():
        config, out = config / "config.yaml", out or config
    from rcnn_keras.runs.document import read_document

    document = read_document(config, overrides)
    folder = out or Path("runs", config.stem)
    check_output_folder(folder)
    with quiet_import():
        from rcnn_keras.runs import configuration, run
        from rcnn_keras.training.checkpoint import StopRequest, stop_requests
    settings = configuration.validate(document)
    try:
        with stop_requests(StopRequest(at_once=True)):
            run.train(settings, folder, overwrite=overwrite, resume=resume)
    except (KeyboardInterrupt, SystemExit) as stopped:
        begun = (folder / "config.yaml").exists()
        how = f"To go on: rcnn train {folder} --resume" if begun else "Nothing was begun."
        click.echo(f"Stopped. {how}", err=True)
        raise SystemExit(getattr(stopped, "code", None) or 130) from None
    print_scores(json.loads((folder / "scores.json").read_text("utf-8")))
    click.echo(folder / "report.html")
