"""Write the numbers of torchvision that tests/parity compares with.

    python tools/parity/store.py --torch-python ../torch/bin/python

Of large arrays only evenly spread values are kept, of gradients their norms.
"""

import argparse
import dataclasses
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from cases import SAMPLES, sampled, stored_cases
from run import HERE, stored, torch_python

TESTS = HERE.parents[1] / "tests" / "parity"
WHOLE = (
    "proposals",
    "proposal_scores",
    "boxes",
    "scores",
    "labels",
    "keypoint",
    "loss/",
    "floor",
    "shapes",
)


def condensed(arrays: dict) -> dict:
    """Return what of a case's arrays is kept."""
    kept = {}
    for name, array in arrays.items():
        if name.startswith("gradient/"):
            kept[name.replace("gradient/", "norm/")] = np.linalg.norm(array)
        else:
            whole = name.startswith(WHOLE) or array.size <= SAMPLES
            kept[name] = array if whole else sampled(array)
    return kept


def main() -> None:
    """Read the command line, run torchvision, and write a file for each case."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--torch-python", type=Path, help="Python that has torch and torchvision")
    python = torch_python(parser.parse_args().torch_python)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fields = [dataclasses.asdict(case) for case in stored_cases()]
        (folder / "cases.json").write_text(json.dumps(fields))
        command = [python, HERE / "torch_side.py", folder / "cases.json", folder]
        subprocess.run([*command, "--weights-module", HERE / "seeded.py"], check=True)
        for number, case in enumerate(stored_cases()):
            kept = condensed(stored(folder / f"{number}.npz"))
            out = TESTS / f"{case.model}{'' if case.objects is None else '_losses'}.npz"
            np.savez_compressed(out, **kept)
            print(f"{out}: {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
