"""Compare this package with torchvision, number by number, and print the table.

    python tools/parity/run.py
    python tools/parity/run.py --torch-python ../torch/bin/python --model maskrcnn_resnet50_fpn

torch and torchvision run in an environment of their own, which is made in .venv-torch if none is
given. The operations are compared first, then the detectors (torchvision's seven, and two on
EfficientNet-Lite0) with seeded weights: every stage at inference, then losses and gradients over
all samples. Ends with an error if any number is further off than is allowed.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from cases import CLASS_GAINS, cases, load_module

HERE = Path(__file__).resolve().parent
ENVIRONMENT = HERE.parents[1] / ".venv-torch"


def torch_python(given: Path | None) -> Path:
    """Return the Python that has torch and torchvision; make its environment if none is given."""
    if given is not None:
        return given
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"making {ENVIRONMENT} with torch and torchvision", flush=True)
        venv.create(ENVIRONMENT, with_pip=True)
        packages = ("torch", "torchvision", "numpy", "efficientnet-lite-pytorch")
        subprocess.run([python, "-m", "pip", "install", *packages], check=True)
    return python


def stored(path: Path) -> dict:
    """Return the arrays of a file, and delete it: gradients are large."""
    import numpy as np

    with np.load(path) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    path.unlink()
    return found


def compare_operations(python: Path, folder: Path) -> list:
    """Run both sides of the operations."""
    from compare_ops import compare

    file = folder / "operations.npz"
    subprocess.run([python, HERE / "torch_ops.py", file], check=True)
    return compare(stored(file))


def compare_detector(model: str, python: Path, folder: Path, args) -> list:
    """Run both sides of one detector's cases."""
    import compare

    drawing = load_module(args.weights_module)
    listed = cases(model, args.seed, args.class_gain)
    (folder / "cases.json").write_text(json.dumps([dataclasses.asdict(case) for case in listed]))
    command = [python, HERE / "torch_side.py", folder / "cases.json", folder]
    subprocess.run([*command, "--weights-module", args.weights_module], check=True)
    rows = []
    for number, case in enumerate(listed):
        theirs = stored(folder / f"{number}.npz")
        shapes = json.loads(str(theirs.pop("shapes")))
        state = drawing.seeded_state(shapes, case.seed, case.class_gain)
        ours = compare.build(case, state)
        stage = compare.forward if case.objects is None else compare.training
        rows += stage(case, ours, drawing, theirs)
    return rows


def show(rows: list) -> bool:
    """Print the rows under the names of their cases; return whether all passed."""
    case = None
    for row in rows:
        if row.case != case:
            case = row.case
            print(f"\n{case}")
        verdict = "" if row.passed else "   <-- too far"
        print(f"  {row.stage:22} {row.error:9.1e} of {row.allowed:7.0e}  {row.note}{verdict}")
    sys.stdout.flush()
    return all(row.passed for row in rows)


def main() -> None:
    """Read the command line, compare, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", type=Path, help="Python that has torch and torchvision")
    parser.add_argument(
        "--model", action="append", choices=CLASS_GAINS, help="one detector; again for more"
    )
    parser.add_argument("--seed", action="append", type=int, help="of the weights; again for more")
    parser.add_argument(
        "--weights-module",
        type=Path,
        default=HERE / "seeded.py",
        help="file with other functions seeded_state and seeded_image",
    )
    parser.add_argument("--class-gain", type=float, help="for seeded_state, instead of our own")
    args = parser.parse_args()
    args.seed = args.seed or [0, 1]
    python = torch_python(args.torch_python)
    passed = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        passed.append(show(compare_operations(python, folder)))
        for model in args.model or CLASS_GAINS:
            passed.append(show(compare_detector(model, python, folder, args)))
    if not all(passed):
        sys.exit("some numbers are further from torchvision's than is allowed")
    print("\nall numbers are as near to torchvision's as is asked")


if __name__ == "__main__":
    main()
