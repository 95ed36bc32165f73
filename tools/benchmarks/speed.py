"""Time the detectors beside torchvision's: the same architecture, weights and images, in turns.

    python tools/benchmarks/speed.py                                     # ours alone
    python tools/benchmarks/speed.py --torch-python torch-env/bin/python  # beside torchvision
    python tools/benchmarks/speed.py --cases mask-stages --scale 0.25    # quick, on small images

`--torch-python` is a Python with `pip install torch torchvision`. The sides take turns, each in a
process of its own with the same number of threads, so that a busy machine hurts all alike. A time
is the median of the steps of all rounds; each process takes two more steps first. Both sides draw
the same weights by name (tools/parity/seeded.py), and the tables end with what each found or with
its first loss, to show that they did the same work. (Which RoIs and anchors are sampled is
chance, so the losses differ a little.) What is timed is what a user calls:

    ours         `model(inputs)` in a `tf.function` and, with masks, `Detections.bool_masks`, or
                 `model.train_step(data)`; images in 0..255
    torchvision  `model(images)`, its transform included (normalising, a resize by 1, padding), and
                 masks above 0.5, or that with backward pass and SGD step; images in 0..1

Each side runs one operation at a time on all threads, which is PyTorch's way. TensorFlow's default
runs several beside each other, each on all threads; on two cores that takes about 5% longer.

Ours gets what `Batches` deliver, images padded and masks packed beforehand; torchvision pads inside
its call. "Ours folded" is after `fold_batchnorm(model, winograd=True)`. Images are in memory, of
the size that the models resize to. A stage is timed by itself, on what the stage before it gave.
Peak memory is that of the whole process, the framework, the drawing of weights and the folding
included. With a GPU that both see, both run on it, and the memory is still that of the host.
"""

import argparse
import dataclasses
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from itertools import groupby
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent / "sides"))
from workloads import WORKLOADS, Workload

FOLDER = Path(__file__).resolve().parent / "sides"

OURS, FOLDED, THEIRS = SIDES = ("ours", "ours folded", "torchvision")
TITLES = {
    "inference": "Inference",
    "stages": "Inference, stage by stage",
    "training": "Training step",
    "memory": "Peak memory of two training steps",
}
MEMORY_STEPS = 2


@dataclasses.dataclass(frozen=True)
class Measured:
    """One side of a workload: median seconds by stage, peak memory, and what came out."""

    seconds: dict[str, float]
    peak_mb: float
    result: str


def sides_of(workload: Workload) -> tuple[str, ...]:
    """Return the sides that a workload has."""
    return SIDES if workload.work in ("inference", "stages") else (OURS, THEIRS)


def run_side(side: str, workload: Workload, args: argparse.Namespace) -> dict:
    """Run a side in a process of its own and return what it printed."""
    theirs = side == THEIRS
    script = FOLDER / ("torch_side.py" if theirs else "keras_side.py")
    steps = MEMORY_STEPS if workload.work == "memory" else args.steps
    command = [args.torch_python if theirs else sys.executable, str(script)]
    command += [json.dumps(dataclasses.asdict(workload))]
    command += ["--steps", str(steps), "--threads", str(args.threads)]
    command += ["--folded"] if side == FOLDED else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side}, {workload.label}: ended with {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def summary(runs: list[dict]) -> Measured:
    """Return the medians over the steps of all rounds, and the largest peak."""
    medians = {
        stage: statistics.median(second for run in runs for second in run["seconds"][stage])
        for stage in runs[0]["seconds"]
    }
    return Measured(medians, max(run["peak_mb"] for run in runs), runs[0]["result"])


def measure(workload: Workload, args: argparse.Namespace) -> dict[str, Measured]:
    """Let the sides take turns, and return what was measured of each."""
    sides = [side for side in sides_of(workload) if side != THEIRS or args.torch_python]
    rounds = 1 if workload.work == "memory" else args.rounds
    runs: dict[str, list[dict]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            runs[side].append(run_side(side, workload, args))
    return {side: summary(results) for side, results in runs.items()}


def header(work: str, sides: tuple[str, ...]) -> list[str]:
    """Return the names of a table's columns."""
    ratio = f"{sides[-2]} / {sides[-1]}"
    times, peaks = ([f"{side}, {unit}" for side in sides] for unit in ("s", "MB"))
    if work == "stages":
        return ["stage", *times, ratio]
    if work == "memory":
        return ["", *peaks, ratio, "first loss"]
    return ["", *times, ratio, *peaks, "detections, mean score" if len(sides) > 2 else "first loss"]


def rows(workload: Workload, measured: dict[str, Measured]) -> list[list[str]]:
    """Return the rows that a workload has in its table; "-" for a side that did not run."""
    sides = sides_of(workload)
    present = [measured.get(side) for side in sides]
    peaks = [side and side.peak_mb for side in present]
    results = [side.result if side else "-" for side in present]
    if workload.work == "memory":
        return [[workload.label, *numbers(peaks, "{:.0f}"), ratio(peaks), " / ".join(results)]]
    if workload.work == "stages":
        peaks = ["peak of the process, MB", *numbers(peaks, "{:.0f}"), ""]
        return [*stage_rows(present), peaks, ["detections, mean score", *results, ""]]
    times = [side and side.seconds["step"] for side in present]
    cells = [*numbers(times, "{:.3f}"), ratio(times), *numbers(peaks, "{:.0f}")]
    cells.append(" / ".join(results))
    return [[workload.label, *cells]]


def stage_rows(present: list[Measured | None]) -> list[list[str]]:
    """Return a row for each stage and one for their sum."""
    found = []
    for stage in [*present[0].seconds, "all stages"]:
        times = [
            side and side.seconds.get(stage, math.fsum(side.seconds.values())) for side in present
        ]
        found.append([stage, *numbers(times, "{:.3f}"), ratio(times)])
    return found


def numbers(values: list[float | None], form: str) -> list[str]:
    """Return numbers as text, "-" where there is none."""
    return ["-" if value is None else form.format(value) for value in values]


def ratio(values: list[float | None]) -> str:
    """Return the last of our numbers over torchvision's."""
    *_, ours, theirs = values
    return "-" if theirs is None else f"{ours / theirs:.2f}"


def line(cells: list[str]) -> str:
    """Return a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def compare(args: argparse.Namespace) -> None:
    """Print a table for each kind of work, each row as soon as it is measured."""
    print(f"{processor()}, {args.threads} threads, Python {platform.python_version()}")
    kinds = list(TITLES)
    chosen = sorted((WORKLOADS[case] for case in args.cases), key=lambda w: kinds.index(w.work))
    for work, workloads in groupby(chosen, key=lambda w: w.work):
        workloads = [workload.scaled(args.scale) for workload in workloads]
        cells = header(work, sides_of(workloads[0]))
        label = f" of {workloads[0].label}" if work == "stages" else ""
        print(f"\n**{TITLES[work]}**{label}\n\n{line(cells)}\n{line(['---'] * len(cells))}")
        for workload in workloads:
            for row in rows(workload, measure(workload, args)):
                print(line(row), flush=True)


def processor() -> str:
    """Return the processor's name."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
        return f"{names[0]}, {len(names)} cores"
    except (OSError, IndexError):
        return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def check_torch(python: str) -> None:
    """End with a message unless a Python has torch and torchvision."""
    try:
        command = [python, "-c", "import torch, torchvision"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        sys.exit(f"--torch-python {python}: {error.strerror}")
    if done.returncode:
        reason = done.stderr.strip().splitlines()[-1:] or [f"ended with {done.returncode}"]
        sys.exit(f"--torch-python {python} cannot import torch and torchvision: {reason[0]}")


def positive(kind):
    """Return the reader of an option that must be above 0."""

    def read(text):
        value = kind(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"must be above 0; received {text}")
        return value

    read.__name__ = kind.__name__
    return read


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", help="a Python that has torch and torchvision")
    parser.add_argument(
        "--cases", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), help="default: all"
    )
    parser.add_argument("--steps", type=positive(int), default=5, help="timed steps a round")
    parser.add_argument("--rounds", type=positive(int), default=2)
    parser.add_argument("--threads", type=positive(int), default=os.cpu_count())
    parser.add_argument(
        "--scale", type=positive(float), default=1.0, help="of the images' sides, for a quick try"
    )
    args = parser.parse_args()
    if args.torch_python:
        check_torch(args.torch_python)
    compare(args)


if __name__ == "__main__":
    main()
