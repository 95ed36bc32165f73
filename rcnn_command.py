"""The command `rcnn`, whose help and usage errors do not wait for TensorFlow.

It stands outside the package, whose import brings every class that Keras may find in a saved model.
"""

import os
import sys

LEAN = "RCNN_KERAS_LEAN"  # with this variable the package imports its rooms when they are used


def main() -> None:
    """Run the command line."""
    before = os.environ.get(LEAN)
    os.environ[LEAN] = "1"
    from rcnn_keras.cli import main as command

    if before is None:  # what the command starts is no command
        del os.environ[LEAN]
    try:
        command(prog_name="rcnn")
    finally:
        _let_go_of_a_closed_pipe()


def _let_go_of_a_closed_pipe() -> None:
    """Write what is left; where nobody reads it, as in `rcnn presets | head`, end in silence."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


if __name__ == "__main__":
    main()
