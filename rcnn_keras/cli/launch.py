"""`rcnn launch`."""

import sys

import click

# The command itself, in the same Python, whether or not it is installed.
RCNN = "from rcnn_command import main; main()"


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--retries",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="How often all workers are started again after one was killed.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds from asking workers to end to killing them.",
)
@click.argument("command", nargs=-1, type=click.UNPROCESSED, required=True)
def launch(workers: int, retries: int, grace: float, command: tuple[str, ...]) -> None:
    """Run COMMAND of rcnn as several workers of one training on this host.

    \b
    Example:
      rcnn launch -- train configs/mask_rcnn_resnet18_fpn_shapes.yaml --out runs/two

    Each worker trains on its part of every batch; what comes out is what one process would have
    got. If a worker is killed, all are started again, and go on from the last checkpoint. Ctrl-C
    ends all. The exit status is 0, or that of the first worker that ended badly: 128 and the number
    of the signal that killed it.

    On several hosts start the command itself on each, with the variable TF_CONFIG; configs/cluster
    has it for Kubernetes and Slurm.
    """
    from rcnn_keras.runs.launch import launch as run_workers

    # -P: no file of the working folder, such as a rcnn_keras.py, stands for a module.
    first = [sys.executable, "-P", "-c", RCNN, *command]
    again = [argument for argument in first if argument != "--overwrite"]  # what they have done
    raise SystemExit(run_workers(first, workers=workers, retries=retries, grace=grace, again=again))
