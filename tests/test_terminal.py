"""What the command writes to terminals that cannot show it, and to pipes that are closed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rcnn_keras

ROOT = Path(rcnn_keras.__file__).parents[1]
NAMES = """
import click
from rcnn_keras import cli
@click.command()
def names():
    for name in ("\\u732b", "\\U0001f600", "a\\udcff.png"):
        click.echo(name)
        print(name)
    click.echo("\\u732b", err=True)
    click.echo("done")
cli.main.add_command(names)
"""


def command(before, *arguments, **environment):
    program = f"import os\nos.environ['RCNN_KERAS_LEAN'] = '1'\n{before}\n"
    program += f"import sys\nsys.argv[1:] = {arguments!r}\nimport rcnn_command\nrcnn_command.main()"
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"PYTHONPATH": path} | environment
    return [sys.executable, "-c", program], environment


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8", "ascii:strict"])
def test_names_that_a_terminal_cannot_show_end_no_command(encoding):
    program, environment = command(NAMES, "names", PYTHONIOENCODING=encoding, LC_ALL="C")
    done = subprocess.run(program, env=environment, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == b"done"


def test_a_closed_pipe_is_silent():
    many = NAMES.replace('click.echo("done")', "[click.echo('x' * 1000) for _ in range(1000)]")
    for program in (command(many, "names"), command("", "--help")):
        process = subprocess.Popen(
            program[0], env=program[1], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read().decode()
        process.wait()
        process.stderr.close()
        assert "Error" not in errors
        assert "Broken pipe" not in errors
