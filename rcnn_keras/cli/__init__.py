"""The command `rcnn`. TensorFlow is imported by the commands that need it, as late as they can."""

import io
import logging
import sys
from typing import Any

import click

from rcnn_keras.cli.app import app
from rcnn_keras.cli.compare import compare
from rcnn_keras.cli.convert import convert
from rcnn_keras.cli.data import data
from rcnn_keras.cli.detect import detect
from rcnn_keras.cli.evaluate import evaluate
from rcnn_keras.cli.explain import explain
from rcnn_keras.cli.export import export
from rcnn_keras.cli.init import init
from rcnn_keras.cli.launch import launch
from rcnn_keras.cli.presets import presets
from rcnn_keras.cli.proposals import proposals
from rcnn_keras.cli.train import train
from rcnn_keras.utils.environment import SettingsError

__all__ = ["main"]


def _show_what_can_be_shown() -> None:
    """Make standard output and error escape what they cannot show, such as names in other scripts.

    Results are written by then, and must not be lost for a line about them.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _TryAgain(click.ClickException):
    """Another worker is gone; exit status 75, EX_TEMPFAIL of sysexits.h."""

    exit_code = 75


class _Terminal(logging.Handler):
    """Writes what the package logs to standard output."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record))


class _WrongSettings(click.ClickException):
    """Keras is set up in a way that no command can work with."""

    exit_code = 2


class _Group(click.Group):
    """Reports what the user can repair in a line instead of a traceback; exit status 1."""

    def invoke(self, ctx: click.Context) -> Any:
        _show_what_can_be_shown()
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # nobody reads on; click ends in silence
            raise
        except (ValueError, OSError, FloatingPointError, ImportError) as error:
            if ctx.params.get("traceback"):
                raise
            kind = _TryAgain if hasattr(error, "exit_status") else click.ClickException
            if isinstance(error, SettingsError):
                kind = _WrongSettings
            raise kind(str(error)) from error


@click.group(cls=_Group)
@click.option("--traceback", is_flag=True, help="Show where in the program an error arose.")
def main(traceback: bool) -> None:
    """Train, score and use detectors of the R-CNN family."""
    logger = logging.getLogger("rcnn_keras")
    if not logger.handlers:
        logger.addHandler(_Terminal())
        logger.setLevel(logging.INFO)


for command in (
    *(init, train, launch, evaluate, detect, explain, export),
    *(app, convert, data, proposals, presets, compare),
):
    main.add_command(command)
