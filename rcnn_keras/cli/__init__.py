"""The command `rcnn`. TensorFlow is imported by the commands that need it, as late as they can."""

import click

from rcnn_keras.cli.app import app
from rcnn_keras.cli.compare import compare
from rcnn_keras.cli.data import data
from rcnn_keras.cli.detect import detect
from rcnn_keras.cli.evaluate import evaluate
from rcnn_keras.cli.export import export
from rcnn_keras.cli.launch import launch
from rcnn_keras.cli.presets import presets
from rcnn_keras.cli.proposals import proposals
from rcnn_keras.cli.train import train

__all__ = ["main"]


class _TryAgain(click.ClickException):
    """Another worker is gone; exit status 75, EX_TEMPFAIL of sysexits.h."""

    exit_code = 75


class _Group(click.Group):
    """Tells what the user can mend in a line instead of a traceback; exit status 1."""

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, FloatingPointError, ImportError) as error:
            if ctx.params.get("traceback"):
                raise
            kind = _TryAgain if hasattr(error, "exit_status") else click.ClickException
            raise kind(str(error)) from error


@click.group(cls=_Group)
@click.option("--traceback", is_flag=True, help="Show where in the program an error arose.")
def main(traceback: bool) -> None:
    """Train, score and use detectors of the R-CNN family."""


for command in (train, launch, evaluate, detect, export, app, data, proposals, presets, compare):
    main.add_command(command)
